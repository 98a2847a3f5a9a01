# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Count the camera frames that get from one process to another on this machine.

Inside one process every frame arrives, so nothing short of two processes shows whether the
middleware is set up for images. Both ends are started from this module; a camera end sends
1x1 frames until the other end has seen one, then the frames that count.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from caption_ros.errors import CaptionRosError

_WARM_UP = 'warm-up'
_WARM_UP_PERIOD_S = 0.05
_START_TIMEOUT_S = 30.0
_LAST_FRAME_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 3.0
# Domains above 101 touch the port range that Linux hands to other programs.
_FIRST_DOMAIN, _DOMAINS = 60, 40


@dataclass(frozen=True)
class TransportResult:
    """What became of the frames of one check.

    Attributes:
        width: Frame width, pixels.
        height: Frame height, pixels.
        rate_hz: Frames sent per second.
        sent: Frames sent.
        received: Frames that arrived whole.
        median_s: Time from publish to callback at the median, seconds; 0 when none arrived.
    """

    width: int
    height: int
    rate_hz: float
    sent: int
    received: int
    median_s: float

    @property
    def lost(self) -> int:
        """Frames that did not arrive."""
        return self.sent - self.received


def check_transport(width: int = 640, height: int = 480, rate_hz: float = 30.0,
                    seconds: float = 2.0, env: Mapping[str, str] | None = None,
                    ) -> TransportResult:
    """Send best-effort rgb8 frames from one process to another and count them.

    Args:
        width: Frame width, pixels.
        height: Frame height, pixels.
        rate_hz: Frames per second.
        seconds: How long to send.
        env: Environment of both processes; the present one when left out. They run in a
            domain of their own, on this machine only.

    Raises:
        CaptionRosError: If a process fails or the two do not find each other.
    """
    env = {**(os.environ if env is None else env),
           'ROS_DOMAIN_ID': str(_FIRST_DOMAIN + os.getpid() % _DOMAINS),
           'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    frames = max(round(rate_hz * seconds), 1)
    receiver = _start(['receive', str(frames)], env)
    sender = _start(['send', str(width), str(height), str(rate_hz), str(frames)], env)
    try:
        timer = threading.Timer(_START_TIMEOUT_S, _kill, (receiver, sender))
        timer.start()
        ready = _line(receiver)
        timer.cancel()
        if ready != 'ready':
            raise CaptionRosError(
                'two processes on this machine did not find each other over DDS '
                f'({_last_words(receiver, sender) or "no error text"})')
        _tell(sender, 'go')
        if _line(sender) != 'sent':
            raise CaptionRosError(f'the sending process failed ({_last_words(sender)})')
        _tell(receiver, 'stop')
        counts = json.loads(_line(receiver) or '{}')
        return TransportResult(width, height, rate_hz, frames, int(counts.get('received', 0)),
                               float(counts.get('median_s', 0.0)))
    finally:
        # A killed process leaves its shared-memory segment behind, so let both end by themselves.
        for process in (receiver, sender):
            try:
                process.communicate(timeout=_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _start(arguments: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, '-m', 'caption_ros.ros.transport_check', *arguments],
                            env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # of the Popen above, not input
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + '\n')
    process.stdin.flush()


def _kill(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()


def _last_words(*processes: subprocess.Popen[str]) -> str:
    _kill(*processes)
    errors = (process.communicate()[1].strip().splitlines()[-1:] for process in processes)
    return '; '.join(line for lines in errors for line in lines)


class _Told(threading.Thread):
    """Sets an event when a line comes in, or the other side is gone."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self.event = threading.Event()
        self._stream = stream
        self.start()

    def run(self) -> None:
        self._stream.readline()
        self.event.set()


def _best_effort(depth: int):  # noqa: ANN202 - rclpy is imported below only
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def _send(width: int, height: int, rate_hz: float, frames: int) -> None:
    import rclpy
    from sensor_msgs.msg import Image
    told = _Told(sys.stdin)
    node = rclpy.create_node('caption_ros_transport_send')
    publisher = node.create_publisher(Image, 'caption_ros_transport_check', _best_effort(5))
    warm_up = Image(height=1, width=1, encoding='rgb8', step=3)
    warm_up.header.frame_id = _WARM_UP
    warm_up.data = array.array('B', bytes(3))
    while not told.event.wait(_WARM_UP_PERIOD_S):
        publisher.publish(warm_up)
    image = Image(height=height, width=width, encoding='rgb8', step=3 * width)
    image.data = array.array('B', bytes(3 * width * height))
    start_s = time.monotonic()
    for index in range(frames):
        time.sleep(max(start_s + index / rate_hz - time.monotonic(), 0.0))
        image.header.frame_id = str(index)
        image.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(image)
    print('sent', flush=True)
    sys.stdin.readline()  # alive until the frames are counted: leaving withdraws the last ones


def _receive(frames: int) -> None:
    import rclpy
    from sensor_msgs.msg import Image
    told = _Told(sys.stdin)
    node = rclpy.create_node('caption_ros_transport_receive')
    seen: dict[str, float] = {}
    is_ready = False

    def on_image(message: Image) -> None:
        nonlocal is_ready
        if message.header.frame_id == _WARM_UP:
            if not is_ready:
                print('ready', flush=True)
            is_ready = True
            return
        now_ns = node.get_clock().now().nanoseconds
        stamp = message.header.stamp
        seen[message.header.frame_id] = (now_ns - stamp.sec * 10**9 - stamp.nanosec) / 1e9

    node.create_subscription(Image, 'caption_ros_transport_check', on_image, _best_effort(10))
    last_s = None
    while len(seen) < frames and (last_s is None or time.monotonic() < last_s):
        rclpy.spin_once(node, timeout_sec=0.05)
        if last_s is None and told.event.is_set():
            last_s = time.monotonic() + _LAST_FRAME_TIMEOUT_S
    print(json.dumps({'received': len(seen),
                      'median_s': statistics.median(seen.values()) if seen else 0.0}), flush=True)


def main() -> None:
    """Run one end of the check."""
    parser = argparse.ArgumentParser(description='one end of the transport check')
    ends = parser.add_subparsers(dest='end', required=True)
    send = ends.add_parser('send')
    send.add_argument('width', type=int)
    send.add_argument('height', type=int)
    send.add_argument('rate_hz', type=float)
    send.add_argument('frames', type=int)
    receive = ends.add_parser('receive')
    receive.add_argument('frames', type=int)
    chosen = parser.parse_args()
    import rclpy
    rclpy.init(args=[])
    if chosen.end == 'send':
        _send(chosen.width, chosen.height, chosen.rate_hz, chosen.frames)
    else:
        _receive(chosen.frames)
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
