# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ROS side of the page: the newest frame of a topic, and what is painted as messages."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from caption_ros.errors import OptionError
from caption_ros.message import image_from_msg
from caption_ros.ros.messages import msg_from_array
from caption_ros.ros.reader import Reader
from caption_ros.ros.spinning import ending, make_executor
from caption_ros.ros.subscriptions import FollowingSubscription

_FOLLOW_PERIOD_S = 0.25
_SILENT_S = 3.0  # a camera that says nothing for longer is said to be off


class Live:
    """Listens to an image topic and publishes ``mask`` and ``roi``, on a thread of its own.

    Args:
        topic: Image topic; one that ends in /compressed holds compressed images. Empty listens
            to none.
    """

    def __init__(self, topic: str = '') -> None:
        self._started = not rclpy.ok()
        if self._started:  # the page ends by its own signals
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('caption_web')
        self.topic = topic
        self.lost = 0
        self.frames = 0
        self._newest: Any = None
        self._newest_s = 0.0
        self._is_boxed = False
        self._reader: Reader | None = None
        try:
            self._masks = self._node.create_publisher(Image, 'mask', QoSProfile(depth=5))
            self._boxes = self._node.create_publisher(RegionOfInterest, 'roi', QoSProfile(depth=5))
            if topic:
                self._listen(topic)
        except Exception:
            self._end()
            raise
        self._executor = make_executor(self._node)
        self._thread = threading.Thread(target=self._spin, name='caption_web', daemon=True)
        self._stop = threading.Event()
        self._thread.start()

    def newest(self) -> tuple[Header, npt.NDArray[np.uint8]]:
        """Return header and RGB image (H, W, 3) of the newest frame.

        Raises:
            OptionError: If none has come yet.
            ImageFormatError: If it is no picture.
        """
        message = self._newest
        if message is None:
            raise OptionError(f'no frame came on {self.topic} yet; is the camera on?')
        return message.header, image_from_msg(message)

    def check_that_it_films(self) -> None:
        """Refuse to call a camera live whose last frame is old.

        Raises:
            OptionError: If it is.
        """
        silent_s = time.monotonic() - self._newest_s
        if silent_s > _SILENT_S:
            raise OptionError(f'no frame came on {self.topic} for {silent_s:.0f} s; is the camera '
                              'still on?')

    def publish_mask(self, labels: npt.NDArray[np.uint8], header: Header | None) -> None:
        """Publish a label image, (H, W) uint8, with the header of the frame it was painted on."""
        self._masks.publish(msg_from_array(labels, 'mono8', self._header(header)))

    def publish_box(self, box: tuple[int, int, int, int] | None) -> None:
        """Publish a box (x0, y0, x1, y1), or that the one before is there no more.

        Without one before nothing is said: somebody else may point at something.
        """
        if box is None and not self._is_boxed:
            return
        self._is_boxed = box is not None
        x0, y0, x1, y1 = box or (0, 0, 0, 0)
        self._boxes.publish(RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0,
                                             height=y1 - y0))

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join()
        self._executor.shutdown()
        self._end()

    def _listen(self, topic: str) -> None:
        self._reader = Reader(self._node)
        kind = CompressedImage if topic.endswith('/compressed') else Image
        self._images = FollowingSubscription(self._node, kind, topic, self._on_image,
                                             self._on_lost, self._reader)
        self.topic = self._images.topic
        self._node.create_timer(_FOLLOW_PERIOD_S, self._images.follow)

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.close()
        with ending():
            self._node.destroy_node()
            if self._started:
                rclpy.try_shutdown()

    def _header(self, header: Header | None) -> Header:
        if header is not None:
            return header
        return Header(stamp=self._node.get_clock().now().to_msg())

    def _on_image(self, message: Any) -> None:
        self._newest, self._newest_s = message, time.monotonic()
        self.frames += 1

    def _on_lost(self, count: int) -> None:
        self.lost += count

    def _spin(self) -> None:
        try:
            while not self._stop.is_set():
                self._executor.spin_once(timeout_sec=0.1)
        except ExternalShutdownException:
            pass  # somebody else ends ROS; the page goes on without
