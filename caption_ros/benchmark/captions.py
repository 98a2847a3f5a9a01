# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captions of scenes and regions, timed beside the published way."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from caption_ros.benchmark.compare import compare_all
from caption_ros.benchmark.published import Published
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.captioners.devices import device_label
from caption_ros.region import Region, region_from_box
from caption_ros.scenes import scene_frame

_SIDE_PX = 120


def boxes(count: int, size: tuple[int, int]) -> list[Region]:
    """Return square regions at random places of an image of so many rows and columns."""
    rng = np.random.default_rng(0)
    rows, cols = size
    corners = zip(rng.integers(0, cols - _SIDE_PX, count), rng.integers(0, rows - _SIDE_PX, count))
    return [region_from_box((int(x), int(y), int(x) + _SIDE_PX, int(y) + _SIDE_PX), size)
            for x, y in corners]


def bench_options(captioner: Captioner, focus: str, max_new_tokens: int) -> CaptionOptions:
    """Return greedy search with a focus mode; with attention where the model has it if empty."""
    chosen = focus or ('attention' if 'attention' in captioner.focus_modes else 'auto')
    return CaptionOptions(focus=chosen, max_new_tokens=max_new_tokens)


def measure(captioner: Captioner, published: Published, options: CaptionOptions, *,
            counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Time a checkpoint both ways on the same frame and regions.

    The package's way is timed as if nothing had been said before, and, where its search can
    recall, once more with the words that it has just said.

    Args:
        captioner: The package's way.
        published: The other way, with the same checkpoint; it stays on the CPU.
        options: Focus mode and length.
        counts: Numbers of regions of a frame; 0 is the whole scene.
        rounds: Rounds of each; the two ways take turns.

    Returns:
        Figures for JSON: the machine, the settings, and a Ratio or two for each count.
    """
    import torch
    import transformers

    rgb = scene_frame(7).rgb
    ratios: list[dict[str, object]] = []
    recalling = replace(options, recall=True)
    for count in counts:
        regions: list[Region | None] = [*boxes(count, (rgb.shape[0], rgb.shape[1]))] or [None]
        what = f'{count} region{"s" if count != 1 else ""}' if count else 'whole scene'
        ways = {what: partial(captioner.caption, rgb, regions, options)}
        if captioner.facts().get('greedy search') == 'compiled':
            ways[f'{what}, again'] = partial(captioner.caption, rgb, regions, recalling)
        ratios += [ratio.to_dict() for ratio in compare_all(
            partial(published.caption, rgb, regions, options.max_new_tokens), ways, rounds)]
    return {'model': captioner.name, 'focus': options.focus,
            'device': device_label(captioner.device), 'dtype': captioner.dtype,
            'max_new_tokens': options.max_new_tokens,
            'threads': torch.get_num_threads(), 'machine': platform.machine(),
            'torch': torch.__version__, 'transformers': transformers.__version__,
            'ratios': ratios}
