# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What every captioner promises, on a tiny checkpoint of each layout."""

import json
import threading

import numpy as np
import pytest
import torch
from tiny_alpha_clip import MAKERS as ALPHA_CLIP_MAKERS
from tiny_checkpoints import END, MAKERS
from tiny_vision_language import MAKERS as VISION_LANGUAGE_MAKERS
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BlipForConditionalGeneration,
    VisionEncoderDecoderModel,
)

from caption_ros.captioner import CaptionOptions, check_focus
from caption_ros.captioners import FAMILIES, KNOWN, load_captioner
from caption_ros.errors import CaptionError, OptionError
from caption_ros.pipeline import caption_regions
from caption_ros.region import normalise_alpha, region_from_box

SHORT = CaptionOptions(max_new_tokens=6)
KINDS = [*MAKERS, *ALPHA_CLIP_MAKERS, *VISION_LANGUAGE_MAKERS]
MODES = [(kind, focus) for kind in MAKERS
         for focus in (('alpha',) if kind.startswith('alpha') else ('crop', 'attention'))]
MODES += [(kind, 'alpha') for kind in ALPHA_CLIP_MAKERS]
MODES += [(kind, 'crop') for kind in VISION_LANGUAGE_MAKERS]


def _options(focus='auto', **options):
    return CaptionOptions(focus=focus, **{'max_new_tokens': 6, **options})


def _same(captions, others):
    assert [c.text for c in captions] == [c.text for c in others]
    np.testing.assert_allclose([c.score for c in captions], [c.score for c in others], rtol=1e-3)


def test_every_family_has_a_tiny_checkpoint(checkpoint):
    types = {json.loads((checkpoint(kind) / 'config.json').read_text())['model_type']
             for kind in KINDS}
    assert types >= set(FAMILIES)
    assert {card.target for card in KNOWN.values()} <= set(FAMILIES.values())


@pytest.mark.parametrize('kind, focus', MODES)
def test_one_caption_for_each_region_in_order(kind, focus, captioner, rgb, regions):
    wanted = [*regions, None]
    captions = captioner(kind).caption(rgb, wanted, _options(focus))
    assert [c.region for c in captions] == wanted
    assert [c.focus for c in captions] == [focus] * 4 + ['none']
    assert all(c.text.strip() and 0 < c.score <= 1 for c in captions)
    assert len({c.text for c in captions}) > 1  # it looks at the region
    _same(captioner(kind).caption(rgb, wanted[::-1], _options(focus)), captions[::-1])


@pytest.mark.parametrize('num_beams', [1, 3])
@pytest.mark.parametrize('kind, focus', MODES)
def test_a_batch_equals_one_by_one(kind, focus, num_beams, captioner, rgb, regions):
    options = _options(focus, num_beams=num_beams)
    wanted = [None, *regions]
    single = [captioner(kind).caption(rgb, [region], options)[0] for region in wanted]
    _same(captioner(kind).caption(rgb, wanted, options), single)


@pytest.mark.parametrize('num_beams', [1, 3])
@pytest.mark.parametrize('kind, focus', MODES)
def test_frames_of_one_batch_equal_one_by_one(kind, focus, num_beams, captioner, rgb, regions):
    options = _options(focus, num_beams=num_beams)
    half = np.ascontiguousarray(rgb[:48, :, ::-1])
    frames = [(half, [None]), (rgb, [regions[1], None, regions[1]]), (half, []),
              (half, [region_from_box((4, 4, 60, 40), (48, 128))])]
    single = [captioner(kind).caption(*frame, options) for frame in frames]
    together = captioner(kind).caption_frames(frames, options)
    assert [len(captions) for captions in together] == [1, 3, 0, 1]
    for captions, wanted in zip(together, single):
        _same(captions, wanted)
        assert [c.region for c in captions] == [c.region for c in wanted]


@pytest.mark.parametrize('kind, focus', MODES)
def test_what_is_prepared_on_another_thread_changes_nothing(kind, focus, captioner, rgb, regions):
    model, wanted = captioner(kind), [None, *regions]
    plain = model.caption(rgb, wanted, _options(focus))
    if hasattr(model, 'prepare'):
        thread = threading.Thread(target=model.prepare, args=(rgb, wanted, _options(focus)))
        thread.start()
        thread.join()
    prepared = model.caption(rgb, wanted, _options(focus))
    assert [(c.text, c.score) for c in prepared] == [(c.text, c.score) for c in plain]
    other = 255 - rgb  # of another image nothing has been prepared
    fresh = model.caption(other, wanted, _options(focus))
    assert [c.score for c in fresh] != [c.score for c in plain]


@pytest.mark.parametrize('kind, focus', MODES)
def test_one_pixel_is_a_region(kind, focus, captioner, rgb, regions):
    caption, = captioner(kind).caption(rgb, [regions[3]], _options(focus))
    assert regions[3].area_px == 1 and caption.text and np.isfinite(caption.score)


@pytest.mark.parametrize('kind', KINDS)
def test_no_region_is_no_caption(kind, captioner, rgb):
    assert captioner(kind).caption(rgb, [], SHORT) == []
    assert caption_regions(rgb, [], captioner(kind)) == []


@pytest.mark.parametrize('shape', [(1, 1), (3, 200), (200, 3)])
@pytest.mark.parametrize('kind', KINDS)
def test_a_picture_of_any_shape_is_captioned(kind, shape, captioner):
    thin = np.full((*shape, 3), 90, np.uint8)
    assert captioner(kind).caption(thin, [None], SHORT)[0].text


def _by_hand(folder, rgb):
    """Caption the whole scene with transformers alone; return token ids and score."""
    kind = json.loads((folder / 'config.json').read_text())['model_type']
    is_blip = kind == 'blip'
    model = (BlipForConditionalGeneration if is_blip else VisionEncoderDecoderModel)
    model = model.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = AutoImageProcessor.from_pretrained(folder)(rgb, return_tensors='pt')['pixel_values']
    if not is_blip and model.config.encoder.num_channels == 4:
        ones = torch.from_numpy(normalise_alpha(np.ones((1, 1, *pixels.shape[2:]), np.float32)))
        pixels = torch.cat([pixels, ones], 1)
    with torch.inference_mode():
        ids = model.generate(pixel_values=pixels, max_new_tokens=6, num_beams=1,
                             do_sample=False)[0]
        said = ids[1:].tolist()
        if END in said:
            said = said[:said.index(END) + 1]
        tokens = torch.tensor([[int(ids[0]), *said]])
        if is_blip:
            hidden = model.vision_model(pixel_values=pixels)[0]
            logits = model.text_decoder(input_ids=tokens, encoder_hidden_states=hidden).logits
        else:
            logits = model(pixel_values=pixels, decoder_input_ids=tokens).logits
        chances = logits[0, :-1].log_softmax(-1)[torch.arange(len(said)), said]
    return [token for token in said if token != END], float(chances.mean().exp())


@pytest.mark.parametrize('kind', MAKERS)
def test_the_whole_scene_is_what_transformers_says(kind, captioner, checkpoint, rgb):
    tokens, score = _by_hand(checkpoint(kind), rgb)
    caption, = captioner(kind).caption(rgb, [None], SHORT)
    words = AutoTokenizer.from_pretrained(checkpoint(kind))
    assert tokens and caption.text == words.decode(tokens)
    assert caption.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize('kind', MAKERS)
def test_mask_and_image_overlap_exactly_in_what_the_model_sees(kind, captioner):
    model = captioner(kind)
    region = region_from_box((420, 100, 640, 250), (400, 640))  # falls on whole pixels
    rgb = np.where(region.full_mask()[..., None], np.uint8(255), np.uint8(0)).repeat(3, 2)
    pixels = model._view.pixels(rgb)[0].numpy()
    lit = pixels > (pixels.min() + pixels.max()) / 2
    if 'alpha' in kind:
        np.testing.assert_array_equal(model._alpha(region) > 0, lit)
    else:
        rows, cols = model._grid
        patches = lit.reshape(rows, len(lit) // rows, cols, -1).mean((1, 3)).ravel()
        seen = model._token_mask([region])[0, model._class_tokens:]
        np.testing.assert_array_equal(seen, patches >= 0.25)
        assert 0 < seen.sum() < seen.size


@pytest.mark.parametrize('kind', [kind for kind in MAKERS if 'alpha' not in kind])
def test_attention_encodes_a_frame_once_and_crop_in_one_batch(kind, captioner, rgb, regions,
                                                              monkeypatch):
    model = captioner(kind)
    monkeypatch.setattr(model, '_traced', None)  # it calls no hooks
    batches = []
    inner = next(part for name, part in model._model.named_children()
                 if name in ('encoder', 'vision_model'))
    hook = inner.register_forward_hook(
        lambda *call: batches.append(call[-1][0].shape[0]))
    eight = [*regions, *regions]
    for focus in ('attention', 'crop'):
        captions = model.caption(rgb, [None, *eight], _options(focus))
        assert len(captions) == 9
    hook.remove()
    assert batches == [1, 5]  # regions that come twice are looked at once


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('kind', KINDS)
def test_half_precision_generates(kind, dtype, checkpoint, rgb, regions):
    model = load_captioner(checkpoint(kind), device='cpu', dtype=dtype)
    assert model.dtype == dtype
    for num_beams in (1, 2):
        captions = model.caption(rgb, [None, *regions], _options(num_beams=num_beams))
        assert len(captions) == 5 and all(0 <= c.score <= 1 for c in captions)


@pytest.mark.parametrize('kind', KINDS)
def test_a_focus_that_the_model_lacks_is_refused_by_name(kind, captioner, rgb, regions):
    lacking = {'alpha', 'attention', 'crop'} - set(captioner(kind).focus_modes)
    for focus in lacking:
        with pytest.raises(OptionError, match=captioner(kind).focus_modes[0]):
            captioner(kind).caption(rgb, regions, _options(focus))
    assert check_focus(captioner(kind), 'auto') == ('alpha' if 'alpha' in kind else 'crop')


def test_the_length_is_the_callers(captioner, rgb):
    short = captioner('vit-gpt2').caption(rgb, [None], CaptionOptions(max_new_tokens=1))
    long = captioner('vit-gpt2').caption(rgb, [None], CaptionOptions(max_new_tokens=500))
    assert short[0].text.count('w') == 1
    # The checkpoint itself says 7 and its decoder can hold 32.
    assert long[0].text.startswith(short[0].text) and 1 < long[0].text.count('w') <= 31


@pytest.mark.parametrize('kind', KINDS)
def test_nothing_is_printed(kind, captioner, rgb, regions, capfd, recwarn):
    made = captioner(kind)
    capfd.readouterr()  # writing the checkpoint shows a bar
    made.caption(rgb, [None, *regions], _options(num_beams=2))
    assert capfd.readouterr() == ('', '')
    assert not [str(w.message) for w in recwarn]


def test_a_closed_captioner_says_so(checkpoint, rgb):
    captioner = load_captioner(checkpoint('vit-gpt2'), device='cpu', dtype='bfloat16')
    assert captioner.dtype == 'bfloat16' and captioner.caption(rgb, [None], SHORT)[0].text
    captioner.close()
    with pytest.raises(CaptionError, match='closed'):
        captioner.caption(rgb, [None], SHORT)
