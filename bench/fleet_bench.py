# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a second worker is worth: a fleet of recordings by one and by two, each on a core.

One and two workers take turns in one run on the same recordings. "captioning" is the time from
the first worker ready to the last recording; "all" also has Ray's start, the loading of the model
and the index. An index of a million captions is then searched, and recordings are read without a
captioner, for docs/scale.md. Run by hand:

    python bench/fleet_bench.py [--bags 20] [--frames 60] [--rounds 1] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from caption_ros.bags.frames import FrameReader, Sampling  # noqa: E402
from caption_ros.bags.job import BagOptions  # noqa: E402
from caption_ros.bags.recording import Recording  # noqa: E402
from caption_ros.bags.topics import plan_topics  # noqa: E402
from caption_ros.commands.options import load_with_focus  # noqa: E402
from caption_ros.fleet.run import FleetOptions, caption_fleet  # noqa: E402
from caption_ros.scenes import TabletopStream  # noqa: E402

TYPES = get_typestore(Stores.LATEST)
RAW, JPEG = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
RATE_HZ, READ_FRAMES = 30, 900
WIDTH, HEIGHT = 640, 480
WANTED = 1.6
SEARCHED = 1_000_000
HEADS, TAILS = 'ba ce di fo gu ha je ki lo mu na pe ro su ta ve wi xo yu'.split(), (
    'r', 'rn', 'st', 'mp', 'lk', 'nd', 'gger', 'ttle', 'sh', 'x')


def write(path: Path, seed: int, frames: int, kind: str = RAW) -> None:
    stream = TabletopStream(seed, WIDTH, HEIGHT)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection('/image', kind, typestore=TYPES)
        for i in range(frames):
            rgb, now_ns = stream.frame(i).rgb, 10 ** 18 + i * 10 ** 9 // RATE_HZ
            header = TYPES.types['std_msgs/msg/Header'](TYPES.types['builtin_interfaces/msg/Time'](
                now_ns // 10 ** 9, now_ns % 10 ** 9), 'camera')
            if kind == RAW:
                message = TYPES.types[kind](header, HEIGHT, WIDTH, 'rgb8', 0, rgb.strides[0],
                                            np.frombuffer(rgb.tobytes(), np.uint8))
            else:
                jpeg = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
                message = TYPES.types[kind](header, 'jpeg', jpeg.ravel())
            writer.write(topic, now_ns, TYPES.serialize_cdr(message, kind))


def read(folder: Path, kind: str, every_s: float) -> dict[str, float]:
    """Return how fast frames are read, those chosen also decoded, without a captioner."""
    path = folder / kind.rpartition('/')[2]
    if not path.exists():
        write(path, 1, READ_FRAMES, kind)
    recording = Recording(path)
    reader = FrameReader(recording, plan_topics(recording), Sampling(every_s=every_s),
                         lambda key: False)
    began_s = time.monotonic()
    chosen = sum(1 for _ in reader)
    took_s = time.monotonic() - began_s
    return {'kind': kind, 'every_s': every_s, 'chosen': chosen,
            'frames_per_s': READ_FRAMES / took_s, 'bytes_per_s': recording.size_bytes / took_s,
            'bytes_per_frame': recording.size_bytes / READ_FRAMES}


def caption(source: Path, out: Path, model: str, workers: int, frames: int) -> dict[str, float]:
    """Return seconds of captioning and of all, and the bytes of the results a frame."""
    began_s = time.monotonic()
    load = partial(load_with_focus, model, 'cpu', 'auto', '', 'auto')
    summary = caption_fleet(str(source), str(out), load, BagOptions(
        model=model, captions_only=True), FleetOptions(workers=workers, pin=True),
        say=lambda text: print(text, file=sys.stderr))
    all_s = time.monotonic() - began_s
    done = sum(outcome.frames for outcome in summary.done.values())
    if done != frames or summary.failed:
        raise SystemExit(f'{done} of {frames} frames were captioned')
    made = sum(path.stat().st_size for path in out.rglob('*') if path.is_file())
    return {'workers': workers, 'captioning_s': summary.seconds, 'all_s': all_s,
            'frames_per_s': frames / summary.seconds, 'bytes_per_frame': made / frames,
            'index_bytes_per_frame': Path(summary.index).stat().st_size / frames}


def search(folder: Path) -> dict[str, float]:
    """Return what an index of a million sentences costs, no two alike: a second each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from caption_ros.fleet.index import INDEX, SCHEMA, open_index
    from caption_ros.fleet.search import search_index
    draw = np.random.default_rng(1)
    words = np.array([f'{head}{tail}' for head in HEADS for tail in TAILS] + ['red', 'mug'])
    chosen = words[draw.integers(0, len(words), (SEARCHED, 9))]
    stamps = np.arange(SEARCHED) * 10 ** 9 + draw.integers(0, 3 * 10 ** 7, SEARCHED)
    values = {
        'bag': [f'/drives/drive_{i // 3600:05}' for i in range(SEARCHED)],
        'topic': ['/camera/image'] * SEARCHED, 'stamp': stamps, 'received': stamps + 10 ** 7,
        'frame_id': ['camera'] * SEARCHED, 'model': ['a model'] * SEARCHED,
        'text': [' '.join(('a', *row)) for row in chosen], 'focus': ['none'] * SEARCHED,
        'score': draw.random(SEARCHED, np.float32).round(4),
    }
    columns = [pa.array(values[field.name]).cast(field.type) if field.name in values
               else pa.nulls(SEARCHED, field.type) for field in SCHEMA]
    pq.write_table(pa.table(columns, SCHEMA), folder / INDEX, row_group_size=100_000,
                   compression='zstd')
    times_s = []
    for query in ('red mug', 'mug', 'giraffe'):
        began_s = time.monotonic()
        with open_index(str(folder)) as opened:
            search_index(opened, query)
        times_s.append(time.monotonic() - began_s)
    return {'captions': SEARCHED, 'slowest_s': max(times_s),
            'median_s': statistics.median(times_s),
            'bytes_per_caption': (folder / INDEX).stat().st_size / SEARCHED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--bags', type=int, default=20)
    parser.add_argument('--frames', type=int, default=60, help='of each recording')
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit('two workers on a core each need two cores')
    frames = args.bags * args.frames
    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(args.bags):
            write(folder / f'in/drive_{i:03}', i, args.frames)
        size = sum(path.stat().st_size for path in (folder / 'in').rglob('*') if path.is_file())
        for round_ in range(args.rounds):
            for workers in (1, 2):
                out = folder / f'out_{round_}_{workers}'
                runs.append(caption(folder / 'in', out, args.model, workers, frames))
                print('{workers} workers: {captioning_s:.1f} s captioning, {all_s:.1f} s all, '
                      '{frames_per_s:.1f} frames/s'.format(**runs[-1]), flush=True)
        found = search(folder)
        reads = [read(folder, kind, every_s) for kind in (RAW, JPEG) for every_s in (0.0, 1.0)]
    ratios = {kind: statistics.median(run[kind] for run in runs if run['workers'] == 1)
              / statistics.median(run[kind] for run in runs if run['workers'] == 2)
              for kind in ('captioning_s', 'all_s')}
    print(f'{args.bags} recordings of {args.frames} frames, {size / frames:.0f} bytes a frame')
    print('results: {bytes_per_frame:.0f} bytes a frame, {index_bytes_per_frame:.1f} of them in '
          'the index'.format(**runs[-1]))
    print('search in {captions} captions, no two alike: {median_s:.2f} s, at most {slowest_s:.2f} '
          's; {bytes_per_caption:.0f} bytes a caption'.format(**found))
    for one in reads:
        print('{kind}, every {every_s:g} s: {frames_per_s:.0f} frames/s read by one process, '
              '{bytes_per_frame:.0f} bytes a frame'.format(**one))
    print(f'two workers are {ratios["captioning_s"]:.2f} times as fast as one '
          f'({ratios["all_s"]:.2f} with start and index), wanted {WANTED}')
    if args.json:
        args.json.write_text(json.dumps({'runs': runs, 'ratios': ratios, 'search': found,
                                         'reads': reads}))
    if ratios['captioning_s'] < WANTED:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
