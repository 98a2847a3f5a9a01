# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
r"""Whether a focus mode keeps objects apart, and what it costs.

Captions of every region of evaluation tabletops with two to five objects: by a checkpoint with an
alpha channel, and by one without it, which looks at the whole image (none), at crops, or through
masked attention. For none, a region's caption is that of the scene. Times are of frames with 1,
4 and 16 regions, the modes taking turns. Run by hand:

    caption-ros train plain --init caption_ros/weights/tabletop --no-alpha --steps 800 \
        --learning-rate 3e-4
    python bench/focus_bench.py plain [--scenes 500] [--rounds 15] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from caption_ros.captioner import CaptionOptions  # noqa: E402
from caption_ros.captioners import load_captioner  # noqa: E402
from caption_ros.errors import CaptionError  # noqa: E402
from caption_ros.region import region_from_box, regions_from_labels  # noqa: E402
from caption_ros.scenes import scene_frame  # noqa: E402
from caption_ros.training.evaluate import names_other_region  # noqa: E402

MODES = ('none', 'crop', 'attention', 'alpha')
REGION_COUNTS = (1, 4, 16)


def caption_regions(captioner, mode: str, rgb, regions) -> list[str]:
    """Return a text for each region."""
    if mode == 'none':  # one look at the scene serves all of its regions
        return [captioner.caption(rgb, [None], CaptionOptions())[0].text] * len(regions)
    options = CaptionOptions(focus=mode)
    try:
        return [caption.text for caption in captioner.caption(rgb, regions, options)]
    except CaptionError:  # of one of them it says nothing, which is wrong
        if len(regions) == 1:
            return ['']
        return [caption_regions(captioner, mode, rgb, [region])[0] for region in regions]


def scores(captioner, mode: str, scenes: int) -> dict[str, float]:
    """Return shares exactly right and mixed up, over the regions of a number of scenes."""
    exact = mixed = count = done = seed = 0
    while done < scenes:
        frame = scene_frame(seed)
        seed += 1
        if len(frame.region_captions) < 2:
            continue
        done += 1
        regions = regions_from_labels(frame.labels, min_area_px=1)
        for region, text in zip(regions, caption_regions(captioner, mode, frame.rgb, regions)):
            label = int(region.label)
            exact += text == frame.region_captions[label]
            mixed += names_other_region(text, label, frame)
            count += 1
    return {'regions': count, 'exact': exact / count, 'mixed_up': mixed / count}


def times(captioners: dict, rounds: int) -> dict[str, dict[str, float]]:
    """Return median milliseconds per frame, by mode and number of regions."""
    rgb = scene_frame(7).rgb
    rng = np.random.default_rng(0)
    boxes = [(x, y, x + 90, y + 90) for x, y in zip(rng.integers(0, 550, 16),
                                                    rng.integers(0, 390, 16))]
    regions = [region_from_box(tuple(map(int, box)), rgb.shape[:2]) for box in boxes]
    spent: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 1):
        for mode in MODES:
            for count in REGION_COUNTS:
                start_s = time.perf_counter()
                caption_regions(captioners[mode], mode, rgb, regions[:count])
                if turn:  # the first turn warms up
                    spent.setdefault((mode, count), []).append(time.perf_counter() - start_s)
    return {mode: {str(count): 1000 * statistics.median(spent[mode, count])
                   for count in REGION_COUNTS} for mode in MODES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('plain', help='checkpoint without an alpha channel')
    parser.add_argument('--model', default='tabletop', help='checkpoint with one')
    parser.add_argument('--scenes', type=int, default=500)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--json', type=Path, help='write the figures there')
    arguments = parser.parse_args()
    plain, alpha = load_captioner(arguments.plain), load_captioner(arguments.model)
    captioners = {mode: alpha if mode == 'alpha' else plain for mode in MODES}
    cost = times(captioners, arguments.rounds)
    figures = {mode: {**scores(captioners[mode], mode, arguments.scenes), 'ms': cost[mode]}
               for mode in MODES}
    print('focus      exact  mixed up' + ''.join(f'  {n:2} regions' for n in REGION_COUNTS))
    for mode, row in figures.items():
        print(f'{mode:9}  {row["exact"]:.3f}  {row["mixed_up"]:8.3f}'
              + ''.join(f'  {ms:7.1f} ms' for ms in row['ms'].values()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
    main()
