# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Second reading of a recording: every message as it was, and the captions between them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from caption_ros.bags.database import DatabaseWriter
from caption_ros.bags.detections import DETECTIONS, detections_bytes, vision_types
from caption_ros.bags.files import Skipped, Topic
from caption_ros.bags.frames import Numbering
from caption_ros.bags.images import ros2_types
from caption_ros.bags.journal import Journal
from caption_ros.bags.places import Places
from caption_ros.bags.recording import Recording
from caption_ros.bags.side_files import SideFiles
from caption_ros.bags.topics import Outputs
from caption_ros.errors import OutputError

_STRING = 'std_msgs/msg/String'
_NO_HASH = f'RIHS01_{"0" * 64}'
# The newest layout writes QoS in a way that ROS 2 Humble and Iron cannot read.
_BAG_VERSION: Literal[8] = 8
_FOREVER = QosTime(9223372036, 854775807)
_RELIABLE = Qos(QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.VOLATILE,
                _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False)


def write_results(recording: Recording, journal: Journal, names: dict[str, Outputs],
                  places: Places, *, captions_only: bool, with_report: bool,
                  on_skip: Callable[[Skipped], None],
                  progress: Callable[..., None] = lambda done, note='': None) -> Path:
    """Write the captioned recording and the files beside it into the work folder.

    Args:
        recording: The recording.
        journal: The captions.
        names: Topics for captions, by image topic.
        places: Where to write.
        captions_only: Leave the messages of the recording out.
        with_report: Make the page, too.
        on_skip: Takes what cannot be read.
        progress: Takes the count of messages read.

    Returns:
        The recording's path in the work folder.

    Raises:
        OutputError: If it cannot be written, or the recording has changed meanwhile.
    """
    wanted = [topic for topic in recording.topics if topic.name in names]
    bag = places.work / 'bag' / (places.out.stem if is_file(places.out) else places.out.name)
    written = 0
    with (_open(bag, storage_of(places.out, recording), recording.custom_data) as writer,
          SideFiles(places, recording, list(names), len(journal),
                    with_report=with_report) as side_files):
        copied = {} if captions_only else {
            topic: _add_topic(writer, topic) for topic in recording.topics}
        said = {image: [_add_output(writer, name, kind)
                        for name, kind in zip(outputs, (_STRING, _STRING, DETECTIONS))
                        if name is not None] for image, outputs in names.items()}
        numbering = Numbering()
        messages = recording.messages(wanted if captions_only else None, on_skip)
        for done, message in enumerate(messages, 1):
            if not captions_only:
                writer.write(copied[message.topic], message.received_ns, message.data)
            progress(done)
            if message.topic.name not in names:
                continue
            key = numbering.key(message)
            if key not in journal:
                continue
            text, record = side_files.add(message, journal.record(key))
            written += 1
            if text:
                for connection, data in zip(said[key[0]], _messages(text, record)):
                    writer.write(connection, message.received_ns, data)
    if written != len(journal):
        raise OutputError(f'{recording.path} changed while it was read ({len(journal)} frames '
                          f'were captioned, {written} found again); caption it again')
    return bag / f'{bag.name}{places.out.suffix}' if is_file(places.out) else bag


def is_file(out: Path) -> bool:
    """Tell whether OUT is one storage file; it is a rosbag2 folder otherwise."""
    return out.suffix in ('.mcap', '.db3')


def storage_of(out: Path, recording: Recording) -> StoragePlugin:
    """Return the storage by OUT's ending; a folder has that of the recording, else mcap."""
    if out.suffix == '.db3' or (out.suffix != '.mcap' and recording.storage == 'sqlite3'):
        return StoragePlugin.SQLITE3
    return StoragePlugin.MCAP


class _Writer(Writer):
    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.SQLITE3: DatabaseWriter}


@contextmanager
def _open(bag: Path, storage: StoragePlugin, custom_data: dict[str, str]) -> Iterator[Any]:
    bag.parent.mkdir(parents=True, exist_ok=True)
    with _Writer(bag, version=_BAG_VERSION, storage_plugin=storage) as writer:
        for name, value in custom_data.items():
            writer.set_custom_data(name, value)
        yield writer


def _add_topic(writer: Any, topic: Topic) -> Any:
    """Add a topic with the definition and the hash that it had, or the best there is."""
    definition, type_hash = topic.definition, topic.type_hash
    if not definition and topic.msgtype in ros2_types().fielddefs:
        definition = ros2_types().generate_msgdef(topic.msgtype, ros_version=2)[0]
    if not type_hash:
        type_hash = _type_hash(topic.msgtype, definition)
    return writer.add_connection(
        topic.name, topic.msgtype, msgdef=definition, rihs01=type_hash,
        serialization_format=topic.serialization, offered_qos_profiles=topic.qos)


def _add_output(writer: Any, name: str, kind: str) -> Any:
    return writer.add_connection(name, kind, typestore=vision_types(),
                                 offered_qos_profiles=[_RELIABLE])


def _messages(text: str, record: dict[str, Any]) -> Iterator[bytes]:
    """Yield the bytes of a frame's messages in the order of Outputs."""
    yield _string(text)
    yield _string(json.dumps(record, ensure_ascii=False))
    yield detections_bytes(record)


def _type_hash(msgtype: str, definition: str) -> str:
    separator = '=' * 80 + '\n'
    types = get_typestore(Stores.EMPTY)
    try:
        if definition.startswith(f'{separator}IDL: '):
            for part in definition.split(separator)[1:]:
                types.register(get_types_from_idl(part.split('\n', 1)[1]))
        else:
            types.register(get_types_from_msg(definition, msgtype))
        return str(types.hash_rihs01(msgtype))
    except Exception:  # noqa: BLE001 - a definition that rosbags cannot read is copied all the same
        return _NO_HASH


def _string(text: str) -> bytes:
    types = ros2_types()
    return bytes(types.serialize_cdr(types.types[_STRING](data=text), _STRING))
