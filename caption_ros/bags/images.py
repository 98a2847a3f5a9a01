# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image messages of a recording, from their bytes, without any ROS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rosbags.typesys import Stores, get_typestore

from caption_ros.bags.files import Message, one_line
from caption_ros.errors import ImageFormatError
from caption_ros.message import stamp_to_ns

RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
_LATEST_NS = 2 ** 31 * 10 ** 9  # seconds of a stamp are an int32


@lru_cache(maxsize=1)
def ros2_types() -> Any:
    """Return the types of the newest ROS 2; image messages are the same in all of them."""
    return get_typestore(Stores.LATEST)


def parse(message: Message) -> Any:
    """Return the fields of an image message.

    Raises:
        ImageFormatError: If it is of another type or its bytes are no such message.
    """
    if message.topic.msgtype not in (RAW, COMPRESSED):  # a name can have several types
        raise ImageFormatError(f'message is a {message.topic.msgtype}, wanted {RAW} or '
                               f'{COMPRESSED}')
    try:
        fields = ros2_types().deserialize_cdr(message.data, message.topic.msgtype)
    except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever they hit first
        raise ImageFormatError(f'message of {len(message.data)} bytes is no '
                               f'{message.topic.msgtype}: {one_line(error)}') from error
    if stamp_to_ns(fields.header.stamp) >= _LATEST_NS:
        raise ImageFormatError(f'stamp of {fields.header.stamp.sec} s and '
                               f'{fields.header.stamp.nanosec} ns is later than a stamp can be')
    return fields
