# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the time grows with regions, cameras, the size of a frame and the length of captions."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from caption_ros.benchmark.captions import boxes
from caption_ros.benchmark.compare import compare
from caption_ros.captioner import Captioner, CaptionOptions, Frame
from caption_ros.region import Region
from caption_ros.scenes import TabletopStream, scene_frame

REGIONS = (1, 2, 4, 8, 16, 32)
CAMERAS = (1, 2, 4, 8)
SIZES = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
TOKENS = (8, 16, 32, 64)


# The most that the time of the first may be of the time of the second.
FOUR_CAMERAS, SIXTEEN_REGIONS = 0.6, 5.0


def growth(captioner: Captioner, options: CaptionOptions, rounds: int, *,
           cameras_have_region: bool = False) -> dict[str, Any]:
    """Time a captioner on frames that grow in one way at a time.

    Args:
        captioner: The model.
        options: Focus and search; the length is set where it is what grows.
        rounds: Rounds, in each of which every frame is captioned once.
        cameras_have_region: Whether a camera's frame has one region to caption, and not the
            whole scene.

    Returns:
        ``regions``, ``cameras``, ``image`` and ``tokens``, each a list of pairs of what grows
        and the median milliseconds for it (for ``cameras``, of a batch with a frame of each),
        and ``peak_memory_mb`` of this process.
    """
    frame = TabletopStream(7).frame(0)
    size = (frame.rgb.shape[0], frame.rgb.shape[1])
    by_size = [(f'{width}x{height}', TabletopStream(7, width, height).frame(0).rgb)
               for width, height in SIZES]
    cameras = _cameras(CAMERAS[-1], cameras_have_region)

    def caption(rgb: Any, regions: Sequence[Region | None], tokens: int) -> Callable[[], object]:
        grown = CaptionOptions(focus=options.focus, num_beams=options.num_beams,
                               max_new_tokens=tokens)
        return lambda: captioner.caption(rgb, regions, grown)

    length = options.max_new_tokens
    return {
        'regions': _times([(count, caption(frame.rgb, boxes(count, size), length))
                           for count in REGIONS], rounds),
        'cameras': _times([(count, partial(captioner.caption_frames, cameras[:count], options))
                           for count in CAMERAS], rounds),
        'image': _times([(name, caption(rgb, [None], length)) for name, rgb in by_size], rounds),
        'tokens': _times([(tokens, caption(frame.rgb, [None], tokens)) for tokens in TOKENS],
                         rounds),
        'peak_memory_mb': _peak_memory_mb(),
    }


def sharing(captioner: Captioner, options: CaptionOptions, rounds: int, *,
            cameras_have_region: bool = False) -> list[dict[str, Any]]:
    """Time what shares a batch beside what does not, the two taking turns.

    Four nodes on one machine do the work of four calls one after another, on the same cores.

    Returns:
        For each pair, ``what`` is timed ``of`` what, the ``ratio`` of the median times, its
        ``low`` and ``high`` over the rounds, and the ``limit`` that it ought to keep.
    """
    frame = TabletopStream(7).frame(0)
    cameras = _cameras(4, cameras_have_region)
    many = boxes(16, (frame.rgb.shape[0], frame.rgb.shape[1]))

    def one_by_one() -> None:
        for rgb, regions in cameras:
            captioner.caption(rgb, regions, options)

    rows = (
        ('4 cameras', partial(captioner.caption_frames, cameras, options),
         '4 single calls', one_by_one, FOUR_CAMERAS),
        ('16 regions', partial(captioner.caption, frame.rgb, many, options),
         '1 region', partial(captioner.caption, frame.rgb, many[:1], options), SIXTEEN_REGIONS),
    )
    found = []
    for what, first, of, second, limit in rows:
        timed = compare(what, first, second, rounds)
        found.append({'what': what, 'of': of, 'ratio': timed.ratio, 'low': timed.low,
                      'high': timed.high, 'limit': limit})
    return found


def _cameras(count: int, have_region: bool) -> list[Frame]:
    """Return a frame of each of several cameras, all of different scenes."""
    shown = [scene_frame(seed).rgb for seed in range(count)]
    regions: Sequence[Region | None] = (boxes(1, (shown[0].shape[0], shown[0].shape[1]))
                                        if have_region else [None])
    return [(rgb, regions) for rgb in shown]


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
