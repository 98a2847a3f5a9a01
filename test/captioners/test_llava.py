# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_alpha_clip import END, alpha_clip_llava, alpha_clip_pth, llava
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import KNOWN, load_captioner
from caption_ros.captioners.alpha_clip import alpha_clip_vision_tower, convert_alpha_clip
from caption_ros.captioners.llava import PAD_COLOUR, QUESTION, SquareView
from caption_ros.errors import CheckpointError, OptionError
from caption_ros.region import region_from_box, regions_from_labels

SHORT = CaptionOptions(max_new_tokens=6)


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    """Return a LLaVA-1.5 folder with Alpha-CLIP's file in it."""
    folder = tmp_path_factory.mktemp('llava')
    alpha_clip_llava(folder)
    return folder


@pytest.fixture(scope='module')
def eyes(parts):
    return load_captioner(parts, device='cpu')


@pytest.fixture
def folder(parts, tmp_path):
    return shutil.copytree(parts, tmp_path / 'llava')


def _edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _inputs(folder, rgb, regions, question):
    """Make the model's input with PIL and transformers alone."""
    height, width = rgb.shape[:2]
    side = max(height, width)
    square = Image.new('RGB', (side, side), PAD_COLOUR)
    corner = (side - width) // 2, (side - height) // 2
    square.paste(Image.fromarray(rgb), corner)
    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(square, return_tensors='pt')['pixel_values']
    rows = []
    for region in regions:
        alpha = np.full(pixels.shape[2:], 0.5 / 0.26, np.float32)
        if region is not None:
            mask = Image.new('L', (side, side), 0)
            mask.paste(Image.fromarray(region.full_mask().astype(np.uint8) * 255), corner)
            mask = np.asarray(mask.convert('F').resize(pixels.shape[:1:-1], Image.BOX)) / 255
            alpha[mask < mask.max() / 2] *= -1
        rows.append(torch.cat([pixels[0], torch.from_numpy(alpha)[None]]))
    words = LlavaProcessor(processor, AutoTokenizer.from_pretrained(folder), patch_size=8,
                           vision_feature_select_strategy='default',
                           num_additional_image_tokens=1)
    text = f'USER: <image>\n{question} ASSISTANT:'
    tokens = words(text=text, images=Image.new('RGB', (9, 9)), return_tensors='pt')['input_ids']
    return {'pixel_values': torch.stack(rows), 'input_ids': tokens.repeat(len(rows), 1),
            'attention_mask': torch.ones(len(rows), tokens.shape[1], dtype=torch.int64)}


def _with_tower(folder):
    """Load a LLaVA and its Alpha-CLIP as a model of four channels, by hand."""
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tower = alpha_clip_vision_tower(next(folder.glob('*.pth'))).vision
    model.model.vision_tower, model.config.vision_config = tower, tower.config
    return model


@pytest.mark.parametrize('num_beams', [1, 3])
@pytest.mark.parametrize('question', ['', 'What is in the bottle?'])
def test_it_says_what_transformers_generate_says(question, num_beams, parts, eyes, rgb, regions):
    wanted = [*regions, None]
    inputs = _inputs(parts, rgb, wanted, question or QUESTION)
    model = _with_tower(parts)
    with torch.inference_mode():
        rows = model.generate(**inputs, max_length=None, max_new_tokens=6, do_sample=False,
                              num_beams=num_beams)[:, inputs['input_ids'].shape[1]:]
    said = eyes.caption(rgb, wanted, CaptionOptions(
        max_new_tokens=6, prompt=question, num_beams=num_beams))
    words = AutoTokenizer.from_pretrained(parts)
    assert [c.text for c in said] == words.batch_decode(rows, skip_special_tokens=True)
    assert len({c.text for c in said}) > 2 and {c.focus for c in said} == {'alpha', 'none'}
    for index, (row, caption) in enumerate(zip(rows.tolist(), said)):
        row = row[:row.index(END) + 1] if END in row else row
        tokens = torch.cat([inputs['input_ids'][index], torch.tensor(row)])[None]
        with torch.inference_mode():
            logits = model(input_ids=tokens, pixel_values=inputs['pixel_values'][[index]]).logits
        chances = logits[0, -len(row) - 1:-1].log_softmax(-1)[torch.arange(len(row)), row]
        assert caption.score == pytest.approx(float(chances.mean().exp()), rel=1e-4)


def test_the_question_changes_the_answer_and_does_not_stay(eyes, rgb):
    ask = CaptionOptions(max_new_tokens=6, prompt='What is in the bottle?')
    before = eyes.caption(rgb, [None], SHORT)
    assert eyes.caption(rgb, [None], ask)[0].text != before[0].text
    assert eyes.caption(rgb, [None], SHORT) == before


def test_many_regions_are_one_batch_of_the_tower(eyes, rgb, regions):
    calls = []
    hook = eyes._model.model.vision_tower.register_forward_hook(
        lambda _module, args, _out: calls.append(tuple(args[0].shape)))
    eyes.caption(rgb, [*regions, *regions], CaptionOptions(max_new_tokens=3, num_beams=3))
    hook.remove()
    assert calls == [(4, 4, 32, 32)]


@pytest.mark.parametrize('size', [(400, 640), (640, 400), (640, 640), (333, 640)])
@pytest.mark.parametrize('side', [32, 336])
def test_mask_and_image_overlap_exactly_in_what_the_model_sees(size, side, parts, eyes):
    height, width = size
    processor = AutoImageProcessor.from_pretrained(parts)
    processor.size = {'shortest_edge': side}
    processor.crop_size = {'height': side, 'width': side}
    view = SquareView(processor, (side, side))
    # At the right edge; 40 px of the padded 640 are whole pixels of the tower, 2 or 21.
    top = (640 - height) // 2
    box = width - 120, 200 - top, width, 360 - top
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[box[1]:box[3], box[0]:] = 255
    pixels = view.pixels(rgb)[0].numpy()
    black = float(view.pixels(np.zeros((9, 9, 3), np.uint8))[0, 0, 0])
    bright = (pixels - black) / (pixels.max() - black) > 0.6  # the padding is 0.48
    model = copy.copy(eyes)
    model._view = view
    inside = model._alpha(region_from_box(box, size)) > 0
    assert inside.sum() == 120 * 160 * side ** 2 // 640 ** 2
    np.testing.assert_array_equal(inside, bright)


def test_padding_is_outside_and_of_the_colour_that_clip_does_not_see(eyes, rgb):
    whole = regions_from_labels(np.ones(rgb.shape[:2], np.uint8))[0]
    alpha = eyes._alpha(whole)
    np.testing.assert_allclose(alpha[:4], -0.5 / 0.26)  # 96 of 128 rows: four of 32 above
    np.testing.assert_allclose(alpha[4:28], 0.5 / 0.26)
    np.testing.assert_allclose(alpha[28:], -0.5 / 0.26)
    assert abs(eyes._view.pixels(rgb)[:, :2]).max() < 0.02
    np.testing.assert_allclose(eyes._alpha(None), 0.5 / 0.26)


def test_a_region_of_one_pixel_stays_and_alpha_has_two_values(eyes, regions):
    for region in regions:
        values = np.unique(eyes._alpha(region))
        np.testing.assert_allclose(values, [-0.5 / 0.26, 0.5 / 0.26])
    assert (eyes._alpha(regions[3]) > 0).sum() == 1
    # Edges at a quarter and three quarters of the tower's pixels: 0.75 stays, 0.25 goes.
    half = region_from_box((1, 0, 65, 128), (128, 128))
    assert np.array_equal((eyes._alpha(half) > 0).any(0), np.arange(32) < 16)
    line = region_from_box((100, 0, 101, 4000), (4000, 4000))
    assert (eyes._alpha(line) > 0).any(1).all()


def test_a_converted_tower_beside_llava_says_the_same(folder, eyes, rgb, regions):
    convert_alpha_clip(folder / 'clip_l14_tiny.pth', folder / 'alpha_clip')
    (folder / 'clip_l14_tiny.pth').unlink()
    same = load_captioner(folder, device='cpu')
    assert same.caption(rgb, regions, SHORT) == eyes.caption(rgb, regions, SHORT)


def test_one_folder_with_four_channels_says_the_same(folder, eyes, rgb, regions, tmp_path):
    _with_tower(folder).save_pretrained(tmp_path / 'whole')
    for path in (*folder.glob('tokenizer*'), *folder.glob('*processor_config.json')):
        shutil.copy(path, tmp_path / 'whole')
    whole = load_captioner(tmp_path / 'whole', device='cpu')
    assert whole.family == 'alpha-clip-llava' and whole.focus_modes == ('alpha',)
    assert whole.caption(rgb, regions, SHORT) == eyes.caption(rgb, regions, SHORT)


_OLD = {'model.language_model.': 'language_model.model.', 'lm_head.': 'language_model.lm_head.',
        'model.vision_tower.': 'vision_tower.vision_model.',
        'model.multi_modal_projector.': 'multi_modal_projector.'}
_NEW = {'model.vision_tower.': 'model.vision_tower.vision_model.'}


@pytest.mark.parametrize('prefixes', [_OLD, _NEW, {}], ids=['2023', '2025', 'transformers 5'])
def test_older_and_newer_layouts_load_alike(prefixes, folder, eyes, rgb, regions):
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    weights = {}
    for name, weight in model.state_dict().items():
        old = next((old for old in prefixes if name.startswith(old)), '')
        weights[prefixes.get(old, '') + name.removeprefix(old)] = weight
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    same = load_captioner(folder, device='cpu')
    assert same.caption(rgb, regions, SHORT) == eyes.caption(rgb, regions, SHORT)


@pytest.mark.parametrize('is_cached', [False, True])
def test_the_known_name_is_found(is_cached, folder, eyes, rgb, tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path / 'models'))
    own = tmp_path / 'models' / 'alpha-clip-llava'
    if is_cached:  # LLaVA in the Hugging Face cache, Alpha-CLIP alone in the model's own folder
        import huggingface_hub
        own.mkdir(parents=True)
        shutil.move(folder / 'clip_l14_tiny.pth', own / 'clip.pth')
        monkeypatch.setattr(huggingface_hub, 'snapshot_download', lambda *_, **__: str(folder))
    else:
        shutil.copytree(folder, own)
    same = load_captioner('alpha-clip-llava', device='cpu')
    assert same.caption(rgb, [None], SHORT) == eyes.caption(rgb, [None], SHORT)


def test_what_is_missing_is_named_with_its_licence(folder, tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path / 'models'))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError, match='llava-hf/llava-1.5-7b-hf.*research use only'):
        load_captioner('alpha-clip-llava')
    (folder / 'clip_l14_tiny.pth').unlink()
    shutil.copytree(folder, tmp_path / 'models' / 'alpha-clip-llava')
    with pytest.raises(CheckpointError, match='without Alpha-CLIP; put its .pth .*research use'):
        load_captioner('alpha-clip-llava')
    assert 'research use only' in KNOWN['alpha-clip-llava'].licence


def test_a_llava_without_alpha_is_an_image_text_model(folder):
    (folder / 'clip_l14_tiny.pth').unlink()
    assert load_captioner(folder, device='cpu').focus_modes == ('crop',)


def test_two_pth_are_refused(folder):
    alpha_clip_pth(folder / 'another.pth')
    with pytest.raises(CheckpointError, match=r'\(another.pth, clip_l14_tiny.pth\), wanted the'):
        load_captioner(folder)


@pytest.mark.parametrize('sizes, text', [
    ({'width': 128}, 'width 128, 3 layers, 32 px in patches of 8 px, wanted width 64'),
    ({'grid': 3}, '24 px in patches of 8 px, wanted width 64, 3 layers, 32 px'),
    ({'patch': 4, 'grid': 8}, 'patches of 4 px, wanted'),
    ({'blocks': 2}, '2 layers'),
])
def test_a_tower_that_does_not_fit_is_refused(sizes, text, folder):
    alpha_clip_pth(folder / 'clip_l14_tiny.pth', **sizes)
    with pytest.raises(CheckpointError, match=f'clip_l14_tiny.pth holds .*{text}'):
        load_captioner(folder)


def test_a_tower_that_is_not_whole_is_refused(folder):
    weights = torch.load(folder / 'clip_l14_tiny.pth')
    del weights['ln_pre.bias']
    torch.save(weights, folder / 'clip_l14_tiny.pth')
    with pytest.raises(CheckpointError, match='clip_l14_tiny.pth lacks ln_pre.bias'):
        load_captioner(folder)


def test_a_missing_weight_of_the_language_model_is_named(folder):
    weights = load_file(folder / 'model.safetensors')
    name = next(name for name in weights if name.endswith('layers.1.mlp.up_proj.weight'))
    del weights[name]
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='lacks weights.*layers.1.mlp.up_proj.weight'):
        load_captioner(folder)


def test_a_vision_tower_of_another_kind_is_refused(folder):
    config = json.loads((folder / 'config.json').read_text())
    config['vision_config'] = {'model_type': 'siglip_vision_model', 'num_channels': 4}
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="'siglip_vision_model', wanted 'clip_vision"):
        load_captioner(folder)


def test_a_tokenizer_without_the_image_token_is_refused(folder):
    _edit_json(folder / 'config.json', image_token_index=75)
    with pytest.raises(CheckpointError, match='does not know the image token 75'):
        load_captioner(folder)


def test_a_processor_of_another_size_is_refused(folder):
    _edit_json(folder / 'preprocessor_config.json', size={'shortest_edge': 64},
               crop_size={'height': 64, 'width': 64})
    with pytest.raises(CheckpointError, match='preprocessor_config.json and config.json'):
        load_captioner(folder).caption(np.zeros((9, 9, 3), np.uint8), [None], SHORT)


def test_a_question_that_cannot_be_asked_is_refused(eyes, rgb):
    with pytest.raises(OptionError, match='holds the token that stands for the image'):
        eyes.caption(rgb, [None], CaptionOptions(prompt='What is <image>?'))
    with pytest.raises(OptionError, match='prompt is too long: .* tokens, model .* takes 238'):
        eyes.caption(rgb, [None], CaptionOptions(prompt='what ' * 50))
    assert eyes.caption(rgb, [None], CaptionOptions(prompt='what ' * 40))[0].text


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_precision_generates(dtype, parts, rgb, regions):
    half = load_captioner(parts, device='cpu', dtype=dtype)
    assert half.dtype == dtype
    assert {p.dtype for p in half._model.parameters()} == {getattr(torch, dtype)}
    assert all(c.text and 0 < c.score <= 1 for c in half.caption(rgb, regions, SHORT))


def test_a_plain_llava_of_the_test_has_the_sizes_of_the_tower(tmp_path):
    llava(tmp_path, channels=4)  # what the other tests rely on
    assert load_captioner(tmp_path, device='cpu').focus_modes == ('alpha',)
