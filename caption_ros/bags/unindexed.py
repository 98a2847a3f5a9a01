# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""mcap files without a summary, read from front to back: what a recorder that died leaves.

Everything up to the torn end is read, and a damaged chunk costs its own messages only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag2.metadata import parse_qos

_MAGIC = b'\x89MCAP0\r\n'
_FOOTER_BYTES = 37  # opcode, length, start of the summary, two more numbers, magic


class _Survey(NamedTuple):
    connections: list[Connection]
    start_ns: int
    end_ns: int
    damage: tuple[str, ...]


def has_summary(path: Path) -> bool:
    """Tell whether an mcap file was finished with a summary, which other readers need.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open('rb') as file:
        if file.seek(0, os.SEEK_END) < _FOOTER_BYTES:
            return False
        file.seek(-_FOOTER_BYTES, os.SEEK_END)
        footer = file.read()
    return footer[:1] == b'\x02' and footer.endswith(_MAGIC) and any(footer[9:17])


class UnindexedReader:
    """An mcap file with the interface of rosbags' rosbag2 reader, but for order.

    Messages come as they were recorded, sorted within a chunk only.

    Attributes:
        connections: Topics.
        start_time: First time of receipt, nanoseconds.
        end_time: Last time of receipt and one more, nanoseconds.
        message_count: Messages that can be read.
        damage: What is wrong with the file.
    """

    def __init__(self, path: Path, why: str = '') -> None:
        self._path = path
        self.damage: tuple[str, ...] = (why,) if why else ()

    def open(self) -> None:
        """Look through the file.

        Raises:
            ValueError: If it is no mcap file of ROS 2 or nothing of it can be read.
        """
        status = self._path.stat()
        found = _survey(self._path, status.st_size, status.st_mtime_ns)
        self.connections, self.start_time, self.end_time, damage = found
        self.damage += damage
        self.message_count = sum(connection.msgcount for connection in self.connections)
        if self.damage and not self.message_count:
            raise ValueError(f'{self.damage[0]}, and no message in it can be read')

    def close(self) -> None:
        """Do nothing: the file is open while messages are read only."""

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time of receipt in nanoseconds and CDR bytes."""
        wanted = {connection.id: connection for connection in connections}
        for message in _read(self._path, {}, {}, []):
            if message.channel_id in wanted:
                yield wanted[message.channel_id], message.log_time, message.data


@lru_cache(maxsize=64)
def _survey(path: Path, size_bytes: int, changed_ns: int) -> _Survey:
    counts: Counter[int] = Counter()
    schemas: dict[int, Any] = {}
    channels: dict[int, Any] = {}
    damage: list[str] = []
    start_ns, end_ns = 2 ** 63 - 1, 0
    for message in _read(path, schemas, channels, damage):
        counts[message.channel_id] += 1
        start_ns, end_ns = min(start_ns, message.log_time), max(end_ns, message.log_time + 1)
    connections = [_connection(channel, schemas.get(channel.schema_id), counts[channel.id])
                   for channel in channels.values()]
    return _Survey(connections, start_ns, end_ns, tuple(damage))


def _read(path: Path, schemas: dict[int, Any], channels: dict[int, Any],
          damage: list[str]) -> Iterator[Any]:
    """Yield the messages of a file; fill the schemas, the channels and what is wrong."""
    from mcap.exceptions import EndOfFile, RecordLengthLimitExceeded
    from mcap.records import Chunk, Footer, Header
    from mcap.stream_reader import StreamReader, breakup_chunk

    with path.open('rb') as file:
        # No record is longer than the file: a damaged length takes no memory.
        records = StreamReader(file, emit_chunks=True,
                               record_size_limit=path.stat().st_size).records
        record = None
        while not isinstance(record, Footer):
            try:
                record = next(records)
            except Exception as error:  # noqa: BLE001 - damaged bytes raise what they hit first
                is_cut = isinstance(error, EndOfFile | RecordLengthLimitExceeded)
                if record is None and not is_cut:
                    raise
                damage.append('it was not finished when it was recorded, or cut later' if is_cut
                              else f'its rest is broken: {" ".join(str(error).split())}')
                return
            if isinstance(record, Header) and record.profile != 'ros2':
                raise ValueError(f'its profile is {record.profile!r}, wanted ros2')
            try:
                inner = (breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk)
                         else [record])
            except Exception as error:  # noqa: BLE001 - as above
                damage.append(f'a chunk is broken: {" ".join(str(error).split())}')
                continue
            yield from _messages(inner, schemas, channels)


def _messages(records: list[Any], schemas: dict[int, Any],
              channels: dict[int, Any]) -> Iterator[Any]:
    from mcap.records import Channel, Message, Schema

    messages = []
    for record in records:
        if isinstance(record, Schema):
            schemas.setdefault(record.id, record)
        elif isinstance(record, Channel):
            channels.setdefault(record.id, record)
        elif isinstance(record, Message):
            messages.append(record)
    yield from sorted(messages, key=lambda message: message.log_time)


def _connection(channel: Any, schema: Any, count: int) -> Connection:
    qos = channel.metadata.get('offered_qos_profiles', '')
    formats = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
    kind = formats.get(schema and schema.encoding, MessageDefinitionFormat.NONE)
    definition = MessageDefinition(kind, schema.data.decode('utf-8', 'replace')
                                   if schema and schema.encoding in formats else '')
    return Connection(
        channel.id, channel.topic, '__schemaless__' if schema is None else schema.name,
        definition, '', count,
        ConnectionExtRosbag2(channel.message_encoding, parse_qos(qos) if qos else []), None)
