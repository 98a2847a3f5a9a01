# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One storage file of a recording, read-only, with its damage told apart from its messages.

A damaged chunk of an mcap file costs the messages of that chunk only; elsewhere damage ends the
file. An mcap file without a usable summary or a full index is read from front to back. A database
whose recorder died is finished in a copy. Whatever a reader raises becomes a RecordingError or a
reason.
"""

from __future__ import annotations

import heapq
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from caption_ros.bags.database import finished_copy, journals_of, uri_path
from caption_ros.bags.unindexed import UnindexedReader, has_summary
from caption_ros.errors import RecordingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'  # a CDR message begins with 0
_HINTS = {
    "No module named 'mcap'": 'an mcap file without a summary needs "pip install mcap"',
    'not indexed': 'repair it with "rosbag reindex"',
    'index looks damaged': 'repair it with "rosbag reindex"',
    'disk image is malformed': 'save what is left of it with the .recover of sqlite3',
}
_LATEST_NS = 2 ** 63 - 1
_MOST_MESSAGE_BYTES = 1 << 30  # unpacked: a few bytes of zstd can claim any size


@dataclass(frozen=True)
class Topic:
    """A topic of a recording as one publisher offered it.

    Attributes:
        name: Name, with or without leading slash, as recorded.
        msgtype: Type, such as sensor_msgs/msg/Image.
        qos: The recorded QoS profiles, of rosbags.interfaces.Qos.
        serialization: Serialization format, cdr nearly always.
        definition: Text of the type's definition; empty when the recording has none.
        type_hash: REP-2016 hash of the type; empty when the recording has none.
    """

    name: str
    msgtype: str
    qos: tuple[Any, ...] = ()
    serialization: str = 'cdr'
    definition: str = field(default='', compare=False)
    type_hash: str = field(default='', compare=False)


@dataclass(frozen=True)
class Message:
    """One message: its topic, its time of receipt in nanoseconds, and its CDR bytes."""

    topic: Topic
    received_ns: int
    data: bytes


@dataclass(frozen=True)
class Skipped:
    """Something that was left out, with the reason.

    Attributes:
        topic: Its topic; empty for a damaged file.
        received_ns: Its time of receipt, nanoseconds, or None.
        stamp_ns: Its stamp, nanoseconds, or None where that is unknown.
        reason: Why it was left out.
    """

    topic: str
    received_ns: int | None
    stamp_ns: int | None
    reason: str


OnDamage = Callable[[Skipped], None]


def printable(text: str) -> str:
    """Return a text that may hold what was recorded, without what a terminal would obey."""
    return ''.join(letter if letter.isprintable() else '?' for letter in text)


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line, its kind where it has no text."""
    text = ' '.join(str(error).split()).rstrip('.')
    for sign, hint in _HINTS.items():
        if sign in text:
            text = f'{text} ({hint})'
    return text or type(error).__name__


class BagFile:
    """An open storage file; see ``open_file``."""

    def __init__(self, reader: Any, name: str) -> None:
        self._reader = reader
        self._name = name
        self._to_cdr: Callable[[Any, bytes], bytes] = getattr(reader, 'to_cdr', _unpacked)
        self.topics = {connection.id: _topic(connection) for connection in reader.connections}
        self.counts = {connection.id: int(connection.msgcount)
                       for connection in reader.connections}
        self.start_ns = int(reader.start_time)
        self.end_ns = int(reader.end_time)
        self.message_count = int(reader.message_count)
        self.is_ordered = not isinstance(reader, UnindexedReader)
        self.damage = tuple(f'{name}: {damage}; {self.message_count} messages of it can be read'
                            for damage in getattr(reader, 'damage', ()))

    def messages(self, wanted: Collection[Topic] | None, on_damage: OnDamage,
                 ) -> Iterator[Message]:
        """Yield messages in order of receipt; None for wanted stands for all topics."""
        connections = [connection for connection in self._reader.connections
                       if wanted is None or self.topics[connection.id] in wanted]
        if not connections:
            return
        messages = self._raw(connections, on_damage)
        while True:
            try:
                connection, received_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - each storage has errors of its own
                on_damage(Skipped('', None, None, f'{self._name}: {one_line(error)}; the rest '
                                  'of this file is left out'))
                return
            topic = self.topics[connection.id]
            if not 0 <= received_ns <= _LATEST_NS:  # no storage takes both of these
                on_damage(Skipped(topic.name, None, None,
                                  f'time of receipt {received_ns} ns is out of range'))
                continue
            try:
                data = self._to_cdr(connection, data)
            except Exception as error:  # noqa: BLE001 - damaged bytes raise what they hit first
                on_damage(Skipped(topic.name, received_ns, None, f'message of {len(data)} bytes '
                                  f'cannot be unpacked: {one_line(error)}'))
                continue
            yield Message(topic, received_ns, data)

    def _raw(self, connections: list[Any], on_damage: OnDamage) -> Iterator[Any]:
        storage = getattr(self._reader, 'storage', None)
        if not getattr(storage, 'chunks', None):
            return iter(self._reader.messages(connections))
        return self._chunks(storage, {one.id: one for one in connections}, on_damage)

    def _chunks(self, storage: Any, wanted: dict[int, Any], on_damage: OnDamage) -> Iterator[Any]:
        """Merge the chunks of an mcap file as rosbags does, each with its own end."""
        from rosbags.rosbag2.storage_mcap import msgsrc

        def guarded(chunk: Any) -> Iterator[Any]:
            try:
                yield from msgsrc(chunk, wanted, 0, 1 << 64, storage.bio)
            except Exception as error:  # noqa: BLE001 - as above
                count = sum(chunk.channel_count.values())
                on_damage(Skipped('', chunk.message_start_time, None, f'{self._name}: '
                                  f'{one_line(error)}; {count} messages are left out'))

        sources = [guarded(chunk) for chunk in storage.chunks
                   if any(chunk.channel_count.get(one, 0) for one in wanted)]
        for received_ns, offset, connection, data in heapq.merge(*sources):
            if offset:  # 0 announces a chunk
                yield connection, received_ns, data


def _topic(connection: Any) -> Topic:
    return Topic(connection.topic, connection.msgtype,
                 tuple(getattr(connection.ext, 'offered_qos_profiles', ())),
                 getattr(connection.ext, 'serialization_format', 'cdr'),
                 connection.msgdef.data, connection.digest)


@contextmanager
def open_file(path: Path) -> Iterator[BagFile]:
    """Open an .mcap, .db3 or .bag file, or one of these with .zstd behind its name.

    Raises:
        RecordingError: If it is damaged from the start, or nothing of these.
    """
    with TemporaryDirectory(prefix='caption_ros_') as folder:
        plain = path
        if path.suffix == '.zstd':
            plain = Path(folder) / path.stem
            _decompress(path, plain)
        try:
            if journals := journals_of(path):
                plain = finished_copy(path, journals, Path(folder))
            reader = _opened(plain)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own
            raise RecordingError(f'{path} cannot be read as a recording: '
                                 f'{one_line(error)}') from error
        try:
            yield BagFile(reader, path.name)
        finally:
            reader.close()


def _decompress(path: Path, plain: Path) -> None:
    try:
        with zstd.open(path, 'rb') as packed, plain.open('wb') as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (zstd.ZstdError, EOFError) as error:
        raise RecordingError(f'{path} is broken or no zstd file: {one_line(error)}') from error
    except OSError as error:
        raise RecordingError(f'{path} cannot be decompressed to {plain.parent}: '
                             f'{one_line(error)}; set TMPDIR to a disk with room') from error


def _unpacked(connection: Any, data: bytes) -> bytes:
    if data[:4] != _ZSTD_MAGIC or connection.ext.serialization_format != 'cdr':
        return data
    unpacker = zstd.ZstdDecompressor()
    plain = unpacker.decompress(data, _MOST_MESSAGE_BYTES)
    if not unpacker.eof:
        raise ValueError(f'it is cut off, or larger than {_MOST_MESSAGE_BYTES >> 20} MiB')
    return plain


def _opened(path: Path) -> Any:
    reader, why = _reader(path), ''
    try:
        reader.open()
        if path.suffix != '.mcap' or isinstance(reader, UnindexedReader) or _has_index(reader):
            return reader
        reader.close()
    except Exception as error:
        if path.suffix != '.mcap' or isinstance(reader, UnindexedReader):
            raise
        if not isinstance(error, KeyError | UnicodeDecodeError):  # by schemas not of ROS
            why = 'its summary is broken'
    reader = UnindexedReader(path, why)
    reader.open()
    return reader


def _has_index(reader: Any) -> bool:
    """Tell whether rosbags finds each message of an mcap file by its index."""
    counts = [chunk.channel_count for chunk in reader.storage.chunks]
    known = {connection.id for connection in reader.connections
             if connection.msgtype != '__schemaless__'}
    return bool(counts) and all(one and known.issuperset(one) for one in counts) and (
        sum(sum(one.values()) for one in counts) == reader.message_count)


def _reader(path: Path) -> Any:
    if path.suffix == '.bag':
        from caption_ros.bags.ros1 import Ros1Reader
        return Ros1Reader(path)
    if path.suffix not in ('.mcap', '.db3'):
        raise RecordingError('wanted a rosbag2 folder, .mcap, .db3 or .bag')
    if path.stat().st_size == 0:
        raise RecordingError('it is empty (0 bytes)')
    if path.suffix == '.mcap' and not has_summary(path):
        return UnindexedReader(path)
    from rosbags.rosbag2 import Reader
    reader: Any = Reader(path)
    if path.suffix == '.db3':
        reader.storage.path = uri_path(path)
    return reader
