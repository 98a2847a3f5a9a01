# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs in processes of their own, to be killed.

IN, OUT and seconds a frame on the command line: one run. IN and a folder: runs that die at each
change of the disk, and are gone on with to the end.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import cv2

from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.caption import Caption


class SlowCaptioner:
    """Says the mean brightness of each region, after a while."""

    name, family, focus_modes, device, dtype = 'slow', 'fake', ('alpha',), 'cpu', 'float32'

    def __init__(self, frame_s):
        self._frame_s = frame_s

    def caption(self, rgb, regions, options):
        time.sleep(self._frame_s)
        return [Caption(f'{region.label} of {rgb[region.full_mask()].mean():.3f}', 0.5, 'alpha',
                        region) for region in regions]

    def close(self):
        pass


def run(source, out, frame_s):
    return caption_bag(Path(source), Path(out), lambda: SlowCaptioner(frame_s),
                       BagOptions(batch=4, resume=True))


def _ended(source, out, steps):
    """Run in a child that dies at the change of the disk after so many; True if it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def dying(change):
        def instead(*words, **options):
            nonlocal steps
            steps -= 1
            if steps < 0:
                os._exit(9)
            return change(*words, **options)
        return instead
    for name in ('mkdir', 'rename', 'replace', 'unlink'):
        setattr(Path, name, dying(getattr(Path, name)))
    shutil.rmtree = dying(shutil.rmtree)
    os.fsync = dying(lambda descriptor: None)  # the machine does not die
    try:
        run(source, out, 0)
        os._exit(0)
    finally:
        os._exit(1)


def die_at_each_step(source, folder):
    cv2.setNumThreads(1)  # children have no threads of their parent
    run(source, Path(folder) / 'whole/o', 0)  # what is loaded now is not loaded by each child
    step, is_whole = 0, False
    while not is_whole:
        out = Path(folder) / f'{step}/o'
        is_whole = _ended(source, out, step)
        if not is_whole and not _ended(source, out, step // 2):
            assert _ended(source, out, 1000)
        step += 1


if __name__ == '__main__':
    print('ready', flush=True)
    if len(sys.argv) == 3:
        die_at_each_step(*sys.argv[1:])
    else:
        run(sys.argv[1], sys.argv[2], float(sys.argv[3]))
