# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS 1 bags, read as if they were ROS 2: CDR messages of ROS 2 types.

Types that ROS 2 has too become those, with fields matched by name as rosbags-convert does it;
others keep their own definition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.convert.converter import (
    LATCH,
    STATIC_MSGTYPE_RENAMES,
    is_same_wireformat,
    migrate_bytes,
)
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag1 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore


class Ros1Reader:
    """A ROS 1 bag with the interface of rosbags' rosbag2 reader."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self.connections: list[Connection] = []
        self._inner: dict[int, Connection] = {}
        self._convert: dict[str, Callable[[bytes], Any]] = {}
        self._old = get_typestore(Stores.EMPTY)
        self._new = get_typestore(Stores.LATEST)

    def open(self) -> None:
        """Open the bag and plan the conversion of its types."""
        self._reader.open()
        try:
            for connection in self._reader.connections:
                self._old.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
            for connection in self._reader.connections:
                self._add(connection)
            self.start_time, self.end_time = self._reader.start_time, self._reader.end_time
            self.message_count = self._reader.message_count
        except BaseException:
            self._reader.close()
            raise

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def messages(self, connections: Collection[Connection]) -> Iterator[tuple[Any, int, bytes]]:
        """Yield connection, time of receipt in nanoseconds and bytes as they are in the bag."""
        outer = {connection.id: connection for connection in connections}
        inner = [self._inner[identity] for identity in outer]
        for connection, received_ns, data in self._reader.messages(inner):
            yield outer[connection.id], received_ns, data

    def to_cdr(self, connection: Connection, data: bytes) -> bytes:
        """Return the CDR bytes of a message of a connection; what is damaged raises anything."""
        return bytes(self._convert[self._inner[connection.id].msgtype](data))

    def _add(self, connection: Connection) -> None:
        old = connection.msgtype
        new = STATIC_MSGTYPE_RENAMES.get(old, old)
        if new not in self._new.fielddefs:
            types = get_types_from_msg(self._old.generate_msgdef(old, ros_version=2)[0], new)
            types.pop('std_msgs/msg/Header', None)
            self._new.register(types)
        if old not in self._convert:
            self._convert[old] = (
                partial(self._new.ros1_to_cdr, typename=new)
                if is_same_wireformat(self._old, self._new, old, new) else
                partial(migrate_bytes, self._old, self._new, old, new, {}, src_is2=False,
                        dst_is2=True))
        self._inner[connection.id] = connection
        definition = MessageDefinition(MessageDefinitionFormat.MSG,
                                       self._new.generate_msgdef(new, ros_version=2)[0])
        qos = LATCH if getattr(connection.ext, 'latching', 0) else []
        self.connections.append(Connection(
            connection.id, connection.topic, new, definition, self._new.hash_rihs01(new),
            connection.msgcount, ConnectionExtRosbag2('cdr', qos), self))
