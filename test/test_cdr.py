# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Serialized images are read as the middleware wrote them, and never past their end."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from caption_ros.cdr import is_plain_cdr, read_compressed_image, read_image
from caption_ros.errors import ImageFormatError
from caption_ros.message import image_from_msg, labels_from_msg

TYPES = get_typestore(Stores.ROS2_HUMBLE)


def serialized(kind, little_endian=True, sec=-3, nanosec=999_999_999, frame_id='camera', **fields):
    header = TYPES.types['std_msgs/msg/Header'](
        stamp=TYPES.types['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec),
        frame_id=frame_id)
    name = f'sensor_msgs/msg/{kind}'
    return bytes(TYPES.serialize_cdr(TYPES.types[name](header=header, **fields), name,
                                     little_endian=little_endian))


def image(pixels, encoding='rgb8', **fields):
    return serialized('Image', height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                      is_bigendian=0, step=pixels.nbytes // pixels.shape[0],
                      data=pixels.reshape(-1), **fields)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.integers(-2**31, 2**31 - 1), st.integers(0, 2**32 - 1),
       st.text(st.characters(blacklist_characters='\0', blacklist_categories=['Cs']), max_size=9),
       st.integers(1, 5), st.integers(1, 5))
def test_an_image_reads_as_it_was_written(little_endian, sec, nanosec, frame_id, height, width):
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    raw = image(pixels, little_endian=little_endian, sec=sec, nanosec=nanosec, frame_id=frame_id)
    message = read_image(raw)
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (sec, nanosec)
    assert message.header.frame_id == frame_id
    assert (message.height, message.width, message.encoding, message.is_bigendian,
            message.step) == (height, width, 'rgb8', 0, width * 3)
    assert image_from_msg(message).tolist() == pixels.tolist()


def test_pixels_are_those_of_the_message_itself():
    raw = image(np.full((4, 5, 3), 7, np.uint8))
    assert np.shares_memory(image_from_msg(read_image(raw)), np.frombuffer(raw, np.uint8))


def test_a_mask_and_a_compressed_image_are_read_too():
    labels = np.array([[0, 300], [2, 65535]], np.uint16)
    raw = serialized('Image', height=2, width=2, encoding='mono16', is_bigendian=0, step=4,
                     data=labels.reshape(-1).view(np.uint8))
    assert labels_from_msg(read_image(raw)).tolist() == labels.tolist()
    raw = serialized('CompressedImage', format='bgr8; jpeg',
                     data=np.array([255, 216, 9], np.uint8))
    message = read_compressed_image(raw)
    assert (message.format, bytes(message.data)) == ('bgr8; jpeg', b'\xff\xd8\x09')
    assert message.header.frame_id == 'camera'


@pytest.mark.parametrize('read', [read_image, read_compressed_image])
def test_a_message_cut_anywhere_is_refused(read):
    raw = image(np.zeros((2, 2, 3), np.uint8)) if read is read_image else serialized(
        'CompressedImage', format='png', data=np.zeros(5, np.uint8))
    for end in range(4, len(raw)):
        with pytest.raises(ImageFormatError, match='too early; correct the publisher'):
            read(raw[:end])


def test_a_length_beyond_the_end_takes_no_memory():
    raw = bytearray(image(np.zeros((1, 1, 3), np.uint8)))
    raw[-7:-3] = struct.pack('<I', 2**32 - 1)
    with pytest.raises(ImageFormatError, match='ends 4294967292 bytes too early'):
        read_image(bytes(raw))


def test_another_way_of_writing_is_not_guessed_at():
    raw = b'\x00\x07' + image(np.zeros((1, 1, 3), np.uint8))[2:]
    assert not is_plain_cdr(raw) and is_plain_cdr(b'\x00\x01\x00\x00')
    with pytest.raises(ImageFormatError, match="begins with '0007', wanted plain CDR"):
        read_image(raw)

