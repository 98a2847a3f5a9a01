# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Patches of four channels in bfloat16, and an encoder in bfloat16 beside a float32 decoder."""

import pytest
import torch
from tiny_checkpoints import MAKERS

from caption_ros import CaptionOptions, caption_frame, load_captioner
from caption_ros.captioners import devices, loading
from caption_ros.captioners.patches import PatchConvolution, cut_by_matrices
from caption_ros.scenes import scene_frame


def _close(found, wanted):
    return float((found.float() - wanted).abs().max() / wanted.abs().max()) < 0.02


@pytest.mark.parametrize('patch, size', [((24, 24), (192, 240)), ((16, 8), (70, 50)),
                                         ((16, 16), (224, 224))])
@pytest.mark.parametrize('images', [1, 3])
def test_patches_in_bfloat16_are_those_in_float32(patch, size, images):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(4, 192, patch, patch)
    pixels = torch.randn(images, 4, *size)
    wanted = plain(pixels).detach()
    model = torch.nn.Sequential(plain).to(torch.bfloat16)
    cut_by_matrices(model)
    assert isinstance(model[0], PatchConvolution)
    found = model(pixels.bfloat16()).detach()
    assert found.shape == wanted.shape and _close(found, wanted)


@pytest.mark.parametrize('layer', [
    torch.nn.Conv2d(4, 8, 3, 1), torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Conv2d(4, 8, 4, 4, 2),
    torch.nn.Conv2d(4, 8, 4, 4, groups=2)])
def test_other_convolutions_stay(layer):
    cut_by_matrices(torch.nn.Sequential(layer.to(torch.bfloat16)))
    assert type(layer) is torch.nn.Conv2d


@pytest.mark.parametrize('has_bfloat16, dtypes', [
    (True, {torch.bfloat16, torch.float32}), (False, {torch.float32})])
def test_auto_is_an_encoder_in_bfloat16_where_that_pays(monkeypatch, has_bfloat16, dtypes):
    for module in (devices, loading):
        monkeypatch.setattr(module, 'cpu_has_bfloat16', lambda: has_bfloat16)
    captioner = load_captioner('tabletop', device='cpu')
    model = captioner._model
    assert {weight.dtype for weight in model.parameters()} == dtypes
    assert {weight.dtype for weight in model.decoder.parameters()} == {torch.float32}
    assert captioner.dtype == ('bfloat16+float32' if has_bfloat16 else 'float32')


def test_a_tiny_encoder_and_a_dtype_that_was_asked_for_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'cpu_has_bfloat16', lambda: True)
    MAKERS['vit-gpt2'](tmp_path)
    assert load_captioner(tmp_path, device='cpu').dtype == 'float32'
    assert load_captioner('tabletop', device='cpu', dtype='float32').dtype == 'float32'


@pytest.mark.parametrize('num_beams', [1, 2])
@pytest.mark.parametrize('dtype', ['auto', 'bfloat16'])
def test_captions_in_bfloat16_are_right(monkeypatch, dtype, num_beams):
    monkeypatch.setattr(loading, 'cpu_has_bfloat16', lambda: True)
    captioner = load_captioner('tabletop', device='cpu', dtype=dtype)
    assert 'bfloat16' in captioner.dtype
    options = CaptionOptions(describe='both', num_beams=num_beams)
    for seed in range(2):
        frame = scene_frame(seed)
        scene, *phrases = caption_frame(frame.rgb, frame.labels, captioner, options)
        assert scene.text == frame.scene_caption
        assert [said.text for said in phrases] == list(frame.region_captions.values())
