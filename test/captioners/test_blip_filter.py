# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
import tiny_checkpoints
import torch
from transformers import BlipForImageTextRetrieval, BlipImageProcessor, BlipTextModel

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.blip_filter import BlipFilter
from caption_ros.captioners.view import cropped
from caption_ros.errors import CaptionError, CheckpointError
from caption_ros.pipeline import caption_regions

TEXTS = ['w10 w11', 'w12', 'w13 w14 w15 w16', 'w11']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('itm')
    tiny_checkpoints.blip_itm(folder)
    return folder


@pytest.fixture(scope='module')
def caption_filter(folder):
    return BlipFilter.load(folder, name='itm', device='cpu', dtype='float32')


def test_matches_are_those_of_transformers(folder, caption_filter, rgb, regions):
    targets = [None, *regions[:3]]
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    processor = BlipImageProcessor.from_pretrained(folder)
    expected = []
    for text, region in zip(TEXTS, targets):
        image = rgb if region is None else cropped(rgb, region)
        words = caption_filter._tokenizer(text, return_tensors='pt')
        with torch.inference_mode():
            out = model(input_ids=words['input_ids'], attention_mask=words['attention_mask'],
                        **processor(image, return_tensors='pt'))
        expected.append(float(out.itm_score.softmax(-1)[0, 1]))
    got = caption_filter.match(rgb, targets, TEXTS)
    assert got == pytest.approx(expected, abs=1e-5)
    assert max(got) - min(got) > 0.05, 'random weights that tell nothing apart test nothing'


def test_a_region_is_encoded_once_for_all_its_texts(caption_filter, rgb, regions, monkeypatch):
    batches = []
    encode = caption_filter._model.vision_model.forward
    monkeypatch.setattr(
        caption_filter._model.vision_model, 'forward',
        lambda pixel_values: batches.append(len(pixel_values)) or encode(pixel_values))
    caption_filter.match(rgb, [regions[0], regions[0], regions[1], regions[1]], TEXTS)
    assert batches == [2]


def test_candidates_of_a_real_model_are_sampled_and_the_best_is_kept(checkpoint, folder, rgb,
                                                                     regions):
    captioner = load_captioner(checkpoint('vit-gpt2'), filter_model=folder, device='cpu')
    options = CaptionOptions(max_new_tokens=6, candidates=8, filter_threshold=0.0)
    captions = caption_regions(rgb, regions, captioner, options)
    again = caption_regions(rgb, regions, captioner, options)
    assert [c.text for c in captions] == [c.text for c in again]
    single = caption_regions(rgb, regions, captioner,
                             CaptionOptions(max_new_tokens=6, filter_threshold=0.0))
    assert sum(c.match for c in captions) > sum(c.match for c in single)
    assert captioner.filter_name == str(folder)


def test_texts_that_do_not_fit_into_memory_at_once_are_halved(checkpoint, folder, rgb, regions,
                                                              monkeypatch, caplog):
    captioner = load_captioner(checkpoint('vit-gpt2'), filter_model=folder, device='cpu')
    tight = captioner._filter
    targets = [None, *regions[:3]]
    whole = tight.match(rgb, targets, TEXTS)
    match, sizes = tight._match, []

    def limited(hidden, texts):
        sizes.append(len(texts))
        if len(texts) > 2:
            raise torch.cuda.OutOfMemoryError('HIP out of memory')
        return match(hidden, texts)

    monkeypatch.setattr(tight, '_match', limited)
    assert captioner.problems() == []
    assert tight.match(rgb, targets, TEXTS) == pytest.approx(whole, abs=1e-5)
    assert sizes == [4, 2, 2]
    assert captioner.problems() == [
        'memory allows the filter 2 caption(s) in a batch: lower candidates or max_regions, or '
        'choose a smaller model or dtype']
    assert f'filter {str(folder)!r} ran out of memory on cpu with 4 captions' in caplog.text
    monkeypatch.setattr(tight, '_match', lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(CaptionError, match='filter .* ran out of memory on cpu with one caption'):
        tight.match(rgb, targets, TEXTS)


def test_a_captioner_is_no_filter(checkpoint):
    with pytest.raises(CheckpointError, match='BlipForImageTextRetrieval'):
        load_captioner(checkpoint('vit-gpt2'), filter_model=checkpoint('blip'))


def test_a_filter_is_no_captioner():
    with pytest.raises(CheckpointError, match='is a filter'):
        load_captioner('blip-itm')


def test_a_filter_that_is_not_here_says_how_to_get_it(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError, match='Salesforce/blip-itm-base-coco'):
        load_captioner(checkpoint('vit-gpt2'), filter_model='blip-itm')


def test_the_text_encoder_sees_the_image(caption_filter, rgb, regions):
    assert isinstance(caption_filter._model.text_encoder, BlipTextModel)
    one, other = caption_filter.match(rgb, [regions[0], regions[1]], ['w10', 'w10'])
    assert one != pytest.approx(other, abs=1e-4)


def test_closing_waits_for_a_match_in_work(folder, rgb, monkeypatch):
    closing = BlipFilter.load(folder, name='itm', device='cpu', dtype='float32')
    match, started, go_on = closing._match, threading.Event(), threading.Event()

    def slow(hidden, texts):
        started.set()
        go_on.wait(10)
        return match(hidden, texts)
    monkeypatch.setattr(closing, '_match', slow)
    with ThreadPoolExecutor(2) as threads:
        matching = threads.submit(closing.match, rgb, [None], ['w10'])
        assert started.wait(10)
        closed = threads.submit(closing.close)
        try:
            assert not wait([closed], 0.2).done
        finally:
            go_on.set()
        assert len(matching.result(10)) == 1
        closed.result(10)
    with pytest.raises(CaptionError, match='has been closed'):
        closing.match(rgb, [None], ['w10'])
