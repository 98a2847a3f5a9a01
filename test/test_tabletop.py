# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The shipped checkpoint keeps its promises on scenes that no training has seen."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

from caption_ros import CaptionOptions, caption_frame, load_captioner
from caption_ros.scenes import scene_frame
from caption_ros.training.evaluate import (
    evaluate_tabletop,
    names_absent_object,
    names_other_region,
)

WEIGHTS = Path(__file__).parents[1] / 'caption_ros/weights/tabletop'


@pytest.fixture(scope='module')
def captioner():
    return load_captioner('tabletop')


@pytest.mark.timeout(1800)
def test_scores_on_1000_evaluation_scenes(captioner):
    scores = evaluate_tabletop(captioner, scenes=1000)
    assert scores.phrase_exact >= 0.99, scores.worst[:5]
    assert scores.scene_exact >= 0.93, scores.worst[:5]
    assert scores.absent_object <= 0.005, scores.worst[:5]
    assert scores.bleu4 > 0.98 and scores.cider > 9.8


def test_the_phrase_follows_the_mask(captioner):
    moved = right = 0
    for seed in range(2000, 2030):
        frame = scene_frame(seed)
        if len(frame.region_captions) < 2:
            continue
        for label, phrase in frame.region_captions.items():
            only = (frame.labels == label).astype('uint8') * 255
            (caption,) = caption_frame(frame.rgb, only, captioner)
            right += caption.text == phrase
            moved += 1
    assert right / moved >= 0.97


def test_the_checkpoint_is_small_safe_and_standard():
    files = {path.name for path in WEIGHTS.iterdir()}
    assert {'config.json', 'model.safetensors', 'tokenizer.json',
            'preprocessor_config.json'} <= files
    assert not {name for name in files if name.endswith(('.bin', '.pt', '.pth', '.pkl'))}
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 12_000_000
    config = json.loads((WEIGHTS / 'config.json').read_text())
    assert config['model_type'] == 'vision-encoder-decoder'
    assert config['encoder']['num_channels'] == 4


def test_transformers_own_classes_load_it_and_say_the_same(captioner):
    model, info = VisionEncoderDecoderModel.from_pretrained(
        WEIGHTS, output_loading_info=True, local_files_only=True, dtype=torch.float32)
    assert not info['missing_keys'] and not info['unexpected_keys']
    words = AutoTokenizer.from_pretrained(WEIGHTS, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(WEIGHTS, local_files_only=True)
    for seed in range(2000, 2005):
        rgb = scene_frame(seed).rgb
        pixels = processor(rgb, return_tensors='pt')['pixel_values']
        alpha = torch.full_like(pixels[:, :1], (1 - 0.5) / 0.26)
        with torch.inference_mode():
            ids = model.eval().generate(torch.cat([pixels, alpha], 1), num_beams=1)[0]
        caption, = caption_frame(rgb, None, captioner)
        assert caption.text == words.decode(ids, skip_special_tokens=True)


def test_beams_and_both_views_work(captioner):
    frame = scene_frame(11)
    options = CaptionOptions(describe='both', num_beams=3)
    captions = caption_frame(frame.rgb, frame.labels, captioner, options)
    assert captions[0].region is None and captions[0].focus == 'none'
    assert [caption.region.label for caption in captions[1:]] == sorted(frame.region_captions)
    assert all(0 < caption.score <= 1 for caption in captions)


def test_an_absent_object_is_noticed():
    frame = scene_frame(5)
    shape = frame.layout.objects[0].shape
    absent = next(name for name in ('ball', 'box', 'mug') if name not in frame.scene_caption)
    assert not names_absent_object(f'a {shape}', frame)
    assert names_absent_object(f'a {shape} and a large red {absent}', frame)


def test_a_mixed_up_caption_is_noticed():
    frame = next(frame for frame in map(scene_frame, range(100)) if len(
        {(item.colour, item.shape) for item in frame.layout.objects}) > 2)
    items = frame.layout.objects
    first, other = next((a, b) for a in items for b in items
                        if a.colour != b.colour and a.shape != b.shape)
    label = 1 + items.index(first)
    assert not names_other_region(frame.region_captions[label], label, frame)
    assert names_other_region(f'a {other.colour} {first.shape}', label, frame)
    assert names_other_region(f'a {first.colour} {other.shape}', label, frame)
    assert names_other_region(frame.scene_caption, label, frame)
