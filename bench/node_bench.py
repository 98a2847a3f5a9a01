# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node costs: its rate, ages and service times beside the bare captioner.

Camera and node are processes of their own; the bare captioner runs in this one. Bare rounds and
node rounds take turns in one run on the same frames, because machines drift. The camera is on in
all rounds but those called "alone". Services are called in rounds of their own: ten calls a second
take a node's time that nobody else would ask for. Run by hand:

    python bench/node_bench.py [--model tabletop] [--rounds 6] [--seconds 4] [--json out.json]
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from caption_ros.resources import config_path  # noqa: E402

ENV = {
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    'ROS_DOMAIN_ID': str(1 + os.getpid() % 58),
    'FASTDDS_DEFAULT_PROFILES_FILE': str(config_path('fastdds_local.xml')),
    'PYTHONPATH': os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))),
}
os.environ.update(ENV)  # before rclpy, which reads it when it starts

import rclpy  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.msg import Parameter as ParameterMsg  # noqa: E402
from rcl_interfaces.msg import ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import GetParameters, SetParameters  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from caption_ros.captioner import CaptionOptions  # noqa: E402
from caption_ros.captioners import load_captioner  # noqa: E402
from caption_ros.pipeline import caption_frame  # noqa: E402
from caption_ros.scenes import FRAME_RATE_HZ, TabletopStream  # noqa: E402

NAMESPACE = f'/node_bench_{os.getpid()}'  # domains are few, and another run may share ours
PRELOAD = 30
SERVICE_PERIOD_S = 0.1
START_TIMEOUT_S = 120.0


def start(module: str, **parameters: object) -> subprocess.Popen:
    command = [sys.executable, '-m', f'caption_ros.ros.{module}', '--ros-args',
               '--log-level', 'warn', '-r', f'__ns:={NAMESPACE}']
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ['-p', f'{name}:={text}']
    return subprocess.Popen(command, env={**os.environ, **ENV}, cwd=ROOT)


class Probe:
    """Talks to the node: switches it on and off, listens, and times its services."""

    def __init__(self) -> None:
        rclpy.init(args=[])
        self.node = rclpy.create_node('node_bench', namespace=NAMESPACE)
        self.records: list[dict] = []
        self.node.create_subscription(
            String, 'captions', lambda message: self.records.append(
                json.loads(message.data) | {'heard_s': time.monotonic()}), 100)
        self.change = self.node.create_client(ChangeState, 'caption_node/change_state')
        self.state = self.node.create_client(GetState, 'caption_node/get_state')
        self.get = self.node.create_client(GetParameters, 'caption_node/get_parameters')
        self.set = self.node.create_client(SetParameters, 'caption_node/set_parameters')

    def call(self, client, request, timeout_s: float = START_TIMEOUT_S):
        """Return the answer of a service."""
        if not client.wait_for_service(timeout_s):
            raise SystemExit(f'{client.srv_name} is not there')
        future = client.call_async(request)
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=timeout_s)
        if future.result() is None:
            raise SystemExit(f'{client.srv_name} did not answer in {timeout_s} s')
        return future.result()

    def transition(self, number: int) -> None:
        """Ask the node for a lifecycle transition."""
        request = ChangeState.Request(transition=Transition(id=number))
        if not self.call(self.change, request).success:
            raise SystemExit(f'transition {number} of caption_node failed; see its message above')

    def listen(self, seconds: float) -> list[dict]:
        """Return the captions of a time, with ``heard_s``, when each came."""
        self.records.clear()
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            rclpy.spin_once(self.node, timeout_sec=left_s)
        return list(self.records)

    def ask(self, seconds: float) -> list[float]:
        """Call services for a time and return how long each took."""
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=16)
        asks = ((self.get, GetParameters.Request(names=['model'])),
                (self.state, GetState.Request()),
                (self.set, SetParameters.Request(parameters=[
                    ParameterMsg(name='max_regions', value=value)])))
        times_s: list[float] = []
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            sent_s = time.monotonic()
            self.call(*asks[len(times_s) % len(asks)])
            times_s.append(time.monotonic() - sent_s)
            time.sleep(SERVICE_PERIOD_S)
        return times_s


def bare_round(captioner, frames, options, seconds: float) -> list[float]:
    """Return the latencies of the bare captioner for a time, as fast as it goes."""
    latencies_s: list[float] = []
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        frame = frames[len(latencies_s) % len(frames)]
        start_s = time.monotonic()
        labels = None if options.describe == 'scene' else frame.labels
        caption_frame(frame.rgb, labels, captioner, options)
        latencies_s.append(time.monotonic() - start_s)
    return latencies_s


def measure(arguments: argparse.Namespace) -> dict:
    options = CaptionOptions(describe=arguments.describe, recall=arguments.recall)
    size = {'width': arguments.width, 'height': arguments.height}
    stream = TabletopStream(3, **size)
    frames = [stream.frame(round(i * FRAME_RATE_HZ / arguments.rate_hz)) for i in range(PRELOAD)]
    node = start('caption_node', model=arguments.model, dtype=arguments.dtype,
                 describe=arguments.describe, recall=arguments.recall, autostart=False)
    camera = start('scene_camera', seed=3, rate_hz=float(arguments.rate_hz), **size,
                   preload_frames=PRELOAD, mask=arguments.describe != 'scene',
                   mask_delay_s=0.0)  # a segmenter's time is no cost of the node
    try:
        captioner = load_captioner(arguments.model, dtype=arguments.dtype)
        bare_round(captioner, frames, options, 1.0)  # warm-up
        probe = Probe()
        probe.transition(Transition.TRANSITION_CONFIGURE)
        alone: list[float] = []
        bare: list[float] = []
        records: list[dict] = []
        services: list[float] = []
        rates_hz: list[float] = []
        shares: list[float] = []
        for _ in range(arguments.rounds):
            camera.send_signal(signal.SIGSTOP)
            alone += bare_round(captioner, frames, options, arguments.seconds)
            camera.send_signal(signal.SIGCONT)
            bare_here = bare_round(captioner, frames, options, arguments.seconds)
            probe.transition(Transition.TRANSITION_ACTIVATE)
            probe.listen(1.0)  # discovery and the first frame are not what is measured
            heard = probe.listen(arguments.seconds)
            if len(heard) < 2:
                raise SystemExit(f'the node published {len(heard)} caption(s) in '
                                 f'{arguments.seconds} s, wanted 2; use more --seconds')
            # No captioner is faster than the frames come.
            most_hz = min(1 / statistics.mean(bare_here), arguments.rate_hz)
            rates_hz.append((len(heard) - 1) / (heard[-1]['heard_s'] - heard[0]['heard_s']))
            shares.append(rates_hz[-1] / most_hz)
            bare += bare_here
            records += heard
            services += probe.ask(arguments.seconds)
            probe.transition(Transition.TRANSITION_DEACTIVATE)
            # The node ends what it has begun; two models at once wait for each other's threads.
            time.sleep(2 * statistics.median(bare_here))
        latency_s = statistics.median(bare)
        share = statistics.median(shares)
        age_s = statistics.median(record['age_s'] for record in records)
        limit_s = 1.3 * latency_s + 0.030
        return {
            'model': arguments.model, 'dtype': captioner.dtype, 'describe': arguments.describe,
            'recall': arguments.recall, **size,
            'camera_hz': arguments.rate_hz,
            'bare_alone_hz': 1 / statistics.mean(alone), 'bare_hz': 1 / statistics.mean(bare),
            'node_hz': statistics.mean(rates_hz), 'node_share': share,
            'bare_latency_ms': 1000 * latency_s,
            'node_latency_ms': 1000 * statistics.median(r['latency_s'] for r in records),
            'median_age_ms': 1000 * age_s, 'age_limit_ms': 1000 * limit_s,
            'service_median_ms': 1000 * statistics.median(services),
            'service_max_ms': 1000 * max(services), 'service_calls': len(services),
            'passed': share >= 0.95 and age_s <= limit_s and max(services) <= 0.1,
        }
    finally:
        for process in (node, camera):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
        for process in (node, camera):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
        rclpy.try_shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='tabletop')
    parser.add_argument('--dtype', default='auto')
    parser.add_argument('--describe', default='scene', choices=('scene', 'regions', 'both'))
    parser.add_argument('--recall', action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument('--rate-hz', type=float, default=30.0)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--rounds', type=int, default=6)
    parser.add_argument('--seconds', type=float, default=4.0)
    parser.add_argument('--json', type=Path, help='write the figures there')
    arguments = parser.parse_args()
    figures = measure(arguments)
    wanted = {'node_share': '>= 0.95', 'median_age_ms': f'<= {figures["age_limit_ms"]:.0f}',
              'service_max_ms': '<= 100'}
    for name, figure in figures.items():
        text = f'{figure:.3f}' if isinstance(figure, float) else str(figure)
        print(f'{name:18} {text:>12}  {wanted.get(name, "")}')
    print(json.dumps(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + '\n')
    return 0 if figures['passed'] else 1


if __name__ == '__main__':
    sys.exit(main())
