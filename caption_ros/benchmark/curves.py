# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the time for a frame grows with its regions, its size and the length of captions."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from caption_ros.benchmark.captions import boxes
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.region import Region
from caption_ros.scenes import TabletopStream

REGIONS = (1, 2, 4, 8, 16, 32)
SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
TOKENS = (8, 16, 32, 64)


def growth(captioner: Captioner, options: CaptionOptions, rounds: int) -> dict[str, Any]:
    """Time a captioner on frames that grow in one way at a time.

    Args:
        captioner: The model.
        options: Focus and search; the length is set where it is what grows.
        rounds: Rounds, in each of which every frame is captioned once.

    Returns:
        ``regions``, ``image`` and ``tokens``, each a list of pairs of what grows and the median
        milliseconds for a frame, and ``peak_memory_mb`` of this process.
    """
    frame = TabletopStream(7).frame(0)
    size = (frame.rgb.shape[0], frame.rgb.shape[1])
    by_size = [(f'{width}x{height}', TabletopStream(7, width, height).frame(0).rgb)
               for width, height in SIZES]

    def caption(rgb: Any, regions: Sequence[Region | None], tokens: int) -> Callable[[], object]:
        grown = CaptionOptions(focus=options.focus, num_beams=options.num_beams,
                               max_new_tokens=tokens)
        return lambda: captioner.caption(rgb, regions, grown)

    length = options.max_new_tokens
    return {
        'regions': _times([(count, caption(frame.rgb, boxes(count, size), length))
                           for count in REGIONS], rounds),
        'image': _times([(name, caption(rgb, [None], length)) for name, rgb in by_size], rounds),
        'tokens': _times([(tokens, caption(frame.rgb, [None], tokens)) for tokens in TOKENS],
                         rounds),
        'peak_memory_mb': _peak_memory_mb(),
    }


def _times(works: Sequence[tuple[Any, Callable[[], object]]], rounds: int) -> list[list[Any]]:
    spent: list[list[float]] = [[] for _ in works]
    for turn in range(rounds + 1):
        for (_, work), times in zip(works, spent):
            start_s = time.perf_counter()
            work()
            if turn:  # the first turn warms up
                times.append(time.perf_counter() - start_s)
    return [[name, 1000 * statistics.median(times)] for (name, _), times in zip(works, spent)]


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == 'darwin' else 1e3)
