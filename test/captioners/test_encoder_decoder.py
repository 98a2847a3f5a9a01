# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tiny_checkpoints import PAD, START
from transformers import VisionEncoderDecoderModel

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.view import View
from caption_ros.errors import CaptionError, CheckpointError, OptionError
from caption_ros.region import (
    crop_box,
    patch_mask,
    region_from_box,
    regions_from_labels,
)

SHORT = CaptionOptions(max_new_tokens=6)


def _words(folder, hidden, model):
    ids = model.decoder.generate(
        input_ids=torch.tensor([[START]]), attention_mask=torch.ones(1, 1, dtype=torch.int64),
        encoder_hidden_states=hidden, generation_config=model.generation_config, max_length=None,
        num_beams=1, max_new_tokens=6)[0]
    return ''.join(f'w{token - 4}' for token in ids.tolist() if token >= 4)


def test_attention_equals_taking_the_other_tokens_away(captioner, checkpoint, rgb, regions):
    model = VisionEncoderDecoderModel.from_pretrained(checkpoint('vit-gpt2')).eval()
    view = captioner('vit-gpt2')._view
    said = captioner('vit-gpt2').caption(
        rgb, regions, CaptionOptions(focus='attention', max_new_tokens=6))
    with torch.inference_mode():
        hidden = model.enc_to_dec_proj(model.encoder(view.pixels(rgb)[None])[0])
        for region, caption in zip(regions, said):
            kept = 1 + np.flatnonzero(patch_mask(region, (4, 4)))  # the class token is out
            assert caption.text == _words(checkpoint('vit-gpt2'), hidden[:, kept], model)


def test_a_crop_is_the_caption_of_the_cut_out_picture(captioner, rgb, regions):
    x0, y0, x1, y1 = crop_box(regions[1])
    cut = captioner('vit-gpt2').caption(rgb[y0:y1, x0:x1], [None], SHORT)[0]
    assert captioner('vit-gpt2').caption(rgb, [regions[1]], SHORT)[0].text == cut.text


def test_alpha_is_the_mask_through_the_resize_of_the_image(captioner, rgb):
    labels = np.zeros((96, 128), np.uint8)
    labels[:48] = 1
    pixels = captioner('alpha-vit-gpt2')._with_alpha(rgb, [None, *regions_from_labels(labels)])
    assert pixels.shape == (2, 4, 128, 160)
    inside, outside = 0.5 / 0.26, -0.5 / 0.26
    np.testing.assert_allclose(pixels[0, 3], inside, rtol=1e-5)
    np.testing.assert_allclose(pixels[1, 3, :64], inside, rtol=1e-5)
    np.testing.assert_allclose(pixels[1, 3, 64:], outside, rtol=1e-5)
    assert torch.equal(pixels[0, :3], pixels[1, :3])


def test_the_picture_is_prepared_once_for_all_regions(captioner, rgb, regions, monkeypatch):
    calls, pixels = [], View.pixels
    monkeypatch.setattr(View, 'pixels', lambda self, image: calls.append(1) or pixels(self, image))
    captioner('alpha-vit-gpt2').caption(rgb, [None, *regions], SHORT)
    assert len(calls) == 1


def test_a_prompt_is_refused_by_name(captioner, rgb):
    with pytest.raises(OptionError, match="'a photo'.*takes no text"):
        captioner('vit-gpt2').caption(rgb, [None], CaptionOptions(prompt='a photo'))


def test_a_centre_crop_moves_regions_with_the_picture(captioner):
    view = captioner('clip-gpt2')._view
    assert view.seen((96, 128)) == (16, 0, 112, 96)
    assert view.seen((40, 40)) == (0, 0, 40, 40)
    moved = view.region(region_from_box((10, 20, 30, 40), (96, 128)))
    assert moved.image_size == (96, 96) and moved.area_px == 14 * 20
    assert np.flatnonzero(moved.full_mask().any(axis=0)).tolist() == list(range(14))
    outside = view.region(region_from_box((0, 50, 8, 60), (96, 128)))
    assert outside.area_px == 1 and outside.full_mask()[55, 0]


@pytest.mark.parametrize('beams', [2, 4])
def test_beams_are_those_of_transformers(captioner, checkpoint, rgb, beams):
    model = VisionEncoderDecoderModel.from_pretrained(checkpoint('vit-gpt2')).eval()
    with torch.inference_mode():
        ids = model.generate(captioner('vit-gpt2')._view.pixels(rgb)[None], num_beams=beams,
                             max_length=None, max_new_tokens=6)[0]
    options = CaptionOptions(num_beams=beams, max_new_tokens=6)
    text = captioner('vit-gpt2').caption(rgb, [None], options)[0].text
    assert text == ''.join(f'w{token - 4}' for token in ids.tolist() if token >= 4)


def test_pad_and_end_may_be_the_same_token(checkpoint, captioner, rgb, regions, tmp_path):
    # As in nlpconnect's checkpoint; scores must stop at the first end.
    folder = shutil.copytree(checkpoint('vit-gpt2'), tmp_path / 'model')
    for name in ('config.json', 'generation_config.json'):
        text = json.loads((folder / name).read_text())
        text['pad_token_id'] = text['eos_token_id']
        (folder / name).write_text(json.dumps(text))
    assert PAD != 2
    same = load_captioner(folder, device='cpu').caption(rgb, regions, CaptionOptions())
    kept = captioner('vit-gpt2').caption(rgb, regions, CaptionOptions())
    assert [c.text for c in same] == [c.text for c in kept]
    assert [c.score for c in same] == pytest.approx([c.score for c in kept], rel=1e-4)


def test_an_encoder_of_five_channels_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint('vit-gpt2'), tmp_path / 'model')
    config = json.loads((folder / 'config.json').read_text())
    config['encoder']['num_channels'] = 5
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='5 channels, wanted 3'):
        load_captioner(folder)


def test_a_small_model_keeps_to_one_thread_and_leaves_the_setting(checkpoint, rgb, monkeypatch):
    captioner = load_captioner(checkpoint('vit-gpt2'), device='cpu')
    seen = []
    encode = captioner._encode
    monkeypatch.setattr(captioner, '_traced',
                        lambda pixels: seen.append(torch.get_num_threads()) or encode(pixels))
    torch.set_num_threads(2)
    try:
        captioner.caption(rgb, [None], CaptionOptions())
        assert seen == [1] and torch.get_num_threads() == 2
        monkeypatch.setattr(captioner, '_is_small', False)
        captioner.caption(rgb, [None], CaptionOptions())
        assert seen == [1, 2]
    finally:
        torch.set_num_threads(1)


def test_the_cause_of_a_failure_is_told_and_not_where_in_the_code(checkpoint, rgb, tmp_path):
    shutil.copytree(checkpoint('vit-gpt2'), tmp_path / 'model')
    path = tmp_path / 'model/generation_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'decoder_start_token_id': 4000}))
    model = load_captioner(str(tmp_path / 'model'), device='cpu')
    with pytest.raises(CaptionError, match='failed on cpu.*: .*index') as failure:
        model.caption(rgb, [None], SHORT)
    assert 'TorchScript' not in str(failure.value)


def test_closing_waits_for_a_caption_in_work(checkpoint, rgb):
    for _ in range(5):
        model = load_captioner(str(checkpoint('vit-gpt2')), device='cpu')
        model.caption(rgb, [None], SHORT)
        with ThreadPoolExecutor(1) as pool:
            def talk(model=model):
                while True:
                    model.caption(rgb, [None], SHORT)
            talking = pool.submit(talk)
            time.sleep(0.05)
            model.close()
            assert 'has been closed' in str(talking.exception(10))
