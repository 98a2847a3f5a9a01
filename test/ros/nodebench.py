# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A caption node with a fake model, and a client that plays everybody else."""

from __future__ import annotations

import array
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import rclpy

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.filtering import FilteredCaptioner
from caption_ros.region import Region

TIMEOUT_S = 15.0
LEFT, RIGHT = (200, 30, 20), (10, 60, 220)


class FakeCaptioner:
    """Says the mean colour of what it is asked about, so that a wrong region shows."""

    family = 'fake'
    device = 'cpu'
    dtype = 'float32'
    focus_modes = ('alpha', 'crop')
    takes_prompt = True

    def __init__(self, name: str = 'fake') -> None:
        self.name = name
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[int, CaptionOptions]] = []
        self.batches: list[int] = []  # frames of each call for several
        self.closed = False
        self.threads: set[str] = set()
        self.shortcomings: list[str] = []

    def caption(self, rgb: Any, regions: Any, options: CaptionOptions) -> list[Caption]:
        assert not self.closed, 'used after close'
        self.threads.add(threading.current_thread().name)
        self.calls.append((len(regions), options))
        self.gate.wait(TIMEOUT_S)
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return [Caption(self._text(rgb, region), 0.5, 'none' if region is None else 'alpha',
                        region) for region in regions]

    def caption_frames(self, frames: Any, options: CaptionOptions) -> list[list[Caption]]:
        self.batches.append(len(frames))
        return [self.caption(*frame, options) for frame in frames]

    def _text(self, rgb: Any, region: Region | None) -> str:
        pixels = rgb.reshape(-1, 3) if region is None else rgb[region.full_mask()]
        return ' '.join(str(int(value)) for value in pixels.mean(0).round())

    def facts(self) -> dict[str, str]:
        return {'compile': 'none'}

    def problems(self) -> list[str]:
        return list(self.shortcomings)

    def close(self) -> None:
        self.closed = True


class FakeFilter:
    """Believes what is said of the left half only."""

    name = 'fake filter'

    def match(self, rgb: Any, regions: Any, texts: Any) -> list[float]:
        return [0.8 if text == text_of(LEFT) else 0.2 for text in texts]

    def close(self) -> None:
        pass


def text_of(colour: tuple[int, int, int]) -> str:
    return ' '.join(map(str, colour))


def picture(left: tuple[int, int, int] = LEFT, right: tuple[int, int, int] = RIGHT,
            height: int = 48, width: int = 64) -> np.ndarray:
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[:, :width // 2] = left
    rgb[:, width // 2:] = right
    return rgb


def halves(height: int = 48, width: int = 64, left: int = 1, right: int = 2) -> np.ndarray:
    labels = np.full((height, width), left, np.uint8)
    labels[:, width // 2:] = right
    return labels


def image_msg(pixels: np.ndarray, stamp: tuple[int, int] | None, encoding: str | None = None,
              frame_id: str = 'camera_optical_frame') -> Any:
    from sensor_msgs.msg import Image
    message = Image(height=pixels.shape[0], width=pixels.shape[1],
                    encoding=encoding or ('rgb8' if pixels.ndim == 3 else 'mono8'),
                    step=pixels.nbytes // pixels.shape[0])
    message.data = array.array('B', pixels.tobytes())
    message.header.frame_id = frame_id
    if stamp is not None:
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
    return message


def compressed_msg(pixels: np.ndarray, stamp: tuple[int, int], format_text: str = 'jpeg') -> Any:
    from sensor_msgs.msg import CompressedImage
    _, jpeg = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    message = CompressedImage(format=format_text)
    message.data = array.array('B', jpeg.tobytes())
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    return message


def wait_for(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S, what: str = '') -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'not within {timeout_s} s: {what or condition}')


class Bench:
    """A caption node, and a client node that plays camera, segmenter, listener and operator."""

    def __init__(self, **parameters: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.parameter import Parameter
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import String

        from caption_ros.ros.caption_node import CaptionNode
        from caption_ros.ros.spinning import spinning
        self.captioners: list[FakeCaptioner] = []
        self.load_error: Exception | None = None
        self.real: Any = None  # a captioner to load in the place of the fake one
        self.load_calls: list[tuple[str, str, str]] = []
        self.accelerations: list[Any] = []
        self.node = CaptionNode(
            load_captioner=self._load,
            parameter_overrides=[Parameter(name, value=value)
                                 for name, value in ({'autostart': False} | parameters).items()])
        self.client = rclpy.create_node('client')
        self.best_effort = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.reliable = QoSProfile(depth=50)
        self._types = {'image': Image, 'mask': Image, 'image/compressed': CompressedImage}
        self._publishers: dict[str, Any] = {}
        self.captions: list[dict[str, Any]] = []
        self.said_of: dict[str, list[dict[str, Any]]] = {}  # captions by camera
        self.texts: list[str] = []
        self.diagnostics: list[dict[str, Any]] = []
        self._clients: dict[str, Any] = {}
        for camera in self.node.cameras:
            topic = f'{camera}/' if camera else ''
            self.client.create_subscription(
                String, f'{topic}captions',
                lambda message, camera=camera: self._on_captions(camera, message), self.reliable)
            self.client.create_subscription(String, f'{topic}caption',
                                            lambda m: self.texts.append(m.data), self.reliable)
        self.client.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics,
                                        self.reliable)
        self._spinning = ExitStack()
        for node in (self.client, self.node):
            self._spinning.enter_context(spinning(node))

    @property
    def captioner(self) -> FakeCaptioner:
        return self.captioners[-1]

    def _load(self, name: str, *, device: str, dtype: str, filter_model: str = '',
              acceleration: Any = None) -> Any:
        self.load_calls.append((name, device, dtype))
        self.accelerations.append(acceleration)
        if self.load_error is not None:
            raise self.load_error
        if self.real is not None:
            return self.real
        self.captioners.append(FakeCaptioner(name))
        if filter_model:
            return FilteredCaptioner(self.captioners[-1], FakeFilter())
        return self.captioners[-1]

    def _on_captions(self, camera: str, message: Any) -> None:
        self.captions.append(json.loads(message.data))
        self.said_of.setdefault(camera, []).append(self.captions[-1])

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnostics.append({status.name.split(': ')[1]: status for status in message.status})

    def status(self, part: str) -> Any:
        return self.diagnostics[-1][part] if self.diagnostics else None

    def value(self, part: str, key: str) -> str:
        status = self.status(part)
        return {} if status is None else {v.key: v.value for v in status.values}.get(key, '')

    def wait_for_status(self, part: str, level: int, text: str = '') -> Any:
        def holds() -> Any:
            status = self.status(part)
            return (status is not None and status.level[0] == level and text in status.message
                    and status)
        try:
            return wait_for(holds)
        except AssertionError:
            raise AssertionError(f'{part} never was {level} with {text!r}: '
                                 f'{self.status(part)}') from None

    def call(self, service: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        from lifecycle_msgs.srv import ChangeState, GetState
        from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
        from std_srvs.srv import Trigger
        kind = {'describe': Trigger, 'change_state': ChangeState, 'get_state': GetState,
                'set_parameters': SetParameters, 'get_parameters': GetParameters,
                'set_parameters_atomically': SetParametersAtomically}[service]
        if service not in self._clients:
            self._clients[service] = self.client.create_client(kind, f'/caption_node/{service}')
        client = self._clients[service]
        assert client.wait_for_service(timeout_s)
        future = client.call_async(kind.Request() if request is None else request)
        wait_for(future.done, timeout_s, f'answer of {service}')
        return future.result()

    def change(self, transition: str) -> bool:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f'TRANSITION_{transition.upper()}')
        return self.call('change_state', request).success

    def state(self) -> str:
        return self.call('get_state').current_state.label

    def set(self, **values: Any) -> tuple[bool, str]:
        from rcl_interfaces.srv import SetParametersAtomically
        from rclpy.parameter import Parameter
        request = SetParametersAtomically.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
        result = self.call('set_parameters_atomically', request).result
        return result.successful, result.reason

    def start(self) -> Bench:
        assert self.change('configure')
        assert self.change('activate')
        return self

    def advertise(self, *topics: str, qos: Any = None) -> None:
        """Make publishers and wait until the node has matched and followed them."""
        for topic in topics:
            if topic not in self._publishers:
                kind = self._types[topic if topic in self._types else topic.split('/')[-1]]
                self._publishers[topic] = self.client.create_publisher(
                    kind, topic, qos or self.best_effort)
        for topic in topics:
            publisher = self._publishers[topic]
            wait_for(lambda p=publisher: p.get_subscription_count() > 0, what=f'match {topic}')
            camera, _, plain = ('', '', topic) if topic in self._types else topic.rpartition('/')
            follower = 'masks' if plain == 'mask' else 'images'
            wait_for(lambda c=camera, f=follower: getattr(self.node.cameras[c], f).publishers > 0)

    def publish(self, topic: str, message: Any) -> None:
        self._publishers[topic].publish(message)

    def send(self, stamp: tuple[int, int], labels: Any = None, **colours: Any) -> None:
        """Publish an image and, if labels are given, its mask."""
        self.publish('image', image_msg(picture(**colours), stamp))
        if labels is not None:
            self.publish('mask', image_msg(labels, stamp))

    def caption_of(self, stamp: tuple[int, int]) -> dict[str, Any]:
        found = wait_for(lambda: [c for c in self.captions if (
            c['stamp']['sec'], c['stamp']['nanosec']) == stamp], what=f'caption of {stamp}')
        return found[0]

    def close(self) -> None:
        for captioner in self.captioners:
            captioner.gate.set()
        self._spinning.close()
        self.node.destroy_node()
        self.client.destroy_node()
