# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Several cameras: one model for all of them beside a process for each, as nodes would be.

A frame of each camera is captioned as one batch, by calls one after another, and by processes at
the same time, each with a model of its own. The three take turns, and only one of them computes
at a time. Run by hand:

    python bench/cameras_bench.py [MODEL] [--cameras 4] [--seconds 10] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from caption_ros.captioner import CaptionOptions, Frame  # noqa: E402
from caption_ros.captioners import load_captioner  # noqa: E402
from caption_ros.region import region_from_box  # noqa: E402
from caption_ros.scenes import scene_frame  # noqa: E402

LOAD_TIMEOUT_S = 300.0
OPTIONS = CaptionOptions(max_new_tokens=16)


def frame_of(camera: int, captioner: Any) -> Frame:
    """Return a scene; for a model with an alpha channel with one region, else as a whole."""
    rgb = scene_frame(camera).rgb
    if 'alpha' in captioner.focus_modes:
        return rgb, [region_from_box((200, 120, 440, 360), rgb.shape[:2])]
    return rgb, [None]


def seconds_each(work: Callable[[], object], seconds: float) -> float:
    """Work for some seconds, whole times; return the seconds each time took."""
    start_s, count = time.perf_counter(), 0
    while not count or time.perf_counter() < start_s + seconds:
        work()
        count += 1
    return (time.perf_counter() - start_s) / count


def node(camera: int, model: str, threads: int, seconds: float, start: Any, done: Any) -> None:
    """Caption one camera's frame each time all may start; a process of its own."""
    if threads:
        torch.set_num_threads(threads)
    captioner = load_captioner(model)
    rgb, regions = frame_of(camera, captioner)
    work = partial(captioner.caption, rgb, regions, OPTIONS)
    work()
    done.put(0.0)
    while start.get():
        done.put(seconds_each(work, seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', nargs='?', default='tabletop')
    parser.add_argument('--cameras', type=int, default=4)
    parser.add_argument('--seconds', type=float, default=10.0, help='of each way in a round')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=0,
                        help='of each process; 0 is as many as torch takes')
    arguments = parser.parse_args()
    count, seconds = arguments.cameras, arguments.seconds
    context = multiprocessing.get_context('spawn')
    start, done = context.Queue(), context.Queue()
    nodes = [context.Process(target=node, daemon=True, args=(
        camera, arguments.model, arguments.threads, seconds, start, done))
        for camera in range(count)]
    for process in nodes:
        process.start()
    captioner = load_captioner(arguments.model)
    frames = [frame_of(camera, captioner) for camera in range(count)]

    def one_by_one() -> None:
        for rgb, regions in frames:
            captioner.caption(rgb, regions, OPTIONS)

    def side_by_side() -> float:
        for _ in nodes:
            start.put(True)
        each_s = [done.get(timeout=LOAD_TIMEOUT_S) for _ in nodes]
        return count / sum(1 / spent_s for spent_s in each_s)  # for a caption of each

    for _ in nodes:
        done.get(timeout=LOAD_TIMEOUT_S)
    spent: dict[str, list[float]] = {'one batch': [], 'one after another': [], 'processes': []}
    for _ in range(arguments.rounds):
        spent['one batch'].append(
            seconds_each(partial(captioner.caption_frames, frames, OPTIONS), seconds))
        spent['one after another'].append(seconds_each(one_by_one, seconds))
        spent['processes'].append(side_by_side())
    for _ in nodes:
        start.put(False)
    batch_s = statistics.median(spent['one batch'])
    print(f'{arguments.model}, a frame of each of {count} cameras')
    for way, times_s in spent.items():
        own_s = statistics.median(times_s)
        print(f'{way:18} {1000 * own_s:8.1f} ms ({1000 * min(times_s):.1f} to '
              f'{1000 * max(times_s):.1f}); one batch takes {batch_s / own_s:.2f} of it')
    return 0


if __name__ == '__main__':
    sys.exit(main())
