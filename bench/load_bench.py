# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node at full load: memory, processor time and service times over many minutes.

One caption_node with two cameras of 1920x1080 at 30 Hz with masks, all processes of their own, in
the shipped profile of Fast DDS. The figures are of the time after the first captions; a machine
that cannot carry the cameras shows it in their published and received rates. The probe that calls
the services runs on the same cores, so its own waiting is part of their times. Of the cameras'
shared memory all counts that they have allocated, which they do as they start, and not the part of
it that the node has looked at so far. Linux only; run by hand, exit status 1 when memory grows by
1 % or more:

    python bench/load_bench.py [--model tabletop] [--minutes 15] [--json out.json]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

# Before rclpy, which reads the environment that it sets when it starts.
from node_bench import ENV, NAMESPACE, ROOT, SERVICE_PERIOD_S, START_TIMEOUT_S, Probe
from process_load import Sample, memory_growth, sample

import rclpy  # isort: skip
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import GetParameters
from std_msgs.msg import String

CAMERAS = ('left', 'right')
PRELOAD = 10
ANSWER_TIMEOUT_S = 10.0
WANTED_GROWTH_PERCENT = 1.0
MEMORY = {'rss': 'rss_mib', 'rss_own': 'own_mib', 'held': 'held_mib'}  # see process_load.Sample
INFERENCE = ('captioner', 'encode')  # how the names of its threads begin
COUNTS = ('images received', 'images lost in transport', 'masks received',
          'masks lost in transport', 'images missed', 'masks missed', 'pairs',
          'frames replaced by a newer one')
# Python before 3.14 keeps the names of threads to itself; here /proc has to tell them apart.
NAMED_NODE = """
import pathlib, threading
run = threading.Thread.run
def named(thread):
    comm = pathlib.Path(f'/proc/self/task/{threading.get_native_id()}/comm')
    comm.write_text(thread.name[:15])
    run(thread)
threading.Thread.run = named
from caption_ros.ros.caption_node import main
main()
"""


def start(code: list[str], namespace: str, **parameters: object) -> subprocess.Popen:
    command = [sys.executable, *code, '--ros-args', '--log-level', 'warn', '-r',
               f'__ns:={namespace}']
    for name, value in parameters.items():
        command += ['-p', f'{name}:={value}']
    return subprocess.Popen(command, env={**os.environ, **ENV}, cwd=ROOT)


class Listener:
    """Counts what cameras and node publish, and asks the node for a parameter now and then."""

    def __init__(self) -> None:
        self.probe = Probe()
        self.shots: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.captions = 0
        self.ages_s: list[float] = []
        self.times_s: list[tuple[float, float]] = []  # how long a call took, and when it was sent
        self.unanswered = 0
        self.counts: list[tuple[float, dict[str, int]]] = []
        self._asked = None
        self._asked_s = 0.0
        node = self.probe.node
        for name in CAMERAS:
            node.create_subscription(String, f'{name}/captions',
                                     lambda message, name=name: self._on_captions(name, message),
                                     100)
            node.create_subscription(String, f'{name}/reference',
                                     lambda message, name=name: self.shots.update([name]), 100)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def forget(self) -> None:
        """Count from now on."""
        self.shots.clear()
        self.frames.clear()
        self.captions, self.unanswered = 0, 0
        self.ages_s, self.times_s, self.counts = [], [], []
        self._asked = None

    def spin(self) -> None:
        """Take what has come, and ask when it is time to."""
        now_s = time.monotonic()
        # A question before the node is there would never be answered.
        if (self._asked is None and now_s - self._asked_s >= SERVICE_PERIOD_S
                and self.probe.get.service_is_ready()):
            self._asked = self.probe.get.call_async(GetParameters.Request(names=['model']))
            self._asked_s = now_s
        rclpy.spin_once(self.probe.node, timeout_sec=0.02)
        if self._asked is None:
            return
        waited_s = time.monotonic() - self._asked_s
        if self._asked.done():
            self.times_s.append((waited_s, self._asked_s))
            self._asked = None
        elif waited_s > ANSWER_TIMEOUT_S:
            self.unanswered += 1
            self._asked = None

    def _on_captions(self, name: str, message: String) -> None:
        record = json.loads(message.data)
        self.frames[name] += 1
        self.captions += len(record['captions'])
        self.ages_s.append(record['age_s'])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        counts = {}
        for status in message.status:
            node, _, part = status.name.partition(': ')
            if node == 'caption_node' and (part.startswith('input ') or part == 'inference'):
                values = {pair.key: pair.value for pair in status.values}
                names = ('frames captioned',) if part == 'inference' else COUNTS
                counts |= {f'{part} {name}': int(values[name]) for name in names}
        if counts:
            self.counts.append((time.monotonic(), counts))


def measure(arguments: argparse.Namespace) -> dict:
    node = start(['-c', NAMED_NODE], NAMESPACE, model=arguments.model,
                 cameras=f'[{",".join(CAMERAS)}]')
    cameras = [start(['-m', 'caption_ros.ros.scene_camera'], f'{NAMESPACE}/{name}', seed=seed,
                     width=arguments.width, height=arguments.height,
                     rate_hz=float(arguments.rate_hz), preload_frames=PRELOAD, mask='true')
               for seed, name in enumerate(CAMERAS, 3)]
    folder = Path(f'/proc/{node.pid}')
    try:
        listener = Listener()
        end_s = time.monotonic() + START_TIMEOUT_S
        while len(listener.frames) < len(CAMERAS):
            listener.spin()
            if time.monotonic() > end_s:
                raise SystemExit(f'only {dict(listener.frames)} frames of {CAMERAS} were '
                                 f'captioned in {START_TIMEOUT_S} s')
        listener.forget()
        begin_s = time.monotonic()
        samples: list[Sample] = [sample(folder, 0.0)]
        while samples[-1].at_s < 60 * arguments.minutes:
            listener.spin()
            now_s = time.monotonic() - begin_s
            if now_s >= samples[-1].at_s + 1:
                if any(process.poll() is not None for process in (node, *cameras)):
                    raise SystemExit('a process has ended; see its message above')
                samples.append(sample(folder, now_s))
        return figures_of(arguments, listener, samples, begin_s)
    finally:
        for process in (node, *cameras):
            process.send_signal(signal.SIGINT)
        for process in (node, *cameras):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        rclpy.try_shutdown()


def figures_of(arguments: argparse.Namespace, listener: Listener, samples: list[Sample],
               begin_s: float) -> dict:
    """Return the figures of a run, for JSON; rates are per second."""
    first, last = samples[0], samples[-1]
    spent_s = last.at_s - first.at_s
    threads = {name: (cpu_s - first.thread_cpu_s.get(name, 0.0)) / spent_s
               for name, cpu_s in last.thread_cpu_s.items()}
    inference_s = spent_s * sum(cores for name, cores in threads.items()
                                if name.startswith(INFERENCE))
    (from_s, before), (to_s, after) = listener.counts[0], listener.counts[-1]
    rises = {name: count - before[name] for name, count in after.items()}
    calls = sorted(listener.times_s)
    times_s = [waited_s for waited_s, _ in calls]
    growths = {f'{name}_growth_percent': 100 * memory_growth(samples, of=of)
               for name, of in MEMORY.items()}
    figures: dict[str, object] = {
        'model': arguments.model, 'size': f'{arguments.width}x{arguments.height}',
        'camera_hz': arguments.rate_hz, 'minutes': round(spent_s / 60, 2)}
    for name in CAMERAS:
        figures[f'{name}_published_hz'] = listener.shots[name] / spent_s
        figures[f'{name}_received_hz'] = rises[f'input {name} images received'] / (to_s - from_s)
        figures[f'{name}_captioned_hz'] = listener.frames[name] / spent_s
    return figures | {
        'captions_per_s': listener.captions / spent_s,
        'median_age_ms': 1000 * statistics.median(listener.ages_s),
        'cpu_inference_cores': inference_s / spent_s,
        'cpu_beside_cores': (last.cpu_s - first.cpu_s - inference_s) / spent_s,
        'service_median_ms': 1000 * statistics.median(times_s),
        'service_p99_ms': 1000 * times_s[int(0.99 * (len(times_s) - 1))],
        'service_max_ms': 1000 * times_s[-1], 'service_max_at_s': calls[-1][1] - begin_s,
        'service_over_100_ms': sum(waited_s > 0.1 for waited_s in times_s),
        'service_calls': len(times_s), 'service_unanswered': listener.unanswered,
        **{f'{name}_mib': statistics.median(getattr(one, of) for one in samples[-60:])
           for name, of in MEMORY.items()},
        **growths, 'passed': growths['held_growth_percent'] < WANTED_GROWTH_PERCENT,
        'counts': rises, 'threads_cores': threads,
        **{f'{name}_by_second_mib': [round(getattr(one, of), 1) for one in samples]
           for name, of in MEMORY.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--minutes', type=float, default=15.0,
                        help='memory grows from the second of them to the last; of a run of less '
                        'than four, from the second quarter to the last')
    parser.add_argument('--rate-hz', type=float, default=30.0)
    parser.add_argument('--width', type=int, default=1920)
    parser.add_argument('--height', type=int, default=1080)
    parser.add_argument('--json', type=Path, help='write the figures there')
    arguments = parser.parse_args()
    figures = measure(arguments)
    for name, figure in figures.items():
        if isinstance(figure, dict):
            print(f'{name}:')
            for part, value in sorted(figure.items(), key=lambda item: -item[1]):
                if value >= 0.001:
                    print(f'  {part:46} {round(value, 3):>10}')
        elif not isinstance(figure, list):
            text = f'{figure:.3f}' if isinstance(figure, float) else str(figure)
            wanted = f'  < {WANTED_GROWTH_PERCENT:g}' if name == 'held_growth_percent' else ''
            print(f'{name:24} {text:>12}{wanted}')
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n')
    return 0 if figures['passed'] else 1


if __name__ == '__main__':
    sys.exit(main())
