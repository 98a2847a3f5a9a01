# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The encoder's input is the image processor's, made with less work."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    BlipImageProcessor,
    CLIPImageProcessor,
    ViTImageProcessor,
)

from caption_ros.captioners.view import View

SIZE = (30, 40)


def _view(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    return View(AutoImageProcessor.from_pretrained(tmp_path), SIZE)


def _both(view, height, width):
    rgb = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    rgb.flags.writeable = False  # as the bytes of a message are
    wanted = view.processor(images=rgb, return_tensors='pt', input_data_format='channels_last')
    return view.pixels(rgb), wanted['pixel_values'][0]


@pytest.mark.parametrize('kind', [ViTImageProcessor, BlipImageProcessor])
@pytest.mark.parametrize('resample', [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize('size', [(480, 640), (17, 900), (3, 2)])
def test_pixels_are_the_processors_to_the_bit(tmp_path, kind, resample, size):
    view = _view(tmp_path, kind(size={'height': 30, 'width': 40}, resample=resample,
                                image_mean=[0.1, 0.4, 0.6], image_std=[0.2, 0.3, 0.5]))
    assert view._plain is not None
    found, wanted = _both(view, *size)
    assert found.shape == (3, *SIZE)
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-6)


@pytest.mark.parametrize('resample', [2, 3])
def test_large_images_differ_by_one_grey_level_at_most_and_seldom(tmp_path, resample):
    view = _view(tmp_path, ViTImageProcessor(size={'height': 30, 'width': 40}, resample=resample))
    found, wanted = _both(view, 1080, 1920)
    grey_levels = (found - wanted).abs().numpy() * 0.5 * 255
    assert grey_levels.max() < 1.01 and (grey_levels > 0.01).mean() < 0.01


@pytest.mark.parametrize('make', [
    lambda: CLIPImageProcessor(size={'shortest_edge': 40}, crop_size={'height': 30, 'width': 40}),
    lambda: ViTImageProcessor(size={'height': 30, 'width': 40}, do_normalize=False),
], ids=['centre crop', 'no normalising'])
def test_a_processor_that_does_more_or_less_is_asked_itself(tmp_path, make):
    view = _view(tmp_path, make())
    assert view._plain is None
    found, wanted = _both(view, 48, 64)
    assert np.array_equal(found.numpy(), wanted.numpy())


@pytest.mark.parametrize('size', [(48, 64), (1080, 1920)])
@pytest.mark.parametrize('turned', [lambda rgb: rgb[..., ::-1], lambda rgb: rgb[::-1, ::-1]],
                         ids=['BGR', 'upside down'])
def test_an_image_whose_bytes_run_backwards_is_an_image(tmp_path, turned, size):
    view = _view(tmp_path, ViTImageProcessor(size={'height': 30, 'width': 40}))
    rgb = turned(np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8))
    assert torch.equal(view.pixels(rgb), view.pixels(rgb.copy()))
