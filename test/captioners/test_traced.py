# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An encoder as one call of torch says what its layers say, or is left as it is."""

import torch

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner, loading
from caption_ros.captioners.traced import _spare, traced
from caption_ros.region import regions_from_labels
from caption_ros.scenes import scene_frame

IMAGES = torch.arange(4 * 3 * 8 * 8, dtype=torch.float32).view(4, 3, 8, 8) / 100


def test_any_number_of_images_gives_the_same_numbers_in_one_call():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 4, 4), torch.nn.Flatten(2),
                                 torch.nn.GELU()).requires_grad_(False)
    fast = traced(layers, lambda images: layers(images), IMAGES, 'three layers')
    assert fast is not None
    for count in (1, 2, 3, 4):
        assert torch.equal(fast(IMAGES[:count]), layers(IMAGES[:count]))


def test_one_that_computes_otherwise_for_another_number_is_left_as_it_is():
    def encode(images):
        return images.flatten(2) * (2 if len(images) > 1 else 3)  # a branch that tracing loses
    assert traced(torch.nn.Identity(), encode, IMAGES, 'odd') is None


def test_one_that_cannot_be_traced_is_left_as_it_is():
    def encode(images):
        return {'states': images}['none']
    assert traced(torch.nn.Identity(), encode, IMAGES, 'odd') is None


def test_the_next_model_of_its_kind_takes_over_what_a_closed_one_left(monkeypatch):
    first, second = (torch.nn.Conv2d(3, 6, 4, 4) for _ in range(2))
    fast = traced(first, lambda images: first(images).flatten(2), IMAGES, 'one layer')
    fast.close()
    assert not any(weight.numel() for weight in first.parameters())
    monkeypatch.setattr(torch.jit, 'trace', None)
    again = traced(second, lambda images: second(images).flatten(2), IMAGES, 'one layer')
    assert torch.equal(again(IMAGES), second(IMAGES).flatten(2))
    # While that one is in use, another is traced for itself.
    assert traced(second, lambda images: second(images).flatten(2), IMAGES, 'one layer') is None


def test_the_shipped_model_is_traced_and_says_the_same():
    captioner = load_captioner('tabletop', device='cpu')
    assert captioner._traced is not None
    frame = scene_frame(5)
    regions = [None, *regions_from_labels(frame.labels)]
    fast = captioner.caption(frame.rgb, regions, CaptionOptions())
    captioner._traced = None
    assert fast == captioner.caption(frame.rgb, regions, CaptionOptions())
    captioner.close()
    assert captioner._traced is None


def test_weights_that_are_no_parameters_are_not_left_to_others(monkeypatch):
    monkeypatch.setattr(loading, 'has_amx', lambda: False)
    for _ in range(2):
        captioner = load_captioner('tabletop', device='cpu', dtype='int8')
        assert captioner._traced is not None
        captioner.close()
    assert not any(kind == '' or 'int8' in kind for kind in _spare)
