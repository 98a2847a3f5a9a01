# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""SQLite files: those of recorders that died, and any name.

What a recorder that died left in a journal beside its file only SQLite can work in, and it needs
to write: so it happens in a copy. rosbags makes URIs of paths without escaping them.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from caption_ros.errors import RecordingError


def uri_path(path: Path) -> Path:
    """Return a path as it stands in a URI, where # and ? would end it."""
    return Path(quote(str(path)))


class DatabaseWriter(Sqlite3Writer):
    """Writes an .db3 file wherever it lies."""

    def __init__(self, path: Path, compression: Any) -> None:
        super().__init__(uri_path(path), compression)
        self.path = path / f'{path.name}.db3'


def journals_of(path: Path) -> list[Path]:
    """Return the files beside an .db3 file that hold a part of it."""
    if path.suffix != '.db3':
        return []
    names = [path.with_name(f'{path.name}{end}') for end in ('-wal', '-journal')]
    return [name for name in names if name.exists() and name.stat().st_size]


def finished_copy(path: Path, journals: list[Path], folder: Path) -> Path:
    """Return a copy of a database with its journals worked in.

    Args:
        path: The database.
        journals: What lies beside it.
        folder: Where the copy goes.

    Raises:
        RecordingError: If there is no room for it.
        sqlite3.Error: If it is damaged.
    """
    try:
        for one in (path, *journals):
            shutil.copyfile(one, folder / one.name)
    except OSError as error:
        raise RecordingError(f'its recorder died and {folder} has no room for a copy to finish: '
                             f'{error.strerror}; set TMPDIR to a disk with room') from error
    with closing(sqlite3.connect(folder / path.name)) as database:
        database.execute('PRAGMA journal_mode=DELETE')
    return folder / path.name
