# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from tiny_checkpoints import END, START
from transformers import BlipForConditionalGeneration

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners.blip import restore_cross_attention_mask
from caption_ros.errors import OptionError
from caption_ros.region import patch_mask


@pytest.fixture
def model(checkpoint):
    return BlipForConditionalGeneration.from_pretrained(checkpoint('blip')).eval()


def _logits(model, hidden, mask=None):
    with torch.inference_mode():
        return model.text_decoder(input_ids=torch.tensor([[START, 9, 12]]),
                                  encoder_hidden_states=hidden,
                                  encoder_attention_mask=mask).logits


def test_the_repaired_mask_equals_taking_the_tokens_away(model):
    hidden = torch.randn(1, 17, 16, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([2, 3, 7])
    mask = torch.zeros(1, 17, dtype=torch.int64)
    mask[0, kept] = 1
    assert restore_cross_attention_mask(model) == 4  # self and cross, in two layers
    torch.testing.assert_close(_logits(model, hidden, mask), _logits(model, hidden[:, kept]))
    assert (_logits(model, hidden, mask) - _logits(model, hidden)).abs().max() > 0.1
    full = torch.ones_like(mask)
    torch.testing.assert_close(_logits(model, hidden, full), _logits(model, hidden))


def test_attention_looks_at_the_regions_patches_only(captioner, model, rgb, regions):
    said = captioner('blip').caption(rgb, regions,
                                     CaptionOptions(focus='attention', max_new_tokens=6))
    with torch.inference_mode():
        hidden = model.vision_model(captioner('blip')._view.pixels(rgb)[None])[0]
        for region, caption in zip(regions, said):
            kept = 1 + np.flatnonzero(patch_mask(region, (4, 4)))
            ids = model.text_decoder.generate(
                input_ids=torch.tensor([[START]]), encoder_hidden_states=hidden[:, kept],
                attention_mask=torch.ones(1, 1, dtype=torch.int64), max_length=None,
                eos_token_id=END, pad_token_id=0, max_new_tokens=6, do_sample=False)[0]
            assert caption.text == captioner('blip')._tokenizer.decode(
                ids[1:], skip_special_tokens=True)


@pytest.mark.parametrize('num_beams', [1, 3])
def test_a_prompt_is_the_beginning_of_the_caption(captioner, model, rgb, num_beams):
    options = CaptionOptions(prompt='a photo of', max_new_tokens=5, num_beams=num_beams)
    caption, = captioner('blip').caption(rgb, [None], options)
    with torch.inference_mode():
        # As BLIP's processor writes it: [CLS] a photo of [SEP].
        ids = model.generate(captioner('blip')._view.pixels(rgb)[None],
                             input_ids=torch.tensor([[4, 6, 7, 8, END]]), max_length=None,
                             max_new_tokens=5, num_beams=num_beams, do_sample=False)[0]
    assert caption.text == captioner('blip')._tokenizer.decode(ids[1:], skip_special_tokens=True)
    assert caption.text.startswith('a photo of w')


def test_a_prompt_does_not_stay(captioner, rgb):
    plain = CaptionOptions(max_new_tokens=5)
    before = captioner('blip').caption(rgb, [None], plain)
    captioner('blip').caption(rgb, [None], CaptionOptions(prompt='a photo of'))
    assert captioner('blip').caption(rgb, [None], plain) == before


def test_a_prompt_that_leaves_no_room_is_refused(captioner, rgb):
    with pytest.raises(OptionError, match='40 tokens is too long'):
        captioner('blip').caption(rgb, [None], CaptionOptions(prompt='a ' * 40))
