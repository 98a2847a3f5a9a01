# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A subscription that asks for the reliability that the publishers offer.

A best-effort subscription to a reliable publisher loses large images that a reliable one would
get, and a reliable subscription to a best-effort publisher gets nothing; rosbag2 and
``ros2 topic echo`` follow the publisher for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from caption_ros.ros.reader import Reader

_DEPTH = 10
_PUBLISHERS = 64  # whose last numbers are remembered
_MOST_LOST = 1_000_000  # at once; Fast DDS tells of 2**31 and more where one was lost


class FollowingSubscription:
    """Subscribes best effort until all publishers of the topic offer reliable.

    Args:
        node: Node that subscribes.
        message_type: Type of the messages.
        topic: Topic name, remapped as usual.
        callback: Takes each message, on the reader's thread.
        on_lost: Takes the number of messages that the transport lost since the last call.
        reader: Takes the messages.
        raw: Hand the serialized bytes on instead of a message.
        on_missed: Takes the number of messages that are missing before one that comes, lost or
            replaced by newer ones before they were read, by the numbers of their publisher; on
            the reader's thread. Not known of every middleware.

    Attributes:
        topic: The topic, remapped.
        type: Name of the type of its messages, such as sensor_msgs/msg/Image.
        reliable: Whether it asks for reliable.
        publishers: Publishers of its type on the topic.
        best_effort_publishers: Those of them that offer best effort.
        other_types: Names of the types that others publish there; nothing of these arrives.
    """

    def __init__(self, node: Node, message_type: Any, topic: str,
                 callback: Callable[[Any], None], on_lost: Callable[[int], None],
                 reader: Reader, *, raw: bool = False,
                 on_missed: Callable[[int], None] = lambda count: None) -> None:
        self._node = node
        self._message_type = message_type
        self._callback = callback
        self._on_lost = on_lost
        self._on_missed = on_missed
        self._numbers: dict[bytes, int] = {}  # of the last message, by publisher
        self._reader = reader
        self._raw = raw
        self._topic = topic
        self._subscription: Any = None
        self.topic = node.resolve_topic_name(topic)
        self.reliable = False
        self.publishers = 0
        self.best_effort_publishers = 0
        self.other_types: tuple[str, ...] = ()
        self.type = _name_of(message_type)
        self.follow()

    def follow(self) -> None:
        """Look at the publishers and subscribe anew when they call for it."""
        # By the plain name: this call remaps it, and a remapped one may be remapped once more.
        found = self._node.get_publishers_info_by_topic(self._topic)
        offers = [info.qos_profile.reliability for info in found
                  if info.topic_type == self.type]
        self.other_types = tuple(sorted({info.topic_type for info in found} - {self.type}))
        if self.publishers != len(offers):
            self._numbers.pop(b'', None)
        self.publishers = len(offers)
        self.best_effort_publishers = sum(offer != ReliabilityPolicy.RELIABLE for offer in offers)
        wanted = bool(offers) and not self.best_effort_publishers
        if self._subscription is None or (offers and wanted != self.reliable):
            self.close()
            self.reliable = wanted
            self._subscription = self._subscribe()
            self._numbers.clear()
            self._reader.add(self._subscription, self._on_message)

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._reader.remove(self._subscription)
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_message(self, message: Any, info: dict[str, Any]) -> None:
        missed = self._passed_over(info)
        if missed:
            self._on_missed(missed)
        self._callback(message)

    def _on_message_lost(self, count: int) -> None:
        if 0 < count <= _MOST_LOST:
            self._on_lost(count)

    def _passed_over(self, info: dict[str, Any]) -> int:
        """Return how many messages of its publisher came between this one and the last."""
        number = info.get('publication_sequence_number')
        publisher = info.get('publisher_gid')  # Jazzy does not tell
        if number is None or (publisher is None and self.publishers != 1):
            return 0
        name = b'' if publisher is None else publisher['data']
        last = self._numbers.pop(name, number - 1)
        self._numbers[name] = number
        if len(self._numbers) > _PUBLISHERS:
            del self._numbers[next(iter(self._numbers))]
        return max(number - last - 1, 0)

    def _subscribe(self) -> Any:
        qos = QoSProfile(depth=_DEPTH, reliability=(
            ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT))
        try:
            return self._node.create_subscription(
                self._message_type, self._topic, self._no_executor, qos,
                callback_group=self._reader.group, raw=self._raw,
                event_callbacks=SubscriptionEventCallbacks(
                    message_lost=lambda event: self._on_message_lost(event.total_count_change)))
        except UnsupportedEventTypeError:  # of a middleware that does not count losses
            return self._node.create_subscription(
                self._message_type, self._topic, self._no_executor, qos,
                callback_group=self._reader.group, raw=self._raw)

    def _no_executor(self, message: Any) -> None:
        """Stand where rclpy wants a callback; the reader's group keeps executors away."""


def _name_of(message_type: Any) -> str:
    """Return a message type's name as the graph has it, such as sensor_msgs/msg/Image."""
    package, _, _ = message_type.__module__.partition('.')
    return f'{package}/msg/{message_type.__name__}'


def compressed_topic(node: Node, base: str = 'image') -> str:
    """Return the compressed topic of an image topic.

    It follows a remapping of the image topic, as with image_transport, unless it is remapped
    itself.
    """
    name = f'{base}/compressed'
    if node.resolve_topic_name(name) != node.resolve_topic_name(name, only_expand=True):
        return name
    return f'{node.resolve_topic_name(base)}/compressed'
