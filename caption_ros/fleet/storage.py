# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files anywhere: paths, and URLs that fsspec or pyarrow opens."""

from __future__ import annotations

import os
import posixpath
import re
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caption_ros.bags.files import one_line
from caption_ros.errors import OptionError, OutputError, RecordingError

_SUFFIXES = ('.mcap', '.db3', '.bag')
_METADATA = 'metadata.yaml'
_SECRET = re.compile(r'//[^/@]*@')
_SPARE_BYTES = 256 << 20  # left free on the disk that recordings are copied to


def open_place(url: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises:
        OptionError: If nothing here opens such a URL.
    """
    from fsspec.core import url_to_fs
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:  # no driver, or a protocol not known
        place = _open_by_pyarrow(url)
        if place is None:
            raise OptionError(f'{shown(url)} cannot be opened: {one_line(error)}') from error
        return place
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        raise OptionError(f'{shown(url)} cannot be opened: {one_line(error)}') from error


def _open_by_pyarrow(url: str) -> tuple[Any, str] | None:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs
    try:
        system, path = fs.FileSystem.from_uri(url)
    except (OSError, ValueError):
        return None
    return ArrowFSWrapper(system), path


def local_path(url: str) -> Path | None:
    """Return the local path that a path or URL stands for, or None."""
    system, path = open_place(url)
    return Path(path) if is_local(system) else None


def is_local(system: Any) -> bool:
    """Tell whether a file system is that of this machine."""
    from fsspec.implementations.local import LocalFileSystem
    return isinstance(system, LocalFileSystem)


def remove(system: Any, path: str) -> None:
    """Remove a file, if it is there."""
    if system.exists(path):
        system.rm_file(path)


def shown(url: str) -> str:
    """Return a URL without the password that may be in it."""
    return _SECRET.sub('//', url)


class _UnreadableError(OptionError):
    """A folder is there and cannot be looked into."""


@dataclass(frozen=True)
class Source:
    """A recording somewhere.

    Attributes:
        url: Path or URL that opens its file system.
        files: Path in that file system and size in bytes of each file.
        name: Where its results go below the output folder; relative, without '..'.
        label: What people call it.
    """

    url: str
    files: tuple[tuple[str, int], ...]
    name: str
    label: str

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(size for _, size in self.files)

    def fetch(self, folder: Path) -> Path:
        """Return the recording as a local path, a copy in folder unless it is local anyway.

        Raises:
            RecordingError: If it is not what was listed.
            OutputError: If there is no room for a copy.
        """
        system, _ = open_place(self.url)
        here = local_path(self.url)
        if here is not None:
            first = Path(self.files[0][0])
            return first if self._is_file() else first.parent
        free = shutil.disk_usage(folder).free
        if self.size_bytes + _SPARE_BYTES > free:
            raise OutputError(f'{self.label} has {self.size_bytes >> 20} MiB and {folder} has '
                              f'{free >> 20} MiB free; set TMPDIR to a disk with room')
        # A recording lies flat, whatever an archive calls its files.
        copies = folder / 'recording'
        copies.mkdir()
        for path, size in self.files:
            copy = copies / posixpath.basename(path)
            system.get_file(path, str(copy))
            if copy.stat().st_size != size:
                raise RecordingError(f'{self.label}: {copy.name} was listed with {size} bytes and '
                                     f'{copy.stat().st_size} came; it changes or the connection '
                                     'broke')
        return copies / posixpath.basename(self.files[0][0]) if self._is_file() else copies

    def _is_file(self) -> bool:
        return len(self.files) == 1 and posixpath.basename(self.files[0][0]) != _METADATA


def find_sources(place: str, out: str) -> list[Source]:
    """Find recordings: those below a folder, one itself, or those that a list names.

    Args:
        place: Path or URL of a folder, a recording, or a text file with one of these a line.
        out: Output folder; what lies below it is no source.

    Raises:
        RecordingError: If there is none.
        OptionError: If a place cannot be opened or a list cannot be read.
    """
    system, path = open_place(place)
    if _is_list(system, path):
        lines = _lines(system, path, place)
        sources = [source for line in lines for source in _of_line(line, out)]
    else:
        sources = _below(place, out, names_from=path)
    if not sources:
        raise RecordingError(f'{shown(place)} holds no recording; give a folder with rosbag2 '
                             'folders, .mcap, .db3 or .bag files, or a text file that lists some')
    unique: dict[str, Source] = {}
    for source in sources:
        other = unique.setdefault(source.name, source)
        if other.label != source.label:
            raise OptionError(f'results of {other.label} and {source.label} would both go to '
                              f'{source.name}; caption them into two folders')
    return sorted(unique.values(), key=lambda source: (-source.size_bytes, source.name))


def _is_list(system: Any, path: str) -> bool:
    try:
        return bool(system.isfile(path)) and not _is_recording_file(path)
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        raise OptionError(f'{path} cannot be opened: {one_line(error)}') from error


def _lines(system: Any, path: str, place: str) -> list[str]:
    """Return the lines of a list; relative paths count from the list, # begins a remark."""
    try:
        text = system.cat_file(path).decode('utf-8')
    except Exception as error:  # noqa: BLE001 - as above
        raise OptionError(f'{shown(place)} is no recording and cannot be read as a list of '
                          f'recordings: {one_line(error)}') from error
    lines = [line.strip() for line in text.splitlines()]
    folder = place.rpartition('/')[0]
    return [line if '://' in line or line.startswith('/') or not folder else f'{folder}/{line}'
            for line in lines if line and not line.startswith('#')]


def _of_line(line: str, out: str) -> list[Source]:
    """Return the recordings of a line; one that is missing stays, to fail and be reported."""
    path = line
    try:
        _, path = open_place(line)
        found = _below(line, out, names_from='')
    except _UnreadableError:
        raise  # it is there: the recordings in it would be missing
    except OptionError:
        found = []
    return found or [Source(line, ((path, 0),), _name(path.split('://')[-1]), shown(line))]


def _below(place: str, out: str, names_from: str) -> list[Source]:
    system, path = open_place(place)
    out_system, out_path = open_place(out)
    skip = out_path.rstrip('/') + '/' if type(out_system) is type(system) else None
    try:
        sizes = {name: size for name, size in list_files(system, path, skip).items()
                 if skip is None or not f'/{name.lstrip("/")}'.startswith(
                     f'/{skip.lstrip("/")}')}
    except _UnreadableError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise OptionError(f'{shown(place)} cannot be listed: {one_line(error)}') from error
    folders = {posixpath.dirname(name) for name in sizes if posixpath.basename(name) == _METADATA}
    found: dict[str, list[tuple[str, int]]] = {}
    for name in sorted(sizes):
        folder = posixpath.dirname(name)
        if folder in folders:
            found.setdefault(folder, []).append((name, sizes[name]))
        elif _is_recording_file(name):
            found[name] = [(name, sizes[name])]
    base = names_from.rstrip('/')
    if base in found:  # the place is a recording itself
        base = posixpath.dirname(base)
    return [Source(place, tuple(files), _name(os.path.relpath(f'/{one.strip("/")}',
                                                             f'/{base.strip("/")}')),
                   _label(system, place, one)) for one, files in found.items()]


def list_files(system: Any, path: str, skip: str | None = None) -> dict[str, int]:
    """Return the size in bytes of each file below a folder, or of the file that it is.

    fsspec passes over local folders that are links or that cannot be read; here links are
    followed.

    Args:
        system: File system.
        path: Path in it; without anything there, there are no files.
        skip: Local folder to stay out of.

    Raises:
        OptionError: If a local folder cannot be read.
    """
    if is_local(system):
        paths = [path] if os.path.isfile(path) else (
            os.path.join(folder, name) for folder, names in _folders(path, skip) for name in names)
        return {name: _size(name) for name in paths}
    try:
        return {name: int(info['size'] or 0)
                for name, info in system.find(path, detail=True).items()}
    except FileNotFoundError:
        return {}


def _folders(root: str, skip: str | None) -> Iterator[tuple[str, list[str]]]:
    """Yield local folders and the names of their files, each folder once, whatever leads to it.

    Links come last, so that what lies below the root goes by its own path.
    """
    seen: set[str] = set()
    outside = None if skip is None else os.path.realpath(skip).rstrip('/') + '/'
    waiting = deque([root])
    while waiting:
        for folder, folders, names in os.walk(waiting.popleft(), onerror=_refuse):
            real = os.path.realpath(folder)
            if real in seen or (outside is not None and f'{real}/'.startswith(outside)):
                folders.clear()
                continue
            seen.add(real)
            folders.sort()  # the same link is taken the next time
            paths = [os.path.join(folder, name) for name in folders]
            waiting.extend(path for path in paths if os.path.islink(path))
            yield folder, names


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return  # nothing is there, or no longer
    if posixpath.basename(error.filename) == 'lost+found':
        return  # a disk's own, closed to all but root
    raise _UnreadableError(f'{error.filename} cannot be read: {error.strerror}; make it readable '
                           'or name the recordings elsewhere in a text file')


def _size(path: str) -> int:
    """Return the size of a file; one that is missing stays, to fail and be reported."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _is_recording_file(name: str) -> bool:
    return name.removesuffix('.zstd').endswith(_SUFFIXES)


def _name(path: str) -> str:
    """Return a relative path below the output folder that stays below it."""
    parts = [part for part in path.replace('\\', '/').split('/') if part not in ('', '.', '..')]
    return '/'.join(parts) or 'recording'


def _label(system: Any, place: str, path: str) -> str:
    first, *rest = place.split('::')
    if rest:
        path = f'{first.split("://")[0]}://{path.strip("/")}'
    else:
        path = system.unstrip_protocol(path).removeprefix('file://')
    return shown('::'.join([path, *rest]))
