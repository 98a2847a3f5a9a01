# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A run in a process of its own, to be killed: IN, OUT and seconds a frame on the command line."""

import sys
import time
from pathlib import Path

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


if __name__ == '__main__':
    print('ready', flush=True)
    run(sys.argv[1], sys.argv[2], float(sys.argv[3]))
