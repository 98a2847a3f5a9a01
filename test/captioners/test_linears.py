# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import tiny_checkpoints
import torch
from cpu_kinds import packs_bfloat16
from torch import nn
from transformers.pytorch_utils import Conv1D

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import base, linears, load_captioner, loading
from caption_ros.captioners.devices import cpu_multiplies
from caption_ros.captioners.linears import (
    Int8Linear,
    PackedLinear,
    PlainLinear,
    ScreenedHead,
    as_linear,
    can_pack,
    linear_weights,
    pack_linears,
    rounded,
)
from caption_ros.errors import OptionError
from caption_ros.pipeline import caption_frame

RGB = np.random.default_rng(1).integers(0, 256, (40, 48, 3), np.uint8)
LABELS = np.zeros((40, 48), np.uint8)
LABELS[5:20, 5:20], LABELS[20:38, 25:45] = 1, 2


def _layers():
    torch.manual_seed(0)
    conv = Conv1D(48, 32)
    nn.init.normal_(conv.bias)
    return [nn.Linear(32, 48), nn.Linear(32, 48, bias=False), conv]


@pytest.mark.parametrize('layer', _layers(), ids=['linear', 'no bias', 'conv1d'])
@pytest.mark.parametrize('kind, error', [(PlainLinear, 1e-6), (PackedLinear, 1e-5),
                                         (Int8Linear, 0.03)])
def test_a_packed_layer_computes_what_the_layer_does(layer, kind, error):
    x = torch.randn(5, 7, 32)
    with torch.inference_mode():
        wanted = layer(x)
        packed = kind(*linear_weights(layer))
        for found in (packed(x), torch.jit.script(packed)(x)):
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() < error * wanted.abs().max()


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('has_bias', [False, True])
def test_a_screened_head_gives_the_likeliest_in_full_and_the_rest_nearly(has_bias):
    torch.manual_seed(1)
    weight = torch.randn(3000, 64, dtype=torch.bfloat16)
    bias = torch.randn(3000, dtype=torch.bfloat16) if has_bias else None
    x = torch.randn(15, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = nn.functional.linear(x.double(), weight.double(),
                                      bias.double() if has_bias else None)
        best = wanted.topk(8).indices
        # Two roundings to bfloat16, one of them where there is no bias.
        nearly = {'rtol': 2 ** -8, 'atol': 2 ** -5 if has_bias else 0.0}
        head = ScreenedHead(weight, bias)
        for found in (head(x), torch.jit.script(head)(x)):
            assert found.dtype == torch.float32 and found.shape == wanted.shape
            full = found.gather(1, best).double()
            assert torch.allclose(full, wanted.gather(1, best), **nearly)
            said = wanted.gather(1, found.argmax(-1, keepdim=True))
            assert torch.allclose(said, wanted.amax(-1, keepdim=True), **nearly)
            assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
            assert torch.allclose(found.double().logsumexp(-1), wanted.logsumexp(-1), atol=0.15)
        rough = head.rough(x.float()).gather(1, best).double()
        assert not torch.allclose(rough, wanted.gather(1, best), **nearly)


def test_a_screened_head_gives_many_rows_all_in_full():
    head = ScreenedHead(torch.randn(3000, 64, dtype=torch.bfloat16), None)
    x = torch.randn(4, 4, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = nn.functional.linear(x, head.weight).float()
        for found in (head(x), torch.jit.script(head)(x)):
            assert torch.equal(found, wanted)
        assert not torch.equal(head(x[:3]), wanted[:3])


def test_all_linear_layers_of_a_model_are_packed_and_nothing_else():
    model = nn.Sequential(nn.Embedding(9, 32), nn.ModuleDict({'up': nn.Linear(32, 48)}),
                          *_layers(), nn.LayerNorm(48))
    pack_linears(model)
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds.count('PackedLinear') == 4 and 'Linear' not in kinds and 'Conv1D' not in kinds
    assert kinds.count('Embedding') == kinds.count('LayerNorm') == 1
    assert as_linear(model[2]) is model[2]


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('make', [tiny_checkpoints.vit_gpt2, tiny_checkpoints.beit_bert,
                                  tiny_checkpoints.blip], ids=['gpt2', 'bert', 'blip'])
@pytest.mark.parametrize('beams', [1, 3])
def test_a_packed_model_says_what_the_plain_one_says(make, beams, tmp_path, monkeypatch):
    make(tmp_path)
    options = CaptionOptions(describe='both', num_beams=beams, max_new_tokens=12)
    plain = load_captioner(str(tmp_path), device='cpu', dtype='float32')
    wanted = caption_frame(RGB, LABELS, plain, options)
    monkeypatch.setattr(loading, 'LARGE', 0)
    packed = load_captioner(str(tmp_path), device='cpu', dtype='float32')
    found = caption_frame(RGB, LABELS, packed, options)
    assert any(isinstance(module, PackedLinear) for module in packed._model.modules())
    assert packed.dtype == plain.dtype == 'float32'
    assert [caption.text for caption in found] == [caption.text for caption in wanted]
    assert [caption.score for caption in found] == pytest.approx(
        [caption.score for caption in wanted], rel=1e-3)


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('make', [tiny_checkpoints.vit_gpt2, tiny_checkpoints.blip],
                         ids=['gpt2', 'blip'])
def test_int8_is_close_to_float32_and_called_by_its_name(make, tmp_path):
    make(tmp_path)
    options = CaptionOptions(describe='regions', max_new_tokens=1)
    exact, rounded = (caption_frame(RGB, LABELS, captioner, options) for captioner in (
        load_captioner(str(tmp_path), device='cpu', dtype='float32'),
        load_captioner(str(tmp_path), device='cpu', dtype='int8')))
    assert load_captioner(str(tmp_path), device='cpu', dtype='int8').dtype == 'int8'
    for one, other in zip(exact, rounded):
        assert other.score == pytest.approx(one.score, abs=0.1)


@pytest.mark.usefixtures('layers')
@packs_bfloat16
def test_with_amx_keys_of_the_image_are_in_bfloat16_whatever_the_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'has_amx', lambda: True)
    monkeypatch.setattr(loading, '_ENCODER', 0)
    for make in (tiny_checkpoints.vit_gpt2, tiny_checkpoints.beit_bert, tiny_checkpoints.blip):
        folder = tmp_path / make.__name__
        folder.mkdir()
        make(folder)
        path = folder / 'generation_config.json'
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in settings.items()
                                    if 'suppress' not in name}))
        captioner = load_captioner(str(folder), device='cpu', dtype='int8')
        assert captioner.dtype == 'bfloat16+int8'
        assert captioner._greedy._dtype == torch.bfloat16
        assert caption_frame(RGB, LABELS, captioner, CaptionOptions(max_new_tokens=3))


@pytest.mark.usefixtures('layers')
@packs_bfloat16
@pytest.mark.parametrize('beams', [1, 2])
def test_with_amx_what_looks_is_in_bfloat16_beside_int8(beams, tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'has_amx', lambda: True)
    monkeypatch.setattr(loading, '_ENCODER', 0)
    options = CaptionOptions(describe='regions', max_new_tokens=1, num_beams=beams)
    exact, coarse = (load_captioner(str(tmp_path), device='cpu', dtype=dtype)
                      for dtype in ('float32', 'int8'))
    assert coarse.dtype == 'bfloat16+int8'
    kinds = {name: getattr(module, 'packed_dtype', None)
             for name, module in coarse._model.named_modules()}
    assert {kind for name, kind in kinds.items() if name.startswith('encoder.')} == {
        'bfloat16', None}
    for kind, ends in (('bfloat16', 'crossattention.c_attn'), ('int8', ('q_attn', 'c_fc'))):
        assert {kinds[name] for name in kinds if name.endswith(ends)} == {kind}
    for one, other in zip(caption_frame(RGB, LABELS, exact, options),
                          caption_frame(RGB, LABELS, coarse, options)):
        assert other.score == pytest.approx(one.score, abs=0.1)


def test_with_amx_and_a_torch_that_cannot_pack_all_is_in_int8(tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'has_amx', lambda: True)
    monkeypatch.setattr(loading, '_ENCODER', 0)
    monkeypatch.setattr('caption_ros.captioners.linears.can_pack', lambda dtype: False)
    coarse = load_captioner(str(tmp_path), device='cpu', dtype='int8')
    assert coarse.dtype == 'int8'
    assert caption_frame(RGB, LABELS, coarse, CaptionOptions(max_new_tokens=2))


@pytest.mark.usefixtures('layers')
def test_a_rounded_copy_takes_and_gives_float32_and_leaves_the_packed_as_it_was():
    model = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 48), nn.GELU()).to(torch.bfloat16)
    pack_linears(model)
    x = torch.randn(5, 32)
    with torch.inference_mode():
        wanted = model(x.to(torch.bfloat16))
        found = rounded(model)(x)
        assert found.dtype == torch.float32
        assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
        assert torch.equal(model(x.to(torch.bfloat16)), wanted)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_a_number_type_that_the_cpu_lacks_is_told_of(dtype, tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    half, full = (load_captioner(str(tmp_path), device='cpu', dtype=each)
                  for each in (dtype, 'float32'))
    for can in (False, True):
        monkeypatch.setattr(base, 'cpu_multiplies',
                            lambda name, can=can: can or name == 'float32')
        told = [f'this CPU cannot multiply {dtype} and takes several times as long as with '
                'float32: set dtype to auto']
        assert (half.problems(), full.problems()) == ([] if can else told, [])


def test_oneDNN_says_what_the_cpu_multiplies():
    assert cpu_multiplies('float32') and cpu_multiplies('int8')
    assert cpu_multiplies('bfloat16') is can_pack(torch.bfloat16)


def test_where_the_cpu_cannot_pack_bfloat16_it_stays_plain(tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'LARGE', 0)
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: False)
    kinds = {}
    for dtype in ('bfloat16', 'float32'):
        captioner = load_captioner(str(tmp_path), device='cpu', dtype=dtype)
        kinds[dtype] = any(isinstance(module, PackedLinear)
                           for module in captioner._model.modules())
        assert caption_frame(RGB, LABELS, captioner, CaptionOptions(max_new_tokens=2))
    assert kinds == {'bfloat16': False, 'float32': True}


def test_int8_without_the_layers_for_it_is_refused(monkeypatch):
    monkeypatch.setattr('caption_ros.captioners.linears._has', lambda *_: False)
    with pytest.raises(OptionError, match="dtype 'int8' needs torch's quantized linear layers"):
        pack_linears(nn.Sequential(nn.Linear(2, 2)), int8=True)
    model = nn.Sequential(nn.Linear(2, 2))
    pack_linears(model)  # without packing it is slower, and as right
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize('vnni', [False, True])
@pytest.mark.parametrize('layer', _layers(), ids=['linear', 'no bias', 'conv1d'])
def test_by_token_a_token_is_what_it_would_be_among_others(layer, vnni, monkeypatch):
    monkeypatch.setattr(linears, 'has_vnni', lambda: vnni)
    x = torch.randn(6, 1, 32)
    x[0] *= 1000  # of which nothing would be left of the others in its scale
    with torch.inference_mode():
        packed = Int8Linear(*linear_weights(layer))
        packed.by_token = True
        found = torch.jit.script(packed)(x)
        assert torch.equal(found[1:], packed(x[1:]))
        assert torch.equal(found[1:], packed(x[1:].transpose(0, 1)).transpose(0, 1))
        wanted = layer(x)
        error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
        assert error.max() < 0.04
        alone = torch.cat([packed(one) for one in x.split(1)])
        assert ((alone - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max() < 0.04
        assert torch.isfinite(packed(torch.zeros(2, 1, 32))).all()
