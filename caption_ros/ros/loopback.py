# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Receiving and publishing as caption_node does, without a node around it: for the bench."""

from __future__ import annotations

import array
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from caption_ros.caption import Caption
from caption_ros.errors import CaptionRosError
from caption_ros.region_message import detections_msg
from caption_ros.ros.messages import image_from_bytes
from caption_ros.ros.pointing import optional_msgs
from caption_ros.ros.spinning import ending

_DISCOVERY_S = 10.0


class Loopback:
    """Makes messages of bytes, and publishes captions to subscriptions that nobody reads.

    Args:
        node: Node that publishes.
    """

    def __init__(self, node: Node) -> None:
        self._header = Header(frame_id='camera')
        self._vision = optional_msgs('vision_msgs')
        kinds: dict[str, Any] = {'caption': String, 'captions': String}
        if self._vision is not None:
            kinds['detections'] = self._vision.Detection2DArray
        self._publishers = {topic: node.create_publisher(kind, topic, 10)
                            for topic, kind in kinds.items()}
        for topic, kind in kinds.items():
            node.create_subscription(kind, topic, lambda message: None, 10)
        end_s = time.monotonic() + _DISCOVERY_S
        while not all(each.get_subscription_count() for each in self._publishers.values()):
            if time.monotonic() > end_s:
                raise CaptionRosError('messages do not arrive in the process that sends them; '
                                      'see caption-ros doctor')
            time.sleep(0.02)

    def packed(self, message: Any) -> tuple[type, bytes]:
        """Return the type and the bytes of a message that has the fields of an image."""
        compressed = hasattr(message, 'format')
        made = CompressedImage() if compressed else Image()
        for name in ('format',) if compressed else ('height', 'width', 'encoding', 'step'):
            setattr(made, name, getattr(message, name))
        made.header.stamp.sec = message.header.stamp.sec
        made.header.frame_id = message.header.frame_id
        made.data = array.array('B', message.data)
        return type(made), serialize_message(made)

    def receive(self, packed: tuple[type, bytes]) -> Any:
        """Return what the node makes of its bytes."""
        return image_from_bytes(packed[1], packed[0])

    def publish(self, text: str, record: str, captions: Sequence[Caption]) -> None:
        """Publish what is said of a frame; with vision_msgs also as detections."""
        self._publishers['captions'].publish(String(data=record))
        self._publishers['caption'].publish(String(data=text))
        if self._vision is not None:
            self._publishers['detections'].publish(
                detections_msg(captions, self._header, self._vision))


@contextmanager
def loopback() -> Iterator[Loopback]:
    """Open a Loopback in a context and a namespace of its own."""
    context = Context()
    rclpy.init(args=[], context=context)
    try:
        node = rclpy.create_node('bench', namespace=f'/caption_ros_bench_{os.getpid()}',
                                 context=context)
        try:
            yield Loopback(node)
        finally:
            with ending():
                node.destroy_node()
    finally:
        with ending():
            context.try_shutdown()
