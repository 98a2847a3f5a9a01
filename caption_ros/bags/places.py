# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the results of a run go, and how they get there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from caption_ros.errors import OptionError


class Places:
    """The paths of a run.

    Args:
        source: The recording.
        out: Where the captioned recording goes: an .mcap or .db3 file, else a rosbag2 folder.

    Attributes:
        out: The captioned recording.
        jsonl: Captions, one JSON object a frame.
        vtt: Subtitles in WebVTT.
        srt: Subtitles in SubRip.
        report: The page to look through captions.
        skipped: What was skipped, one JSON object each; only there when something was.
        part: Captions of an unfinished run.
        work: Folder where the results are made; gone after the run.
    """

    def __init__(self, source: Path, out: Path) -> None:
        """Choose the paths.

        Raises:
            OptionError: If writing there would touch the recording, or a name is no text.
        """
        _check_name('IN', source)
        _check_name('OUT', out)
        folder = out.parent
        self.out = out
        self.jsonl, self.vtt, self.srt, self.skipped = (
            folder / f'captions.{end}' for end in ('jsonl', 'vtt', 'srt', 'skipped.jsonl'))
        self.report = folder / 'report.html'
        self.part = folder / 'captions.jsonl.part'
        self.work = folder / f'.{out.name}.unfinished'
        if out.name in ('', '.', '..'):
            raise OptionError(f'OUT {str(out)!r} has no name; give a file or folder to be made')
        if out.suffix == '.bag':
            raise OptionError(f'OUT {out} would be a ROS 1 bag, wanted .mcap, .db3 or a folder')
        if out in self.results()[:-1] or out == self.part:
            raise OptionError(f'OUT {out} has the name of a file that comes beside it; choose '
                              'another')
        inside = source.resolve()
        for place in (path.resolve() for path in (*self.results(), self.part, self.work)):
            if inside == place or place in inside.parents or inside in place.parents:
                raise OptionError(f'OUT {out} and IN {source} lie in each other; choose an OUT '
                                  'elsewhere')

    def results(self) -> list[Path]:
        """Return the results, the captioned recording last."""
        return [self.jsonl, self.vtt, self.srt, self.report, self.skipped, self.out]

    def check_free(self) -> None:
        """Refuse to overwrite.

        Raises:
            OptionError: If a result is there already.
        """
        there = [path for path in self.results() if os.path.lexists(path)]
        if there:
            raise OptionError(f'{there[-1]} exists; choose another folder for OUT or overwrite '
                              'with --force')

    def check_replaceable(self) -> None:
        """Refuse to replace a folder that is no recording, and results of another OUT.

        Raises:
            OptionError: If OUT is such a folder, or they lie beside it.
        """
        owner = self._owner()
        if owner not in (None, self.out.name):
            raise OptionError(f'{self.out.parent} has results of {owner}, which --force does not '
                              'replace; choose another folder for OUT or remove them')
        if self.out.is_dir() and not (self.out / 'metadata.yaml').is_file():
            raise OptionError(f'{self.out} is a folder and no recording, so --force does not '
                              'replace it; choose another OUT')

    def _owner(self) -> str | None:
        """Return the name of the OUT that results here belong to, None without any."""
        if self.part.exists():
            with self.part.open('rb') as file:
                try:
                    return str(json.loads(file.readline())['settings']['out'])
                except (ValueError, KeyError, TypeError):
                    return None  # torn before it was anybody's
        if os.path.lexists(self.out):
            return self.out.name
        there = [path for path in self.results() if os.path.lexists(path)]
        return f'another OUT ({there[0].name})' if there else None

    def clean(self) -> None:
        """Remove what an unfinished run left, but its captions."""
        shutil.rmtree(self.work, ignore_errors=True)

    def publish(self, recording: Path) -> None:
        """Move the finished results from the work folder to their places, recording last.

        Args:
            recording: The captioned recording in the work folder.
        """
        made = [self.work / path.name for path in self.results()[:-1]] + [recording]
        for path in made:
            if path.exists():
                sync(path, *(path.iterdir() if path.is_dir() else ()))
        for path, place in zip(made, self.results()):
            if place.is_dir() and not place.is_symlink():
                # A full folder cannot be replaced in one step: the old one steps aside.
                place.rename(self.work / 'replaced')
            if path.exists():
                path.replace(place)
            else:
                place.unlink(missing_ok=True)  # of a run before
        sync(self.out.parent)
        self.clean()


def _check_name(what: str, path: Path) -> None:
    """Refuse a name that no JSON, page or metadata.yaml can hold."""
    for name in (str(path), path.resolve().name):
        shown = name.encode(errors='backslashreplace').decode()
        if shown != name:
            raise OptionError(f'{what} {shown} has a name that is not UTF-8, wanted one that '
                              'is; rename it')


def sync(*paths: Path) -> None:
    """Wait until files or folders are on the disk, where a power cut leaves them."""
    for one in paths:
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
