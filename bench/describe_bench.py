# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Questions of several clients to ~/describe while a camera films at 30 Hz.

python bench/describe_bench.py [--calls N] [--clients N]

Prints one JSON object: how many calls were answered, how often the model was used by two at a
time, how many answers tell a scene that was not shown while the call lasted, and the median wait
beside the median latency of the model. The model is the shipped tabletop; the node, the camera
and the clients are real ROS 2 nodes in one process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

_CAMERA_HZ = 30
_FRAMES_OF_A_SCENE = 15
_SCENES = 4
_ON_ITS_WAY_S = 0.1  # a frame may have been sent and not have come when the question comes
_TIMEOUT_S = 60.0


class WatchedCaptioner:
    """A captioner that notes its latencies and whether two use it at a time."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._lock = inner, threading.Lock()
        self.overlaps = 0
        self.latencies_s: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def caption(self, *args: Any) -> Any:
        """Pass the call on."""
        free = self._lock.acquire(blocking=False)
        self.overlaps += not free
        started_s = time.monotonic()
        try:
            return self._inner.caption(*args)
        finally:
            self.latencies_s.append(time.monotonic() - started_s)
            if free:
                self._lock.release()


def scenes(captioner: Any) -> list[tuple[np.ndarray, str]]:
    """Return pictures that the model describes without fault, each with its own sentence."""
    from caption_ros import caption_frame
    from caption_ros.scenes import scene_frame
    found: dict[str, np.ndarray] = {}
    for seed in itertools.count(1):
        frame = scene_frame(seed, 320, 240)
        text = caption_frame(frame.rgb, None, captioner)[0].text
        if text == frame.scene_caption:
            found.setdefault(text, frame.rgb)
        if len(found) == _SCENES:
            break
    return [(rgb, text) for text, rgb in found.items()]


class Camera:
    """Films one scene after the other on a thread of its own."""

    def __init__(self, node: Any, pictures: list[tuple[np.ndarray, str]]) -> None:
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import Image
        self._publisher = node.create_publisher(Image, 'image', QoSProfile(depth=5))
        self._pictures = pictures
        self._over = threading.Event()
        self.shown: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._film)
        self._thread.start()

    def _film(self) -> None:
        from std_msgs.msg import Header

        from caption_ros.ros.messages import msg_from_array
        messages = [(msg_from_array(rgb, 'rgb8', Header()), text)
                    for rgb, text in self._pictures]
        for i in itertools.count(1):
            if self._over.wait(1 / _CAMERA_HZ):
                return
            message, text = messages[i // _FRAMES_OF_A_SCENE % len(messages)]
            message.header.stamp.sec = i
            self.shown.append((time.monotonic(), text))
            self._publisher.publish(message)

    def close(self) -> None:
        """Stop filming."""
        self._over.set()
        self._thread.join()


def ask(service: Any, calls: int, answers: list[Any]) -> None:
    """Call a service so many times, one after the other."""
    from std_srvs.srv import Trigger
    for _ in range(calls):
        asked_s = time.monotonic()
        done = threading.Event()
        future = service.call_async(Trigger.Request())
        future.add_done_callback(lambda _, done=done: done.set())
        done.wait(_TIMEOUT_S)
        answers.append((asked_s, time.monotonic(), future.result()))


def run(calls: int, clients: int) -> dict[str, Any]:
    """Run it and return what is printed."""
    import rclpy
    from rclpy.parameter import Parameter
    from std_srvs.srv import Trigger

    from caption_ros import load_captioner
    from caption_ros.ros.caption_node import CaptionNode
    from caption_ros.ros.spinning import spinning
    captioner = WatchedCaptioner(load_captioner('tabletop'))
    pictures = scenes(captioner)
    captioner.latencies_s.clear()
    rclpy.init(args=[])
    node = CaptionNode(load_captioner=lambda *_, **__: captioner, parameter_overrides=[
        Parameter('describe', value='scene'), Parameter('autostart', value=True)])
    askers = [rclpy.create_node(f'asker_{i}') for i in range(clients)]
    services = [asker.create_client(Trigger, '/caption_node/describe') for asker in askers]
    camera = Camera(askers[0], pictures)
    answers: list[Any] = []
    with spinning(*askers), spinning(node), closing(camera):
        for service in services:
            service.wait_for_service(_TIMEOUT_S)
        while not captioner.latencies_s:
            time.sleep(0.05)
        threads = [threading.Thread(target=ask, args=(service, calls // clients, answers))
                   for service in services]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for made in (node, *askers):
        made.destroy_node()
    rclpy.try_shutdown()
    return summary(answers, camera.shown, captioner)


def summary(answers: list[Any], shown: list[tuple[float, str]], captioner: WatchedCaptioner,
            ) -> dict[str, Any]:
    """Judge the answers."""
    answered = [entry for entry in answers if entry[2] is not None and entry[2].success]
    wrong = sum(answer.message not in {
        text for at_s, text in shown if asked_s - _ON_ITS_WAY_S <= at_s <= told_s}
        for asked_s, told_s, answer in answered)
    wait_s = statistics.median(told_s - asked_s for asked_s, told_s, _ in answered)
    latency_s = statistics.median(captioner.latencies_s)
    return {'calls': len(answers), 'answered': len(answered), 'wrong frames': wrong,
            'two at a time': captioner.overlaps, 'inferences': len(captioner.latencies_s),
            'median wait s': round(wait_s, 4), 'median latency s': round(latency_s, 4),
            'latencies of a wait': round(wait_s / latency_s, 2)}


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--calls', type=int, default=200)
    parser.add_argument('--clients', type=int, default=4)
    arguments = parser.parse_args()
    from caption_ros.resources import config_path
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 58))
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(config_path('fastdds_local.xml')))
    print(json.dumps(run(arguments.calls, arguments.clients)))


if __name__ == '__main__':
    main()
