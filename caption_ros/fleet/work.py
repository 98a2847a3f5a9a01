# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One recording of a fleet, from wherever it lies to its results: what a worker does.

source -> (copy) -> caption_bag -> OUT/<name>/ captions.* -> captions.parquet, the last, which
says that the recording is finished. Without a crash in between nothing is done twice; after one,
run.json tells whose unfinished results those are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from caption_ros.bags.files import one_line
from caption_ros.bags.job import BagOptions, Summary, caption_bag
from caption_ros.bags.journal import open_locked
from caption_ros.bags.places import Places, sync
from caption_ros.captioner import Captioner
from caption_ros.errors import (
    CaptionRosError,
    CheckpointError,
    OptionError,
    OutputError,
    RecordingError,
)
from caption_ros.fleet.index import PART, write_part
from caption_ros.fleet.storage import Source, is_local, open_place, remove, shown

RUN = 'run.json'
_OUTS = ('captions.mcap', 'captioned.mcap')
_HOPELESS = (RecordingError, OptionError, CheckpointError)  # the same the next time


@dataclass(frozen=True)
class Task:
    """A recording to be captioned.

    Attributes:
        source: The recording.
        out: Output folder of the fleet, path or URL.
        options: What to do; resume and force are the fleet's own matter.
        run: Tells a run that starts over from those before it; empty goes on with them.
    """

    source: Source
    out: str
    options: BagOptions
    run: str = ''

    @property
    def mark(self) -> dict[str, Any]:
        """What run.json holds: JSON values that the results depend on."""
        settings = dataclasses.asdict(self.options)
        settings = {name: value for name, value in settings.items()
                    if name not in ('resume', 'force')}
        mark = {'settings': settings, 'size_bytes': self.source.size_bytes, 'run': self.run}
        return dict(json.loads(json.dumps(mark)))


@dataclass(frozen=True)
class Outcome:
    """What became of a recording.

    Attributes:
        captions: Captions in its part of the index.
        frames: Frames that have captions.
        skipped: Messages and files that were skipped.
        error: Why it failed; empty when it did not.
        is_final: Trying again would give the same.
    """

    captions: int = 0
    frames: int = 0
    skipped: int = 0
    error: str = ''
    is_final: bool = True


def caption_source(task: Task, load: Callable[[], Captioner]) -> Outcome:
    """Caption a recording; what goes wrong is told, not raised.

    Args:
        task: The recording.
        load: Returns the model.
    """
    try:
        with TemporaryDirectory(prefix='caption_ros_') as folder:
            return _caption(task, load, Path(folder))
    except CaptionRosError as error:
        return Outcome(error=shown(one_line(error)), is_final=isinstance(error, _HOPELESS))
    except Exception as error:  # noqa: BLE001 - storages raise anything; others must go on
        return Outcome(error=f'{type(error).__name__}: {shown(one_line(error))}', is_final=False)


def _caption(task: Task, load: Callable[[], Captioner], scratch: Path) -> Outcome:
    system, root = open_place(task.out)
    target = f'{root.rstrip("/")}/{task.source.name}'
    here = is_local(system)
    results = Path(target) if here else scratch / 'results'
    recording = task.source.fetch(scratch)
    out = results / _OUTS[not task.options.captions_only]
    may_go_on = _prepare(task, results, recording)
    options = dataclasses.replace(task.options, resume=may_go_on, force=False)
    summary = caption_bag(recording, out, load, options)
    if summary is not None and summary.out is None:
        return Outcome(error=_why_nothing(summary))
    captions = write_part(results / 'captions.jsonl', task.source.label, results / PART)
    if not here:
        _upload(results, system, target, _places(results, recording))
    with (results / 'captions.jsonl').open('rb') as lines:
        frames = sum(1 for _ in lines)
    return Outcome(captions, frames, 0 if summary is None else summary.skipped_count)


def _prepare(task: Task, results: Path, recording: Path) -> bool:
    """Make the folder; True when what is in it is of this run and may be gone on with."""
    mark = results / RUN
    places = _places(results, recording)
    try:
        results.mkdir(parents=True, exist_ok=True)
        if mark.is_file() and is_of_run(read_mark(mark.read_bytes()), task):
            return True
        if mark.is_file() or task.run:
            _clear(results, places)
        for one in places:
            one.check_free()
        unfinished = mark.with_name(f'.{RUN}.unfinished')
        unfinished.write_text(json.dumps(task.mark))
        sync(unfinished)
        unfinished.replace(mark)
    except OSError as error:
        raise OutputError(f'{results} cannot be written: {one_line(error)}') from error
    return False


def _places(results: Path, recording: Path) -> list[Places]:
    return [Places(recording, results / name) for name in _OUTS]


def read_mark(text: bytes) -> dict[str, Any]:
    """Return what a run.json holds; nothing when it is torn, as a power cut may leave it."""
    try:
        found = json.loads(text)
    except ValueError:  # bytes that are no text, too
        return {}
    return found if isinstance(found, dict) else {}


def is_of_run(found: dict[str, Any], task: Task) -> bool:
    """Tell whether results with such a run.json are those of a task."""
    return all(found.get(name) == value for name, value in task.mark.items()
               if name != 'run' or task.run)


def _clear(results: Path, places: list[Places]) -> None:
    """Remove results of another run, and nothing else.

    Raises:
        OptionError: If that run still writes them.
    """
    with open_locked(places[0].part):  # the same for all: they lie side by side
        (results / PART).unlink(missing_ok=True)
        for one in places:
            for path in (*one.results(), one.part):
                path.unlink(missing_ok=True)
            one.clean()


def _why_nothing(summary: Summary) -> str:
    reasons = ', '.join(f'{count} {why}' for why, count in sorted(summary.counts.items()) if count)
    first = next((f'; {skipped.reason}' for skipped in summary.skipped), '')
    return f'nothing was captioned: {reasons or "no frame was chosen"}{first}'


def _upload(results: Path, system: Any, target: str, places: list[Places]) -> None:
    """Copy results to where they belong.

    Without its part of the index a recording is not finished, so an older part is removed first
    and the new one comes last: what breaks in between is done again.
    """
    system.makedirs(target, exist_ok=True)
    system.invalidate_cache(target)
    remove(system, f'{target}/{PART}')
    if system.exists(f'{target}/{RUN}'):  # of another run, so what it left is ours
        for name in {path.name for one in places for path in one.results() if not path.exists()}:
            remove(system, f'{target}/{name}')
    last, unfinished = {RUN: 1, PART: 2}, f'{target}/.{PART}.unfinished'
    for path in sorted(results.iterdir(), key=lambda path: (last.get(path.name, 0), path.name)):
        there = unfinished if path.name == PART else f'{target}/{path.name}'
        system.put_file(str(path), there)
        size = int(system.info(there)['size'])
        if size != path.stat().st_size:
            raise OutputError(f'{there} has {size} bytes after writing {path.stat().st_size}')
    system.mv(unfinished, f'{target}/{PART}')
