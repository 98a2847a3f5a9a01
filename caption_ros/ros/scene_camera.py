# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""scene_camera: the simulated tabletop as a camera and a segmenter.

The mask carries the stamp of its image and comes later, as from a real segmenter; ``reference``
holds the right captions of each frame as JSON.
"""

from __future__ import annotations

import array
import heapq
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from caption_ros.errors import OptionError
from caption_ros.ros.messages import msg_from_array
from caption_ros.ros.parameters import ParameterSpec, declare, values_of
from caption_ros.ros.spinning import run_node
from caption_ros.scenes import FRAME_RATE_HZ, TabletopStream

_JPEG_QUALITY = 95
_IMAGE_DEPTH = 5

CAMERA_PARAMETERS = (
    ParameterSpec('seed', 3, 'Seed of the first scene; the next scene takes the next seed.',
                  low=0, high=2**31 - 1),
    ParameterSpec('rate_hz', 15.0, 'Images per second.', unit='Hz', low=0.1, high=200.0),
    ParameterSpec('width', 640, 'Image width.', unit='px', low=32, high=4096),
    ParameterSpec('height', 480, 'Image height.', unit='px', low=32, high=4096),
    ParameterSpec('image_transport', 'raw', 'Which image topics to publish.',
                  choices=('raw', 'compressed', 'both')),
    ParameterSpec('mask', True, 'Publish masks, as a segmenter would.'),
    ParameterSpec('mask_delay_s', 0.05, 'Time from an image to its mask.', unit='s',
                  low=0.0, high=10.0),
    ParameterSpec('reliability', 'best_effort', 'Reliability that images and masks offer.',
                  choices=('best_effort', 'reliable')),
    ParameterSpec('scene_period_s', 0.0, 'Time until the next scene; 0 stays with the first.',
                  unit='s', low=0.0, high=3600.0),
    ParameterSpec('preload_frames', 0, 'Frames to render before the start and show in a loop, '
                  'for load tests; 0 renders each when it is due.', low=0, high=1000),
    ParameterSpec('frame_id', 'camera_optical_frame', 'frame_id of images and masks.'),
)


@dataclass(frozen=True)
class _Shot:
    """One rendered frame, ready to be stamped."""

    image: Image | None
    compressed: CompressedImage | None
    mask: Image | None
    scene: str
    regions: dict[str, str]


class _LaterPublisher:
    """Publishes messages at their due times, on a thread of its own."""

    def __init__(self, publisher: Any) -> None:
        self._publisher = publisher
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name='mask', daemon=True)
        self._thread.start()

    def publish_at(self, due_s: float, message: Any) -> None:
        """Publish a message when the monotonic clock shows due_s."""
        with self._changed:
            heapq.heappush(self._due, (due_s, next(self._order), message))
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed:
                    wait_s = self._due[0][0] - time.monotonic() if self._due else None
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._closed:
                    return
                message = heapq.heappop(self._due)[2]
            if rclpy.ok():
                self._publisher.publish(message)


class SceneCamera(Node):
    """Camera and segmenter of a simulated tabletop."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('scene_camera', **kwargs)
        self._later: _LaterPublisher | None = None
        # Everything is read once: a change needs a restart.
        refused = declare(self, CAMERA_PARAMETERS, read_only=True)
        if refused:
            raise OptionError('; '.join(refused.values()))
        values = values_of(self, CAMERA_PARAMETERS)
        self._seed = values['seed']
        self._size = (values['width'], values['height'])
        self._transport = values['image_transport']
        self._mask_delay_s = values['mask_delay_s']
        self._frame_id = values['frame_id']
        self._rate_hz = values['rate_hz']
        period_s = values['scene_period_s']  # 0 stays with the first scene
        self._frames_per_scene = max(1, round(period_s * self._rate_hz)) if period_s else 0
        qos = QoSProfile(depth=_IMAGE_DEPTH, reliability=(
            ReliabilityPolicy.RELIABLE if values['reliability'] == 'reliable'
            else ReliabilityPolicy.BEST_EFFORT))
        raw, compressed = self._transport != 'compressed', self._transport != 'raw'
        self._images = self.create_publisher(Image, 'image', qos) if raw else None
        self._compressed = (self.create_publisher(CompressedImage, 'image/compressed', qos)
                            if compressed else None)
        self._masks = self.create_publisher(Image, 'mask', qos) if values['mask'] else None
        self._references = self.create_publisher(String, 'reference', 10)
        if self._masks is not None:
            self._later = _LaterPublisher(self._masks)
        shots = self._render()
        if values['preload_frames']:
            shots = itertools.cycle(list(itertools.islice(shots, values['preload_frames'])))
        self._shots = shots
        # A camera runs by its own clock: simulated time does not slow it down.
        self._timer = self.create_timer(1.0 / self._rate_hz, self._on_timer,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _render(self) -> Iterator[_Shot]:
        for shown in itertools.count():
            scene, index = (divmod(shown, self._frames_per_scene) if self._frames_per_scene
                            else (0, shown))
            if index == 0:
                stream = TabletopStream(self._seed + scene, *self._size)
            # The objects move at the pace of the stream whatever the rate here.
            frame = stream.frame(round(index * FRAME_RATE_HZ / self._rate_hz))
            header = Header(frame_id=self._frame_id)
            compressed = None
            if self._compressed is not None:
                _, jpeg = cv2.imencode('.jpg', frame.rgb[..., ::-1],
                                       [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                compressed = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
                compressed.data = array.array('B', jpeg.tobytes())
            yield _Shot(
                image=(msg_from_array(frame.rgb, 'rgb8', header)
                       if self._images is not None else None),
                compressed=compressed,
                mask=(msg_from_array(frame.labels, 'mono8', header)
                      if self._masks is not None else None),
                scene=frame.scene_caption,
                regions={str(label): text for label, text in frame.region_captions.items()})

    def _on_timer(self) -> None:
        shot = next(self._shots)
        stamp = self.get_clock().now().to_msg()
        taken_s = time.monotonic()
        self._references.publish(String(data=json.dumps({
            'stamp': {'sec': stamp.sec, 'nanosec': stamp.nanosec},
            'scene': shot.scene, 'regions': shot.regions})))
        header = Header(stamp=stamp, frame_id=self._frame_id)
        for publisher, message in ((self._images, shot.image),
                                   (self._compressed, shot.compressed)):
            if publisher is not None and message is not None:
                message.header = header
                publisher.publish(message)
        if self._later is not None and shot.mask is not None:
            # A new message: a preloaded one may still wait with the stamp of its last showing.
            mask = Image(header=header, height=shot.mask.height, width=shot.mask.width,
                         encoding=shot.mask.encoding, step=shot.mask.step)
            mask.data = shot.mask.data
            self._later.publish_at(taken_s + self._mask_delay_s, mask)

    def destroy_node(self) -> None:
        """Stop the segmenter's thread and destroy the node."""
        if self._later is not None:
            self._later.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    run_node(SceneCamera, args)


if __name__ == '__main__':
    main()
