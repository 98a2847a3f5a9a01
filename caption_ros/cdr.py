# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image messages as views of their serialized bytes, without a copy of the pixels.

rclpy copies a camera's image into an array of its own on the thread that all subscriptions
share, also of images that are replaced by newer ones before anybody looks at them. Here the
header is read at once and the pixels stay where they are.

References:
    OMG Data Distribution Service Interoperability Wire Protocol (RTPS) 2.5, section 10: CDR.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from caption_ros.errors import ImageFormatError

_ENCAPSULATION = 4  # bytes before the message: how it is written
_ORDERS = {b'\x00\x00': '>', b'\x00\x01': '<'}  # plain CDR, big-endian and little-endian


@dataclass(frozen=True)
class Stamp:
    """A builtin_interfaces/Time: sec, int32, and nanosec, uint32."""

    sec: int
    nanosec: int


@dataclass(frozen=True)
class ImageHeader:
    """A std_msgs/Header."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True, eq=False)
class RawImage:
    """A sensor_msgs/Image; ``data`` is a view of the serialized message."""

    header: ImageHeader
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True, eq=False)
class CompressedImage:
    """A sensor_msgs/CompressedImage; ``data`` is a view of the serialized message."""

    header: ImageHeader
    format: str
    data: memoryview


def is_plain_cdr(serialized: bytes | memoryview) -> bool:
    """Tell whether a message is written in the way that is read here, as all of ROS 2's are."""
    return bytes(serialized[:2]) in _ORDERS


def read_image(serialized: bytes | memoryview) -> RawImage:
    """Read a serialized sensor_msgs/Image.

    Raises:
        ImageFormatError: If it ends before the message does.
    """
    reader = _Reader(serialized)
    return RawImage(reader.header(), reader.uint32(), reader.uint32(), reader.text(),
                    reader.uint8(), reader.uint32(), reader.sequence())


def read_compressed_image(serialized: bytes | memoryview) -> CompressedImage:
    """Read a serialized sensor_msgs/CompressedImage.

    Raises:
        ImageFormatError: If it ends before the message does.
    """
    reader = _Reader(serialized)
    return CompressedImage(reader.header(), reader.text(), reader.sequence())


class _Reader:
    """Reads one field after the other."""

    def __init__(self, serialized: bytes | memoryview) -> None:
        if not is_plain_cdr(serialized):
            raise ImageFormatError(f'message of {len(serialized)} bytes begins with '
                                   f'{bytes(serialized[:2]).hex()!r}, wanted plain CDR; '
                                   'use another middleware for the publisher')
        order = _ORDERS[bytes(serialized[:2])]
        self._view = memoryview(serialized)[_ENCAPSULATION:]
        self._int32, self._uint32 = struct.Struct(f'{order}i'), struct.Struct(f'{order}I')
        self._at = 0

    def header(self) -> ImageHeader:
        return ImageHeader(Stamp(self._number(self._int32), self.uint32()), self.text())

    def uint8(self) -> int:
        return self._bytes(1)[0]

    def uint32(self) -> int:
        return self._number(self._uint32)

    def text(self) -> str:
        return bytes(self.sequence()).rstrip(b'\0').decode('utf-8', 'replace')

    def sequence(self) -> memoryview:
        return self._bytes(self.uint32())

    def _number(self, kind: struct.Struct) -> int:
        self._at = -(-self._at // kind.size) * kind.size  # numbers lie at multiples of their size
        return int(kind.unpack(self._bytes(kind.size))[0])

    def _bytes(self, count: int) -> memoryview:
        found = self._view[self._at:self._at + count]
        if len(found) < count:
            raise ImageFormatError(f'message of {_ENCAPSULATION + len(self._view)} bytes ends '
                                   f'{count - len(found)} bytes too early; correct the publisher')
        self._at += count
        return found
