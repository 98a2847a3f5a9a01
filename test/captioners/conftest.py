# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_alpha_clip import MAKERS as ALPHA_CLIP_MAKERS
from tiny_checkpoints import MAKERS
from tiny_vision_language import MAKERS as VISION_LANGUAGE_MAKERS

from caption_ros.captioners import greedy, linears, load_captioner, products
from caption_ros.captioners.kernels import load_kernels
from caption_ros.region import regions_from_labels


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=['kernels', 'torch'])
def layers(request, monkeypatch):
    """Have layers packed by the kernels, if there are any here, and by torch."""
    if request.param == 'torch':
        for module in (linears, greedy, products):
            monkeypatch.setattr(module, 'has_kernel', lambda name: False)
    elif why_not := load_kernels():
        pytest.skip(why_not)
    return request.param


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory):
    """Return a function from a maker's name to its folder, written once."""
    @functools.cache
    def make(kind) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        {**MAKERS, **ALPHA_CLIP_MAKERS, **VISION_LANGUAGE_MAKERS}[kind](folder)
        return folder
    return make


@pytest.fixture(scope='session')
def captioner(checkpoint):
    """Return a function from a maker's name to its captioner, loaded once."""
    return functools.cache(lambda kind: load_captioner(checkpoint(kind), device='cpu'))


@pytest.fixture(scope='session')
def rgb():
    """A picture wider than tall, of blocks that differ."""
    blocks = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((16, 16, 1), np.uint8))  # (96, 128, 3)


@pytest.fixture(scope='session')
def regions():
    """Four regions of the picture: blocks, a corner, one pixel at the edge."""
    labels = np.zeros((96, 128), np.uint8)
    labels[8:40, 16:56] = 3
    labels[50:90, 70:126] = 9
    labels[60:96, 0:20] = 12
    labels[0, 127] = 200
    return regions_from_labels(labels)
