# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole recording: one file, or a rosbag2 folder of one or several."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Generator
from pathlib import Path, PurePath
from typing import Any

from caption_ros.bags.files import BagFile, Message, OnDamage, Skipped, Topic, one_line, open_file
from caption_ros.errors import OptionError, RecordingError

_HELP = 'give a rosbag2 folder, .mcap, .db3 or .bag'


class Recording:
    """A recording, read-only; reading it again yields the same.

    Attributes:
        path: Where it lies.
        storage: mcap, sqlite3 or rosbag1.
        topics: Its topics in order of first appearance.
        counts: Messages of each topic.
        start_ns: First time of receipt, nanoseconds.
        end_ns: Last time of receipt, nanoseconds.
        is_ordered: Times of receipt never go back, neither in a file nor from one to the next.
        damage: Files that cannot be read and disagreements with metadata.yaml.
        custom_data: What the recorder's user wrote into metadata.yaml.
    """

    def __init__(self, path: Path) -> None:
        """Look through all files once.

        Raises:
            RecordingError: If it is no recording or nothing of it can be read.
        """
        self.path = path
        self.damage: list[Skipped] = []
        self.topics: list[Topic] = []
        self.counts: Counter[Topic] = Counter()
        self.start_ns, self.end_ns = 2 ** 63 - 1, 0
        self.is_ordered = True
        self._hashes: dict[tuple[str, str], str] = {}
        self._expected: dict[str, int] = {}
        self.custom_data: dict[str, str] = {}
        try:
            self._files = self._find()
            self.size_bytes = sum(file.stat().st_size for file in self._files if file.exists())
        except OSError as error:
            raise RecordingError(f'{path} cannot be read: {one_line(error)}') from error
        self._survey()

    def messages(self, wanted: Collection[Topic] | None, on_damage: OnDamage,
                 ) -> Generator[Message, None, None]:
        """Yield messages file by file, in order of receipt; None for wanted is all topics."""
        for path in self._files:
            try:
                with open_file(path) as file:
                    yield from file.messages(wanted, on_damage)
            except RecordingError as error:
                on_damage(Skipped('', None, None, str(error)))

    def check_start(self, start_s: float) -> None:
        """Refuse to begin behind the end.

        Raises:
            OptionError: If that second of the recording is.
        """
        length_s = (self.end_ns - self.start_ns) / 1e9
        if start_s > length_s:
            raise OptionError(f'start is {start_s:g} s and {self.path} is {length_s:.1f} s long; '
                              'give an earlier start')

    def _find(self) -> list[Path]:
        if not self.path.exists():
            raise RecordingError(f'{self.path} does not exist; {_HELP}')
        if not self.path.is_dir():
            return [self.path]
        metadata = self.path / 'metadata.yaml'
        if not metadata.is_file():
            files = sorted(file.name for pattern in ('*.mcap', '*.db3', '*.bag')
                           for file in self.path.glob(pattern))
            does = (f'give {self.path / files[0]} itself or run "ros2 bag reindex"' if files
                    else _HELP)
            raise RecordingError(f'{self.path} has no metadata.yaml; {does}')
        try:
            return self._read(metadata)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RecordingError(f'{metadata} is no description of a recording '
                                 f'({one_line(error)}); run "ros2 bag reindex"') from error

    def _read(self, metadata: Path) -> list[Path]:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
        try:
            told: Any = YAML(typ='safe').load(metadata.read_text('utf-8'))
        except YAMLError as error:
            raise ValueError(one_line(error)) from error
        told = told['rosbag2_bagfile_information']
        for entry in told['topics_with_message_count']:
            topic = entry['topic_metadata']
            self._hashes[topic['name'], topic['type']] = topic.get('type_description_hash') or ''
        self.custom_data = {name: str(value)
                            for name, value in (told.get('custom_data') or {}).items()}
        # Old recordings name files by their folder of that time.
        names = [PurePath(name).name for name in told['relative_file_paths']]
        if not names:
            raise ValueError('it names no file')
        for entry in told.get('files') or ():
            self._expected[PurePath(entry['path']).name] = int(entry['message_count'])
        if len(names) == 1:
            self._expected[names[0]] = int(told['message_count'])
        return [self.path / name for name in names]

    def _survey(self) -> None:
        readable = []
        for path in self._files:
            try:
                if not path.exists():
                    raise RecordingError(f'{path} is named in metadata.yaml and does not exist')
                with open_file(path) as file:
                    self._add(file, path.name)
                readable.append(path)
            except RecordingError as error:
                if len(self._files) == 1:
                    raise
                self.damage.append(Skipped('', None, None, str(error)))
        if not readable:
            raise RecordingError(f'{self.path}: none of its {len(self._files)} files can be read: '
                                 f'{self.damage[0].reason}')
        if not self.counts.total():
            raise RecordingError(f'{self.path} holds no messages; give a recording that has some')
        self._files = readable
        first = PurePath(self._files[0].name.removesuffix('.zstd'))
        self.storage = {'.mcap': 'mcap', '.bag': 'rosbag1'}.get(first.suffix, 'sqlite3')

    def _add(self, file: BagFile, name: str) -> None:
        expected = self._expected.get(name, file.message_count)
        if expected != file.message_count:
            self.damage.append(Skipped(
                '', None, None, f'metadata.yaml promises {expected} messages in {name}, which '
                f'has {file.message_count}; run "ros2 bag reindex"'))
        self.damage.extend(Skipped('', None, None, damage) for damage in file.damage)
        for identity, topic in file.topics.items():
            type_hash = topic.type_hash or self._hashes.get((topic.name, topic.msgtype), '')
            topic = dataclasses.replace(topic, type_hash=type_hash)
            if topic not in self.topics:
                self.topics.append(topic)
            elif topic.definition and not self.topics[self.topics.index(topic)].definition:
                self.topics[self.topics.index(topic)] = topic
            self.counts[topic] += file.counts[identity]
        if file.message_count:
            self.is_ordered &= file.is_ordered and file.start_ns >= self.end_ns
            self.start_ns = min(self.start_ns, file.start_ns)
            self.end_ns = max(self.end_ns, file.end_ns - 1)
