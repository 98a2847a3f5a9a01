# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_alpha_clip import SIZES, Reference, alpha_clip_pth
from transformers import CLIPVisionModel

from caption_ros.captioners.alpha_clip import alpha_clip_vision_tower, convert_alpha_clip
from caption_ros.errors import CheckpointError, OptionError, RegionError
from caption_ros.region import alpha_channel

IN_PROJ = 'transformer.resblocks.1.attn.in_proj.bias'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp('alpha') / 'clip.pth'
    return path, alpha_clip_pth(path)


def _inputs(side, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(batch, 3, side, side, generator=generator)
    mask = np.zeros((side, side), np.bool_)
    mask[: side // 2, side // 3:] = True
    alpha = torch.from_numpy(np.stack([alpha_channel(mask), alpha_channel(~mask)])[:batch])
    return pixels, alpha


def _look(tower, *inputs):
    with torch.inference_mode():
        return tower(*inputs, output_hidden_states=True)


@pytest.mark.parametrize('sizes, is_converted', [
    pytest.param(sizes, is_converted, id=f'{name}, {"converted" if is_converted else "as it is"}')
    for name, sizes, ways in (
        ('one head', {'width': 64, 'patch': 8, 'grid': 3, 'blocks': 4, 'out': 24}, (False, True)),
        ('tiny 16', {'width': 192, 'patch': 16, 'grid': 5, 'blocks': 3, 'out': 64}, (False, True)),
        # Its 24 blocks are as one another, and conversion is the same code at every size.
        ('L14 at 336', {'width': 1024, 'patch': 14, 'grid': 24, 'blocks': 6, 'out': 768},
         (False,)))
    for is_converted in ways])
def test_the_tower_is_the_reference_network(sizes, is_converted, tmp_path):
    reference = alpha_clip_pth(tmp_path / 'clip.pth', seed=3, **sizes)
    path = tmp_path / 'clip.pth'
    if is_converted:
        convert_alpha_clip(path, tmp_path / 'folder')
        path = tmp_path / 'folder'
    tower = alpha_clip_vision_tower(path)
    pixels, alpha = _inputs(sizes['patch'] * sizes['grid'], 1 if sizes['width'] > 999 else 2)
    states, pooled, projected = reference(pixels, alpha)
    atol = 1e-5 if sizes['width'] < 1024 else 2e-4  # long sums, in another order
    out = _look(tower, pixels, alpha)
    assert len(out.hidden_states) == sizes['blocks'] + 1
    for ours, theirs in zip(out.hidden_states, states):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=atol)
    torch.testing.assert_close(out.last_hidden_state, states[-1], rtol=1e-5, atol=atol)
    torch.testing.assert_close(out.pooler_output, pooled, rtol=1e-5, atol=atol)
    torch.testing.assert_close(out.image_embeds, projected, rtol=1e-5, atol=atol)
    assert pooled.std() > 0.1 and states[-1].std() > 0.5


def test_no_alpha_is_region_everywhere_and_alpha_matters(saved):
    tower = alpha_clip_vision_tower(saved[0])
    pixels, alpha = _inputs(32)
    ones = torch.from_numpy(alpha_channel(np.ones((32, 32), np.bool_)))[None].repeat(2, 1, 1, 1)
    nothing = _look(tower, pixels).pooler_output
    torch.testing.assert_close(nothing, _look(tower, pixels, ones).pooler_output)
    assert (nothing - _look(tower, pixels, alpha).pooler_output).abs().max() > 0.1
    with pytest.raises(RegionError, match=r'alpha must be \(2, 1, 32, 32\)'):
        tower(pixels, alpha[:, 0])


@pytest.mark.parametrize('prefix', ['module.', 'visual.', 'module.visual.'])
def test_prefixes_are_tolerated(prefix, saved, tmp_path):
    torch.save({prefix + name: weight for name, weight in saved[1].state_dict().items()},
               tmp_path / 'clip.pth')
    same = alpha_clip_vision_tower(tmp_path / 'clip.pth')
    assert torch.equal(_look(same, *_inputs(32)).pooler_output,
                       _look(alpha_clip_vision_tower(saved[0]), *_inputs(32)).pooler_output)


def test_mixed_number_types_lose_nothing(saved, tmp_path):
    weights = saved[1].state_dict()
    weights['conv1.weight'] = weights['conv1.weight'].half()
    torch.save(weights, tmp_path / 'mixed.pth')
    convert_alpha_clip(tmp_path / 'mixed.pth', tmp_path / 'mixed')
    torch.save({name: weight.half() for name, weight in weights.items()}, tmp_path / 'half.pth')
    convert_alpha_clip(tmp_path / 'half.pth', tmp_path / 'half')
    for name, dtype in (('mixed', torch.float32), ('half', torch.float16)):
        held = load_file(tmp_path / name / 'model.safetensors')
        assert {weight.dtype for weight in held.values()} == {dtype}
        torch.testing.assert_close(held['vision_model.post_layernorm.bias'],
                                   weights['ln_post.bias'].to(dtype), rtol=0, atol=0)
    tower = alpha_clip_vision_tower(tmp_path / 'half', torch.bfloat16)
    assert next(tower.parameters()).dtype == torch.bfloat16


def test_the_converted_folder_is_a_clip_vision_model(saved, tmp_path):
    convert_alpha_clip(saved[0], tmp_path / 'folder')
    model = CLIPVisionModel.from_pretrained(tmp_path / 'folder').eval()
    pixels, alpha = _inputs(32)
    with torch.inference_mode():
        pooled = model(torch.cat([pixels, alpha], 1)).pooler_output
    torch.testing.assert_close(pooled, saved[1](pixels, alpha)[1], rtol=1e-5, atol=1e-5)
    model.save_pretrained(tmp_path / 'bare')  # without the projection
    out = _look(alpha_clip_vision_tower(tmp_path / 'bare'), pixels, alpha)
    assert torch.equal(out.pooler_output, pooled) and out.image_embeds is None


def _edited(saved, path, change):
    weights = saved[1].state_dict()
    change(weights)
    torch.save(weights, path)
    return path


@pytest.mark.parametrize('change, text', [
    pytest.param(lambda w: w.pop(IN_PROJ), f'clip.pth lacks {IN_PROJ}; wanted', id='missing'),
    pytest.param(lambda w: w.pop('conv1_alpha.weight'), 'lacks conv1_alpha.weight', id='CLIP'),
    pytest.param(lambda w: w.pop('proj'), 'lacks proj and holds class_emb', id='no projection'),
    pytest.param(lambda w: w.update({IN_PROJ + 's': w.pop(IN_PROJ)}),
                 f'lacks {IN_PROJ} and holds {IN_PROJ}s, which', id='renamed'),
    pytest.param(lambda w: w.update({'logit_scale': torch.ones(())}), 'holds logit_scale, which',
                 id='extra'),
    pytest.param(lambda w: [w.pop(name) for name in list(w) if 'resblocks.1.' in name],
                 r'lacks transformer.resblocks.1.attn.in_proj.bias.* and 8 more', id='a block'),
    pytest.param(lambda w: w.update({'a.lora_A': torch.ones(2, 2)}),
                 r'holds LoRA weights \(a.lora_A\)', id='LoRA'),
    pytest.param(lambda w: w.update({IN_PROJ: torch.ones(64)}),
                 rf'{IN_PROJ} of shape \(64,\), wanted \(192,\)', id='misshapen'),
    pytest.param(lambda w: w.update({'conv1.weight': torch.ones(64)}),
                 r'conv1.weight of shape \(64,\), wanted 4 dimensions', id='flat'),
    pytest.param(lambda w: w.update(positional_embedding=torch.ones(18, 64)),
                 'positional_embedding for 18 tokens, wanted a class token and a square',
                 id='not square'),
    pytest.param(lambda w: w.update(class_embedding=torch.ones(60)), 'width 60', id='heads'),
    pytest.param(lambda w: w.update(epoch=3), "holds 'epoch' of type int", id='no weight'),
    pytest.param(lambda w: w.update(ids=torch.arange(3)), "holds 'ids' of type torch.int64",
                 id='integers'),
    pytest.param(lambda w: w.clear(), 'holds nothing', id='empty'),
])
def test_what_is_not_alpha_clip_is_named(change, text, saved, tmp_path):
    path = _edited(saved, tmp_path / 'clip.pth', change)
    with pytest.raises(CheckpointError, match=text) as error:
        alpha_clip_vision_tower(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


class _Code:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    torch.save({'conv1.weight': _Code(tmp_path / 'ran')}, tmp_path / 'clip.pth')
    with pytest.raises(CheckpointError, match='clip.pth cannot be read as plain weights'):
        alpha_clip_vision_tower(tmp_path / 'clip.pth')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content', [b'', b'hello', 'half'])
def test_a_damaged_file_is_refused(content, saved, tmp_path):
    whole = saved[0].read_bytes()
    (tmp_path / 'clip.pth').write_bytes(whole[:len(whole) // 2] if content == 'half' else content)
    with pytest.raises(CheckpointError, match='clip.pth cannot be read as plain weights'):
        alpha_clip_vision_tower(tmp_path / 'clip.pth')


def test_other_things_are_refused(saved, tmp_path, checkpoint):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='list.pth holds a list, wanted'):
        alpha_clip_vision_tower(tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='no.pth is not there'):
        alpha_clip_vision_tower(tmp_path / 'no.pth')
    with pytest.raises(CheckpointError, match="model_type 'blip' with 3 channels, wanted"):
        alpha_clip_vision_tower(checkpoint('blip'))
    with pytest.raises(CheckpointError, match='holds no config.json'):
        alpha_clip_vision_tower(tmp_path)


def test_a_converted_folder_lacking_a_weight_is_refused(saved, tmp_path):
    from safetensors.torch import save_file
    convert_alpha_clip(saved[0], tmp_path / 'folder')
    weights = load_file(tmp_path / 'folder' / 'model.safetensors')
    del weights['vision_model.post_layernorm.bias']
    save_file(weights, tmp_path / 'folder' / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='lacks weights.*post_layernorm.bias'):
        alpha_clip_vision_tower(tmp_path / 'folder')


def test_nothing_is_overwritten_without_force(saved, tmp_path):
    out = tmp_path / 'new' / 'folder'
    convert_alpha_clip(saved[0], out)
    before = (out / 'model.safetensors').read_bytes()
    torch.save(Reference(**SIZES, seed=9).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(OptionError, match='folder is there already; .*--force'):
        convert_alpha_clip(tmp_path / 'other.pth', out)
    assert (out / 'model.safetensors').read_bytes() == before
    convert_alpha_clip(tmp_path / 'other.pth', out, force=True)
    assert (out / 'model.safetensors').read_bytes() != before
    assert sorted(path.name for path in out.parent.iterdir()) == ['folder']


def test_force_replaces_nothing_but_a_converted_folder(saved, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('years')
    for out in (tmp_path / 'mine', tmp_path / 'mine' / 'thesis.txt'):
        with pytest.raises(OptionError, match='is no converted Alpha-CLIP'):
            convert_alpha_clip(saved[0], out, force=True)
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'years'
    (tmp_path / 'empty').mkdir()
    convert_alpha_clip(saved[0], tmp_path / 'empty')
    assert alpha_clip_vision_tower(tmp_path / 'empty')


def test_a_write_that_fails_leaves_what_was_there(saved, tmp_path, monkeypatch):
    import safetensors.torch
    out = tmp_path / 'folder'
    convert_alpha_clip(saved[0], out)
    before = (out / 'model.safetensors').read_bytes()

    def fail(*_, **__):
        raise OSError('No space left on device')
    monkeypatch.setattr(safetensors.torch, 'save_file', fail)
    with pytest.raises(OptionError, match='cannot be written .No space'):
        convert_alpha_clip(saved[0], out, force=True)
    with pytest.raises(OptionError, match='cannot be written .No space'):
        convert_alpha_clip(saved[0], tmp_path / 'second')
    assert [path.name for path in tmp_path.iterdir()] == ['folder']
    assert (out / 'model.safetensors').read_bytes() == before


def test_a_refused_checkpoint_leaves_no_folder(saved, tmp_path):
    path = _edited(saved, tmp_path / 'clip.pth', lambda weights: weights.pop('proj'))
    with pytest.raises(CheckpointError):
        convert_alpha_clip(path, tmp_path / 'deep' / 'folder')
    assert [path.name for path in tmp_path.iterdir()] == ['clip.pth']
