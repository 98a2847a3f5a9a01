# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image messages of a recording to arrays, without any ROS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.typesys import Stores, get_typestore

from caption_ros.bags.files import Message, one_line
from caption_ros.errors import ImageFormatError
from caption_ros.image import (
    labels_from_compressed,
    labels_from_raw,
    rgb_from_compressed,
    rgb_from_raw,
)

RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'


@lru_cache(maxsize=1)
def ros2_types() -> Any:
    """Return the types of the newest ROS 2; image messages are the same in all of them."""
    return get_typestore(Stores.LATEST)


def parse(message: Message) -> Any:
    """Return the fields of an image message.

    Raises:
        ImageFormatError: If its bytes are no such message.
    """
    try:
        return ros2_types().deserialize_cdr(message.data, message.topic.msgtype)
    except Exception as error:  # noqa: BLE001 - damaged bytes raise whatever they hit first
        raise ImageFormatError(f'message of {len(message.data)} bytes is no '
                               f'{message.topic.msgtype}: {one_line(error)}') from error


def stamp_ns(fields: Any) -> int:
    """Return the stamp of a message's header in nanoseconds."""
    return int(fields.header.stamp.sec) * 1_000_000_000 + int(fields.header.stamp.nanosec)


def rgb_of(fields: Any) -> npt.NDArray[np.uint8]:
    """Convert an image message to RGB, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is no picture or its size does not match its data.
    """
    if hasattr(fields, 'format'):
        return rgb_from_compressed(fields.data, fields.format)
    return rgb_from_raw(fields.data, height=fields.height, width=fields.width, step=fields.step,
                        encoding=fields.encoding, is_bigendian=bool(fields.is_bigendian))


def labels_of(fields: Any) -> npt.NDArray[np.integer]:
    """Convert a mask message to a label image, shape (H, W), integer, 0 background.

    Raises:
        ImageFormatError: If it holds no labels or its size does not match its data.
    """
    if hasattr(fields, 'format'):
        return labels_from_compressed(fields.data)
    return labels_from_raw(fields.data, height=fields.height, width=fields.width,
                           step=fields.step, encoding=fields.encoding,
                           is_bigendian=bool(fields.is_bigendian))
