# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demo: camera and caption node as processes of their own, and a watcher that judges them.

scene_camera -> DDS -> caption_node -> DDS -> watcher; the camera also publishes the reference
captions of each frame, which only the watcher reads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caption_ros.errors import CaptionRosError, OptionError

_MODEL_STATUS = 'caption_node: model'
_PICTURE = 'caption_{:02d}.png'
_START_TIMEOUT_S = 90.0  # the first import of torch on a cold disk takes most of it
_STOP_TIMEOUT_S = 10.0
_KEEP_FRAMES = 90
_MAX_PICTURES = 6
_MIN_MATCHING_SHARE = 0.8


@dataclass
class DemoSummary:
    """What the demo saw."""

    frames: int = 0
    captions: int = 0
    matching: int = 0
    median_age_s: float = 0.0
    scenes: set[str] = field(default_factory=set)
    diagnostics: dict[str, tuple[str, str]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        """True when captions came and nearly all of them match what was shown."""
        return self.captions > 0 and self.matching >= _MIN_MATCHING_SHARE * self.captions

    def reason(self) -> str:
        """Say why the demo did not succeed."""
        if not self.captions:
            return ('no caption arrived that could be matched to a frame; run caption-ros doctor '
                    'to see what is wrong with this machine')
        return f'only {self.matching} of {self.captions} captions match the scene shown'

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        out = [f'{self.captions} captions of {self.frames} frames over {len(self.scenes)} '
               f'scene(s): {self.matching} exactly right; '
               f'median age {1000 * self.median_age_s:.0f} ms']
        out += [f'  {name}: {level}, {message}'
                for name, (level, message) in sorted(self.diagnostics.items())]
        out += [f'  wrote {path}' for path in self.pictures]
        return out


def _environment() -> dict[str, str]:
    """Return an environment on loopback, in a domain of its own, with large frames allowed."""
    from caption_ros.resources import config_path
    env = dict(os.environ)
    env['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    env['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    env['FASTDDS_DEFAULT_PROFILES_FILE'] = str(config_path('fastdds_local.xml'))
    return env


def _start(module: str, parameters: dict[str, object], env: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, '-m', module, '--ros-args', '--log-level', 'warn']
    for name, value in parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        command += ['-p', f'{name}:={text}']
    return subprocess.Popen(command, env=env)


def _stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stamp(message_stamp: Any) -> tuple[int, int]:
    return message_stamp.sec, message_stamp.nanosec


class _Watcher:
    """Collects frames, references and captions by stamp, and judges complete sets."""

    def __init__(self, node: Any, out: Path, say: Callable[[str], None]) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import Image
        from std_msgs.msg import String
        self.summary = DemoSummary()
        self._out = out
        self._say = say
        self._images: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._masks: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._references: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()
        self._waiting: OrderedDict[tuple[int, int], dict[str, Any]] = OrderedDict()
        self._ages: list[float] = []
        self._said = ''
        reliable = QoSProfile(depth=100)
        node.create_subscription(Image, 'image', self._on_image, qos_profile_sensor_data)
        node.create_subscription(Image, 'mask', self._on_mask, qos_profile_sensor_data)
        node.create_subscription(String, 'reference', self._on_reference, reliable)
        node.create_subscription(String, 'captions', self._on_captions, reliable)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable)

    @staticmethod
    def _keep(store: OrderedDict[tuple[int, int], Any], key: tuple[int, int], item: Any) -> None:
        store[key] = item
        while len(store) > _KEEP_FRAMES:
            store.popitem(last=False)

    def _on_image(self, message: Any) -> None:
        self.summary.frames += 1
        self._keep(self._images, _stamp(message.header.stamp), message)

    def _on_mask(self, message: Any) -> None:
        self._keep(self._masks, _stamp(message.header.stamp), message)

    def _on_reference(self, message: Any) -> None:
        reference = json.loads(message.data)
        stamp = reference['stamp']
        self._keep(self._references, (stamp['sec'], stamp['nanosec']), reference)

    def _on_diagnostics(self, message: Any) -> None:
        levels = ('OK', 'WARN', 'ERROR', 'STALE')
        for status in message.status:
            level = status.level if isinstance(status.level, int) else status.level[0]
            self.summary.diagnostics[status.name] = (levels[level], status.message)

    def _on_captions(self, message: Any) -> None:
        captions = json.loads(message.data)
        stamp = captions['stamp']
        self._keep(self._waiting, (stamp['sec'], stamp['nanosec']), captions)

    def judge(self) -> None:
        """Judge the captions whose reference has come."""
        for stamp in [stamp for stamp in self._waiting if stamp in self._references]:
            self._judge(stamp, self._waiting.pop(stamp), self._references[stamp])

    def _judge(self, stamp: tuple[int, int], frame: dict[str, Any],
               reference: dict[str, Any]) -> None:
        regions, scene = [], ''
        for caption in frame['captions']:
            region = caption['region']
            if region is None:
                scene, truth = caption['text'], reference['scene']
            else:
                truth = reference['regions'].get(str(region['label']))
                regions.append((region['label'], caption['text']))
            self.summary.captions += 1
            self.summary.matching += caption['text'] == truth
        self._ages.append(frame['age_s'])
        self.summary.median_age_s = sorted(self._ages)[len(self._ages) // 2]
        self.summary.scenes.add(reference['scene'])
        # Without a region there is no mask yet: the picture would show half of the job.
        text = '\n'.join([f'scene: {scene}'] + [f'  region {label}: {said}'
                                                for label, said in regions])
        if text != self._said:
            self._said = text
            self._say(text)
            if regions:
                self._draw(stamp, regions, scene)

    def _draw(self, stamp: tuple[int, int], regions: list[Any], scene: str) -> None:
        image, mask = self._images.get(stamp), self._masks.get(stamp)
        if image is None or mask is None or len(self.summary.pictures) >= _MAX_PICTURES:
            return
        from PIL import Image as Picture

        from caption_ros.annotate import annotate
        from caption_ros.message import image_from_msg, labels_from_msg
        from caption_ros.region import regions_from_labels
        path = self._out / _PICTURE.format(len(self.summary.pictures))
        found = {region.label: region for region in regions_from_labels(labels_from_msg(mask))}
        drawn = annotate(image_from_msg(image), [(None, scene)] + [
            (found[label], said) for label, said in regions if label in found])
        if not self.summary.pictures:
            _remove_pictures_of_the_last_run(self._out)
        Picture.fromarray(drawn).save(path)
        self.summary.pictures.append(path)


def _remove_pictures_of_the_last_run(out: Path) -> None:
    for number in range(_MAX_PICTURES):
        (out / _PICTURE.format(number)).unlink(missing_ok=True)


def run_demo(*, seconds: float, out: Path, model: str = 'tabletop', seed: int = 3,
             say: Callable[[str], None] = print) -> DemoSummary:
    """Run camera, node and watcher, and return what was seen.

    Args:
        seconds: Time to watch from the first caption on.
        out: Folder for annotated pictures; made if missing.
        model: Model of the node.
        seed: Seed of the first scene.
        say: Takes each new caption.

    Raises:
        OptionError: If there can be no such folder.
        CaptionRosError: If ROS is missing, a process ends by itself or the model does not load.
    """
    env = _environment()
    os.environ.update({key: env[key] for key in (
        'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_DOMAIN_ID', 'FASTDDS_DEFAULT_PROFILES_FILE')})
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException

        from caption_ros.ros.spinning import ending
    except ImportError as error:
        raise CaptionRosError(f'the demo needs rclpy, which cannot be imported ({error}); source '
                              "a ROS 2 or pip install 'caption_ros[ros]'") from error
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f'{out} cannot be made ({error}); choose another folder') from error
    processes = [
        _start('caption_ros.ros.caption_node', {
            'model': model, 'describe': 'both', 'autostart': True}, env),
        _start('caption_ros.ros.scene_camera', {
            'seed': seed, 'rate_hz': 15.0, 'scene_period_s': 3.0}, env),
    ]
    rclpy.init(args=[])
    node = rclpy.create_node('caption_demo')
    try:
        watcher = _Watcher(node, out, say)
        deadline = time.monotonic() + _START_TIMEOUT_S
        ends: float | None = None
        while time.monotonic() < (ends or deadline):
            rclpy.spin_once(node, timeout_sec=0.05)
            watcher.judge()
            level, problem = watcher.summary.diagnostics.get(_MODEL_STATUS, ('OK', ''))
            if level == 'ERROR':
                raise CaptionRosError(f'the node has no model: {problem}')
            if ends is None and watcher.summary.captions:
                ends = time.monotonic() + seconds
            for process in processes:
                if process.poll() is not None:
                    raise CaptionRosError(f'{process.args[2]} ended with exit status '
                                          f'{process.returncode}; see its message above')
        return watcher.summary
    except ExternalShutdownException:
        raise KeyboardInterrupt from None  # rclpy took the signal
    finally:
        _stop(processes)
        with ending():
            node.destroy_node()
            rclpy.try_shutdown()
