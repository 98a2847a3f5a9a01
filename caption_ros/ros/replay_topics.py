# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recorded topics as ROS publishers: type and QoS of the recording, bytes as they were."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

from caption_ros.bags.files import Topic, one_line
from caption_ros.ros.layout import installed_layout, recorded_layout

_TYPE = re.compile(r'([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)')
_LEAST_DEPTH, _MOST_DEPTH = 10, 1000
_MOST_NS = 2 ** 63 - 1


class NotPlayable(Exception):
    """A topic that cannot be published here; the text says why."""


def make_publisher(node: Node, topic: Topic) -> Any:
    """Return a publisher that takes the recorded bytes of a topic.

    Raises:
        NotPlayable: If its type is not installed or is another one here, or its name is none in
            ROS 2.
    """
    if topic.serialization != 'cdr':
        raise NotPlayable(f'its serialization is {topic.serialization}, wanted cdr')
    kind = message_type(topic.msgtype)
    try:
        publisher = node.create_publisher(kind, topic.name, publisher_qos(topic.qos))
    except InvalidTopicNameException as error:
        raise NotPlayable(one_line(error).split(':')[0]) from error
    except RuntimeError as error:  # the middleware refuses two types on one topic
        raise NotPlayable(one_line(error)) from error
    here = _type_hash(node, publisher)
    if topic.type_hash and here and topic.type_hash != here and not _is_same(topic, kind):
        node.destroy_publisher(publisher)
        raise NotPlayable(f'{topic.msgtype} was recorded with another definition than the '
                          'installed one')
    return publisher


def message_type(name: str) -> Any:
    """Return the installed message class of a type name such as sensor_msgs/msg/Image.

    Only packages of generated messages are imported, whatever a recording names.

    Raises:
        NotPlayable: If it is not installed.
    """
    found = _TYPE.fullmatch(name)
    spec = found and importlib.util.find_spec(found[1])
    folders = (spec.submodule_search_locations if spec else None) or ()
    is_generated = any(any(Path(folder).glob('*__rosidl_typesupport_c*')) for folder in folders)
    kind = None
    if found and is_generated:
        kind = getattr(importlib.import_module(f'{found[1]}.msg'), found[2], None)
    if kind is None:
        raise NotPlayable(f'{name} is not installed')
    return kind


def publisher_qos(offered: Sequence[Any]) -> QoSProfile:
    """Return a QoS that gives every subscription what it got while the recording was made.

    Where several publishers offered different QoS, the strongest of each is offered: it matches
    whoever matched any of them.

    Args:
        offered: Recorded profiles, of rosbags.interfaces.Qos; none for an old recording.
    """
    if not offered:
        return QoSProfile(depth=_LEAST_DEPTH)
    one = offered[0]
    is_reliable = any(qos.reliability.name != 'BEST_EFFORT' for qos in offered)
    profile = QoSProfile(
        depth=min(max(_LEAST_DEPTH, sum(qos.depth for qos in offered)), _MOST_DEPTH),
        reliability=(ReliabilityPolicy.RELIABLE if is_reliable
                     else ReliabilityPolicy.BEST_EFFORT),
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if is_latched(offered)
                    else DurabilityPolicy.VOLATILE),
        liveliness=LivelinessPolicy.AUTOMATIC)
    if all(qos == one for qos in offered):
        profile.deadline = _duration(one.deadline)
        profile.lifespan = _duration(one.lifespan)
    return profile


def is_latched(offered: Sequence[Any]) -> bool:
    """Tell whether late subscriptions get the last messages too."""
    return any(qos.durability.name == 'TRANSIENT_LOCAL' for qos in offered)


def _duration(time: Any) -> Duration:
    return Duration(nanoseconds=min(time.sec * 10 ** 9 + time.nsec, _MOST_NS))


def _is_same(topic: Topic, kind: Any) -> bool:
    """Tell whether a recorded definition puts the same bytes as the installed class."""
    try:
        return recorded_layout(topic.msgtype, topic.definition) == installed_layout(
            kind, message_type)
    except Exception:  # noqa: BLE001 - of a definition that rosbags cannot read nothing is known
        return False


def _type_hash(node: Node, publisher: Any) -> str:
    """Return the hash of the installed type; empty where ROS does not tell (before Iron)."""
    for info in node.get_publishers_info_by_topic(publisher.topic_name):
        if info.node_name == node.get_name():
            return str(getattr(info, 'topic_type_hash', ''))
    return ''
