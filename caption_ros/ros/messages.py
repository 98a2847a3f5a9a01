# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From the core's arrays and captions to ROS messages."""

from __future__ import annotations

import array
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from caption_ros.caption import Caption
from caption_ros.cdr import is_plain_cdr, read_compressed_image, read_image
from caption_ros.message import stamp_to_ns
from caption_ros.record import caption_record, caption_text


def image_from_bytes(serialized: bytes | memoryview, kind: Any) -> Any:
    """Read a serialized image with the fields of its message; its data is not copied.

    Args:
        serialized: As the middleware delivers it.
        kind: sensor_msgs Image or CompressedImage.

    Raises:
        ImageFormatError: If it is cut off.
    """
    if not is_plain_cdr(serialized):
        return deserialize_message(bytes(serialized), kind)
    return (read_compressed_image if kind is CompressedImage else read_image)(serialized)


def header_msg(header: Any) -> Header:
    """Return a header, whoever read it, as a message."""
    return Header(stamp=Time(sec=header.stamp.sec, nanosec=header.stamp.nanosec),
                  frame_id=header.frame_id)


def msg_from_array(pixels: npt.NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """Make an image message of (H, W) or (H, W, C) uint8 pixels."""
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1],
                    encoding=encoding, is_bigendian=0,
                    step=pixels.size // max(pixels.shape[0], 1))
    # Anything but array.array goes through a slow check of every element.
    message.data = array.array('B', pixels.tobytes())
    return message


def captions_to_msgs(
    captions: Sequence[Caption], header: Any, *, model: str, latency_s: float, age_s: float,
) -> tuple[String, String]:
    """Make the messages of the ``caption`` and ``captions`` topics.

    Args:
        captions: Captions of one frame, at least one.
        header: Header of the frame's image; its stamp and frame_id are passed on.
        model: Name of the model.
        latency_s: From the moment the frame was taken up to its captions, seconds.
        age_s: From the image's stamp to now by the node's clock, seconds.
    """
    record = caption_record(captions, stamp_ns=stamp_to_ns(header.stamp),
                            frame_id=header.frame_id, model=model, latency_s=latency_s,
                            age_s=age_s)
    return (String(data=caption_text(captions)),
            String(data=json.dumps(record, ensure_ascii=False)))
