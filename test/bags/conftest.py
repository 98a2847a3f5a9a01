# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings written with rosbags, and a captioner that answers at once by the pixels."""

from __future__ import annotations

import contextlib
import hashlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from caption_ros.caption import Caption
from caption_ros.errors import CaptionError
from caption_ros.scenes import TabletopStream

START_NS = 1_480_227_350_196_105_142  # no float holds it
STEP_NS = 100_000_000
SIZE = (240, 320)
TYPES = get_typestore(Stores.LATEST)
_FOREVER = QosTime(9223372036, 854775807)
BEST_EFFORT = Qos(QosHistory.KEEP_LAST, 5, QosReliability.BEST_EFFORT, QosDurability.VOLATILE,
                  _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False)


class PixelCaptioner:
    """Says the mean brightness of what it looks at; fails where it is told to."""

    name, family, focus_modes, device, dtype = 'pixels', 'fake', ('alpha',), 'cpu', 'float32'

    def __init__(self, fails_at=()):
        self.calls, self.fails_at = 0, fails_at

    def caption(self, rgb, regions, options):
        self.calls += 1
        if self.calls - 1 in self.fails_at:
            raise CaptionError('model pixels failed')
        return [Caption(f'all of {rgb.mean():.3f}', 0.5, 'none', None) if region is None else
                Caption(f'{region.label} of {rgb[region.full_mask()].mean():.3f}', 0.5, 'alpha',
                        region) for region in regions]

    def close(self):
        pass


@pytest.fixture
def pixels():
    return PixelCaptioner()


def header(stamp_ns, frame_id='camera'):
    return TYPES.types['std_msgs/msg/Header'](
        TYPES.types['builtin_interfaces/msg/Time'](stamp_ns // 10 ** 9, stamp_ns % 10 ** 9),
        frame_id)


def image(pixels, stamp_ns, encoding=None):
    kind = 'sensor_msgs/msg/Image'
    encoding = encoding or ('rgb8' if pixels.ndim == 3 else 'mono8')
    message = TYPES.types[kind](
        header(stamp_ns), pixels.shape[0], pixels.shape[1], encoding, 0,
        pixels.strides[0], np.frombuffer(pixels.tobytes(), np.uint8))
    return kind, bytes(TYPES.serialize_cdr(message, kind))


def jpeg(rgb, stamp_ns):
    kind = 'sensor_msgs/msg/CompressedImage'
    data = cv2.imencode('.jpg', rgb[..., ::-1])[1].ravel()
    return kind, bytes(TYPES.serialize_cdr(
        TYPES.types[kind](header(stamp_ns), 'jpeg', data), kind))


def text(words):
    kind = 'std_msgs/msg/String'
    return kind, bytes(TYPES.serialize_cdr(TYPES.types[kind](data=words), kind))


def write_bag(path, messages, storage='sqlite3', compress=None):
    """Write (topic, received_ns, (type, bytes)) to a rosbag2 folder."""
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if compress:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode
        writer.set_compression(CompressionMode[compress.upper()], CompressionFormat.ZSTD)
    with writer:
        topics = {}
        for name, received_ns, (kind, data) in messages:
            if (name, kind) not in topics:
                topics[name, kind] = writer.add_connection(
                    name, kind, typestore=TYPES, offered_qos_profiles=[BEST_EFFORT])
            writer.write(topics[name, kind], received_ns, data)
    return path


def plain_mcap(path, messages, *, is_finished=True, schemas=None, **options):
    """Write an mcap file with mcap's own writer; schemas are (encoding, bytes) by type."""
    writer_module = pytest.importorskip('mcap.writer')
    with path.open('wb') as file:
        writer = writer_module.Writer(file, **options)
        writer.start('ros2', 'test')
        topics = {}
        for name, received_ns, (kind, data) in messages:
            if (name, kind) not in topics:
                encoding, definition = (schemas or {}).get(kind) or (
                    'ros2msg', TYPES.generate_msgdef(kind, ros_version=2)[0].encode())
                schema = writer.register_schema(kind, encoding, definition) if encoding else 0
                topics[name, kind] = writer.register_channel(
                    name, 'cdr' if encoding == 'ros2msg' else encoding or 'json', schema)
            writer.add_message(topics[name, kind], received_ns, data, received_ns)
        if is_finished:
            writer.finish()
    return path


def camera(count, *, masks=False, topic='/cam/image', mask_topic='/cam/mask', seed=3):
    """Messages of a camera, odometry-like texts between, and masks that come 0.3 s later."""
    stream = TabletopStream(seed, SIZE[1], SIZE[0])
    messages = []
    for index in range(count):
        frame, now_ns = stream.frame(index), START_NS + index * STEP_NS
        stamp_ns = now_ns - 5_000_000
        messages.append((topic, now_ns, image(frame.rgb, stamp_ns)))
        messages.append(('/odometry', now_ns + 1000, text(f'odometry {index}')))
        if masks:
            messages.append((mask_topic, now_ns + 300_000_000, image(frame.labels, stamp_ns)))
    return sorted(messages, key=lambda message: message[1])


def read(path):
    """Read with rosbags' own reader: (topic, received_ns, type, QoS, bytes) of each message."""
    from rosbags.highlevel import AnyReader
    with AnyReader([path]) as reader:
        return [(connection.topic, received_ns, connection.msgtype,
                 tuple(connection.ext.offered_qos_profiles), bytes(data))
                for connection, received_ns, data in reader.messages()]


def said(path, topic='/captions'):
    """Return (received_ns, text) of the messages of a topic of texts."""
    return [(received_ns, TYPES.deserialize_cdr(data, kind).data)
            for name, received_ns, kind, _, data in read(path) if name == topic]


@contextlib.contextmanager
def untouched(path):
    """Check that a recording is the same afterwards, to the byte and the time of its change."""
    def state():
        files = [path] if path.is_file() else sorted(path.rglob('*'))
        return [(file, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
                for file in files]
    before = state()
    yield
    assert state() == before


@pytest.fixture
def bags():
    return SimpleNamespace(camera=camera, write=write_bag, read=read, said=said, image=image,
                           jpeg=jpeg, text=text, header=header, types=TYPES, start_ns=START_NS,
                           step_ns=STEP_NS, size=SIZE, captioner=PixelCaptioner,
                           plain_mcap=plain_mcap, untouched=untouched)
