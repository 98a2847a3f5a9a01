# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How often the package says word for word what the published way says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caption_ros.benchmark.published import Published
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.scenes import scene_frame


def agreement(captioner: Captioner, others: Sequence[Published], options: CaptionOptions,
              scenes: int) -> dict[str, Any]:
    """Caption whole evaluation scenes in all ways and compare the texts.

    Args:
        captioner: The package's way, in any number type.
        others: generate() with the same checkpoint, in number types of its own.
        options: Length of the captions.
        scenes: Number of scenes, 1 or more, from seed 0 on.

    Returns:
        ``scenes``, the captioner's ``dtype``, and ``equal``: by the others' number type, the
        share of captions that are equal, 0 to 1.
    """
    equal = dict.fromkeys((other.dtype for other in others), 0)
    for seed in range(scenes):
        rgb = scene_frame(seed).rgb
        text = captioner.caption(rgb, [None], options)[0].text
        for other in others:
            equal[other.dtype] += other.caption(rgb, [None], options.max_new_tokens)[0] == text
    return {'scenes': scenes, 'dtype': captioner.dtype,
            'equal': {dtype: count / scenes for dtype, count in equal.items()}}
