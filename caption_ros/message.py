# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image messages to arrays, whoever read them: rclpy or a library for recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.image import (
    labels_from_compressed,
    labels_from_raw,
    rgb_from_compressed,
    rgb_from_raw,
)


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def image_from_msg(message: Any) -> npt.NDArray[np.uint8]:
    """Convert a sensor_msgs/Image or CompressedImage to RGB, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is no picture or its size does not match its data.
    """
    if hasattr(message, 'format'):
        return rgb_from_compressed(message.data, message.format)
    return rgb_from_raw(message.data, height=message.height, width=message.width,
                        step=message.step, encoding=message.encoding,
                        is_bigendian=bool(message.is_bigendian))


def labels_from_msg(message: Any) -> npt.NDArray[np.integer]:
    """Convert a mask message to a label image, shape (H, W), integer, 0 background.

    Raises:
        ImageFormatError: If it holds no labels or its size does not match its data.
    """
    if hasattr(message, 'format'):
        return labels_from_compressed(message.data)
    return labels_from_raw(message.data, height=message.height, width=message.width,
                           step=message.step, encoding=message.encoding,
                           is_bigendian=bool(message.is_bigendian))
