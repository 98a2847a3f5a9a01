# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What recordings cost beside captioning: rate and memory of ``caption-ros bag``.

Throughput: a recording of one minute is captioned whole, from opening IN to OUT and the page in
their places, in turns with the bare captioner on the same frames, decoded beforehand, in the same
batches, in the same process. Memory: the peaks of processes that caption recordings of one and of
ten minutes. All recordings are raw 640x480 at 3 Hz with masks. Run by hand:

    python bench/bag_bench.py [--only throughput|memory] [--rounds 3] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))

import numpy as np  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402

from caption_ros.bags.frames import FrameReader, Sampling  # noqa: E402
from caption_ros.bags.job import BagOptions, caption_bag  # noqa: E402
from caption_ros.bags.recording import Recording  # noqa: E402
from caption_ros.bags.topics import plan_topics  # noqa: E402
from caption_ros.commands.options import load_with_focus  # noqa: E402
from caption_ros.pipeline import caption_frames  # noqa: E402
from caption_ros.scenes import TabletopStream  # noqa: E402

TYPES = get_typestore(Stores.LATEST)
IMAGE = 'sensor_msgs/msg/Image'
WIDTH, HEIGHT, RATE_HZ = 640, 480, 3
WANTED_RATIO, WANTED_GROWTH = 0.85, 1.1


def write(path: Path, minutes: float, storage: str = 'mcap') -> int:
    """Write a recording of images and masks; return how many frames it has."""
    frames = round(minutes * 60 * RATE_HZ)
    stream = TabletopStream(1, WIDTH, HEIGHT)
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = [(writer.add_connection(name, IMAGE, typestore=TYPES), encoding)
                  for name, encoding in (('/camera/image', 'rgb8'), ('/camera/mask', 'mono8'))]
        for i in range(frames):
            frame, now_ns = stream.frame(i), 10 ** 18 + i * 10 ** 9 // RATE_HZ
            header = TYPES.types['std_msgs/msg/Header'](TYPES.types['builtin_interfaces/msg/Time'](
                now_ns // 10 ** 9, now_ns % 10 ** 9), 'camera')
            for (topic, encoding), pixels in zip(topics, (frame.rgb, frame.labels)):
                message = TYPES.types[IMAGE](header, HEIGHT, WIDTH, encoding, 0, pixels.strides[0],
                                             np.frombuffer(pixels.tobytes(), np.uint8))
                writer.write(topic, now_ns, TYPES.serialize_cdr(message, IMAGE))
    return frames


def throughput(folder: Path, model: str, batch: int, rounds: int) -> dict[str, object]:
    """Return frames a second of recordings and of the bare captioner, and their ratio."""
    source = folder / 'minute'
    frames = write(source, 1)
    captioner = load_with_focus(model, 'cpu', 'auto', '', 'auto')
    recording = Recording(source)
    seen = [(frame.rgb, frame.labels) for frame in FrameReader(
        recording, plan_topics(recording), Sampling(), lambda key: False)]
    assert len(seen) == frames
    caption_frames(seen[:batch], captioner)  # compiles what is compiled
    bare_s, bag_s = [], []
    for number in range(rounds):
        began_s = time.perf_counter()
        for start in range(0, frames, batch):
            caption_frames(seen[start:start + batch], captioner)
        bare_s.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        summary = caption_bag(source, folder / f'{number}/out.mcap', lambda: captioner,
                              BagOptions(model=model, batch=batch))
        bag_s.append(time.perf_counter() - began_s)
        if summary is None or summary.frames != frames:
            raise SystemExit(f'{summary} of {frames} frames')
    return {'model': model, 'batch': batch, 'frames': frames,
            'bare_frames_per_s': round(frames / statistics.median(bare_s), 2),
            'bag_frames_per_s': round(frames / statistics.median(bag_s), 2),
            'ratio': round(statistics.median(bare / bag for bare, bag in zip(bare_s, bag_s)), 3),
            'ratios': [round(bare / bag, 3) for bare, bag in zip(bare_s, bag_s)]}


def memory(folder: Path, model: str, batch: int) -> dict[str, object]:
    """Return the peaks of processes that caption one minute and ten, and their ratio."""
    peaks = {}
    for minutes in (1, 10):
        source, out = folder / f'of_{minutes}', folder / f'out_{minutes}/out.mcap'
        frames = write(source, minutes)
        done = subprocess.run(
            [sys.executable, __file__, '--caption', source, out, '--model', model, '--batch',
             str(batch)], stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout)
        if told['frames'] != frames:
            raise SystemExit(f'{told["frames"]} of {frames} frames were captioned')
        peaks[minutes] = {'frames': frames, **told}
    return {'model': model, 'batch': batch, 'minutes': peaks,
            'growth': round(peaks[10]['peak_mib'] / peaks[1]['peak_mib'], 3)}


def caption(source: Path, out: Path, model: str, batch: int) -> None:
    """Caption a recording and print this process' peak memory."""
    began_s = time.perf_counter()
    summary = caption_bag(source, out, lambda: load_with_focus(model, 'cpu', 'auto', '', 'auto'),
                          BagOptions(model=model, batch=batch))
    status = Path('/proc/self/status').read_text()  # ru_maxrss would tell of the parent, too
    peak_kib = int(status.partition('VmHWM:')[2].split()[0])
    report_mib = (out.parent / 'report.html').stat().st_size / 2**20
    print(json.dumps({'frames': summary.frames if summary else 0,
                      'peak_mib': round(peak_kib / 1024, 1), 'report_mib': round(report_mib, 1),
                      'seconds': round(time.perf_counter() - began_s, 1)}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', choices=('throughput', 'memory'))
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--caption', nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.caption:
        caption(*options.caption, options.model, options.batch)
        return 0
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        if options.only != 'memory':
            found['throughput'] = throughput(Path(name), options.model, options.batch,
                                             options.rounds)
        if options.only != 'throughput':
            found['memory'] = memory(Path(name), options.model, options.batch)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + '\n')
    holds = (found.get('throughput', {}).get('ratio', 1) >= WANTED_RATIO
             and found.get('memory', {}).get('growth', 1) <= WANTED_GROWTH)
    return 0 if holds else 1


if __name__ == '__main__':
    sys.exit(main())
