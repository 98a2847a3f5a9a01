# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The captions of an unfinished run on disk, so that it can go on after any end.

A file of JSON lines: what the run is, then one line for each captioned frame, batch by batch. A
batch that was torn by the end of the process or the disk is cut off whole: frames captioned in
another company could differ in the last digit of a score.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from caption_ros.bags.files import one_line
from caption_ros.bags.frames import Key
from caption_ros.errors import OptionError, OutputError

_SYNC_EVERY_S = 1.0


def open_locked(path: Path) -> FileIO:
    """Open the file of a journal with the lock that a run holds until it ends.

    Raises:
        OptionError: If another run holds it.
        OutputError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open('a+b', buffering=0)
    except OSError as error:
        raise OutputError(f'{path} cannot be written: {one_line(error)}') from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OptionError(f'another run writes {path}; wait for it or choose another '
                          'OUT') from error
    return file


class Journal:
    """Lines of captions, each batch on disk before the next is captioned.

    Only positions of lines are kept in memory.

    Args:
        path: The file; it is made when it is missing.
        settings: JSON values that decide what the captions are; a run goes on only with the
            settings that it began with.
        start_over: Drop what is in the file.

    Attributes:
        settings: The settings of the file.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *,
                 start_over: bool = False) -> None:
        """Open and lock the file and find its lines.

        Raises:
            OptionError: If it belongs to another run.
            OutputError: If it cannot be written.
        """
        self.path = path
        self.settings = settings
        self._positions: dict[Key, int] = {}
        self._synced_s = time.monotonic()
        self._file = open_locked(path)
        try:
            if start_over:
                self._file.truncate(0)
            self._load()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._positions)

    def __contains__(self, key: object) -> bool:
        return key in self._positions

    def add(self, batch: Mapping[Key, dict[str, Any]]) -> None:
        """Write the records of the frames of a batch.

        Raises:
            OutputError: If the disk is full or gone.
        """
        positions, lines = {}, []
        at = self._file.seek(0, os.SEEK_END)
        for left, (key, record) in zip(range(len(batch) - 1, -1, -1), batch.items()):
            lines.append(_line({'key': list(key), 'record': record, 'batch_left': left}))
            positions[key] = at
            at += len(lines[-1])
        self._write(b''.join(lines))
        self._positions.update(positions)

    def record(self, key: Key) -> dict[str, Any]:
        """Read the record of a frame again.

        Raises:
            KeyError: If the frame has none.
        """
        with self.path.open('rb') as file:
            file.seek(self._positions[key])
            return dict(json.loads(file.readline())['record'])

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _load(self) -> None:
        self._file.seek(0)
        end = at = 0  # of whole batches, and of lines
        batch: dict[Key, int] = {}
        with self.path.open('rb') as file:
            for line in file:
                values = _values(line, 'record' if end else 'settings')
                if values is None:
                    break
                if not end:
                    self._check(values['settings'])
                else:
                    name, received_ns, count = values['key']
                    batch[name, received_ns, count] = at
                at += len(line)
                if not values.get('batch_left'):
                    self._positions.update(batch)
                    batch, end = {}, at
        self._file.truncate(end)
        if not end:
            self._write(_line({'settings': self.settings}))

    def _check(self, found: dict[str, Any]) -> None:
        other = [name for name in self.settings
                 if name != 'is_new' and found.get(name) != self.settings[name]]
        if other:
            name = other[0]
            raise OptionError(f'{self.path} belongs to a run with {name} {found.get(name)!r}, got '
                              f'{self.settings[name]!r}; give the same again or start over with '
                              '--force')
        self.settings = found

    def _write(self, lines: bytes) -> None:
        try:
            if self._file.write(lines) != len(lines):
                raise OSError('the disk is full')
            if time.monotonic() - self._synced_s > _SYNC_EVERY_S:
                os.fsync(self._file.fileno())
                self._synced_s = time.monotonic()
        except OSError as error:
            raise OutputError(f'{self.path} could not be written: {one_line(error)}; make room '
                              'and go on with --resume') from error


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode() + b'\n'


def _values(line: bytes, wanted: str) -> dict[str, Any] | None:
    """Return the JSON values of a line, or None for a torn one."""
    try:
        values = json.loads(line) if line.endswith(b'\n') else None
    except ValueError:
        return None
    return values if isinstance(values, dict) and wanted in values else None
