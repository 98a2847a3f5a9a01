# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A fleet of recordings: what is left to do, done on Ray, and the index of all."""

from __future__ import annotations

import json
import posixpath
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from caption_ros.bags.files import one_line
from caption_ros.bags.job import BagOptions
from caption_ros.bags.places import sync
from caption_ros.captioner import Captioner
from caption_ros.errors import OptionError, OutputError, RecordingError
from caption_ros.fleet.index import INDEX, PART, merge_parts, open_index
from caption_ros.fleet.storage import (
    Source,
    find_sources,
    is_local,
    list_files,
    open_place,
    remove,
)
from caption_ros.fleet.work import RUN, Outcome, Task, is_of_run, read_mark

FAILED = 'failed.jsonl'
_STALE = f'.{INDEX}.stale'  # there from before the first task until the index has all
Bar = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True)
class FleetOptions:
    """Who works.

    Attributes:
        ray: Address of a Ray cluster; None starts Ray on this machine, for this run.
        workers: Workers, each with a captioner; None takes as many as there is room for.
        cpus_per_worker: CPU cores of a worker.
        gpus_per_worker: GPUs of a worker, or the part of one that it gets.
        pin: Bind each worker to cores of its own; on this machine only.
        retries: How often a recording that failed is tried again.
        force: Start over, overwrite results.
    """

    ray: str | None = None
    workers: int | None = None
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0.0
    pin: bool = False
    retries: int = 2
    force: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= 100_000:
            raise OptionError(f'workers must be 1 to 100000, got {self.workers!r}')
        if not 1 <= self.cpus_per_worker <= 1024:
            raise OptionError(f'cpus-per-worker must be 1 to 1024, got {self.cpus_per_worker!r}')
        gpus = self.gpus_per_worker
        if not (0 <= gpus <= 64) or (gpus > 1 and gpus != int(gpus)):
            raise OptionError(f'gpus-per-worker must be 0 to 1 or a whole number, got {gpus!r}')
        if not 0 <= self.retries <= 100:
            raise OptionError(f'retries must be 0 to 100, got {self.retries!r}')
        if self.pin and self.ray is not None:
            raise OptionError('pin binds workers to the cores of this machine; leave it out with '
                              'a cluster')


@dataclass
class FleetSummary:
    """What became of a fleet.

    Attributes:
        found: Recordings found.
        finished_before: Those that were finished before.
        done: Outcomes of those captioned now, by label.
        failed: Outcomes of those that failed, by label.
        deaths: Workers that died.
        indexed: Captions in the index, of all recordings that are finished.
        index: Where the index lies.
        seconds: Time that captioning took, from the first worker ready to the last recording.
    """

    found: int = 0
    finished_before: int = 0
    done: dict[str, Outcome] = field(default_factory=dict)
    failed: dict[str, Outcome] = field(default_factory=dict)
    deaths: int = 0
    indexed: int = 0
    index: str = ''
    seconds: float = 0.0


def caption_fleet(place: str, out: str, load: Callable[[], Captioner],
                  options: BagOptions, fleet: FleetOptions = FleetOptions(),
                  say: Callable[[str], None] = lambda text: None,
                  bar: Bar = lambda what, total: nullcontext(lambda done, note='': None),
                  ) -> FleetSummary:
    """Caption many recordings, each to its own folder, and index the captions of all.

    Args:
        place: Folder, recording or list of recordings; path or URL.
        out: Output folder; path or URL.
        load: Loads the model, called once by each worker; Ray sends it there.
        options: What to do with each recording.
        fleet: Who works.
        say: Takes one sentence when a recording fails or a worker dies.
        bar: Shows progress.

    Raises:
        RecordingError: If there is no recording.
        OptionError: If results of other settings are there, or workers cannot be had.
        CheckpointError: If the model cannot be loaded.
        OutputError: If the output folder or the index cannot be written.
    """
    sources = find_sources(place, out)
    run = uuid.uuid4().hex if fleet.force else ''
    tasks = [Task(source, _absolute(out), options, run) for source in sources]
    system, root = open_place(out)
    there = list_files(system, root)
    left = [task for task in tasks if not _is_finished(task, system, root, there)]
    summary = FleetSummary(len(sources), len(sources) - len(left), index=f'{root}/{INDEX}')
    is_stale = bool(left) or f'{root}/{_STALE}' in there
    if left:
        from caption_ros.fleet.workers import run_tasks
        _mark_stale(system, root)
        with bar('recordings', len(left)) as progress:
            run_tasks(left, load, fleet, summary, say, progress)
    try:
        _write_failed(system, root, summary, sources)
        indexed = None if is_stale else _captions_in(out)
        summary.indexed = _write_index(system, root) if indexed is None else indexed
    except OSError as error:
        raise OutputError(f'{root}/{INDEX} could not be written: {error}; run the same again, '
                          'finished recordings are kept') from error
    return summary


def _absolute(out: str) -> str:
    """Workers run in folders of their own, so a relative path would be another there."""
    system, root = open_place(out)
    return root if is_local(system) else out


def _is_finished(task: Task, system: Any, root: str, there: dict[str, int]) -> bool:
    """Tell whether a recording is finished.

    Raises:
        OptionError: If there are results of other settings.
    """
    folder = f'{root}/{task.source.name}'
    if task.run or f'{folder}/{RUN}' not in there:
        return False
    found = read_mark(system.cat_file(f'{folder}/{RUN}'))
    if not found:
        return False
    wanted = task.mark
    if found.get('settings') != wanted['settings']:
        old, new = _flat(found.get('settings') or {}), _flat(wanted['settings'])
        name = next((name for name in new if old.get(name) != new[name]), 'settings')
        raise OptionError(f'{folder} is of a run with {name} {old.get(name)!r}, got '
                          f'{new.get(name)!r}; give the same again, choose another --out or '
                          'start over with --force')
    # A recording that has changed since is captioned again, and one whose part has no bytes.
    return is_of_run(found, task) and there.get(f'{folder}/{PART}', 0) > 0


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat


def _write_failed(system: Any, root: str, summary: FleetSummary, sources: list[Source]) -> None:
    """Write what failed as JSON lines, or remove the file of a run before."""
    path = f'{root}/{FAILED}'
    if not summary.failed:
        remove(system, path)
        return
    names = {source.label: source.name for source in sources}
    # Names of files that are no text become the escapes that JSON has for them.
    lines = [json.dumps({'bag': bag, 'name': names[bag], 'error': outcome.error},
                        ensure_ascii=False) for bag, outcome in summary.failed.items()]
    system.makedirs(root, exist_ok=True)
    system.pipe_file(path, ('\n'.join(lines) + '\n').encode(errors='backslashreplace'))


def _mark_stale(system: Any, root: str) -> None:
    """Tell the next run that the index lacks something, should this one not come to its end."""
    try:
        system.makedirs(root, exist_ok=True)
        system.pipe_file(f'{root}/{_STALE}', b'')
    except OSError as error:
        raise OutputError(f'{root} cannot be written: {one_line(error)}; make room there or '
                          'choose another --out') from error


def _captions_in(out: str) -> int | None:
    """Return how many captions the index holds; None when there is none that can be read."""
    try:
        with open_index(out) as index:
            return int(index.metadata.num_rows)
    except (RecordingError, OSError):
        return None


def _write_index(system: Any, root: str) -> int:
    """Write the index and return how many captions it holds."""
    parts = sorted(path for path in list_files(system, root)
                   if posixpath.basename(path) == PART and posixpath.dirname(path) != root)
    with TemporaryDirectory(prefix='caption_ros_') as folder:
        made = Path(folder) / INDEX
        count = _merge(system, parts, made)
        system.makedirs(root, exist_ok=True)
        unfinished = f'{root}/.{INDEX}.unfinished'
        system.put_file(str(made), unfinished)
    if is_local(system):
        sync(Path(unfinished))
    system.mv(unfinished, f'{root}/{INDEX}')
    remove(system, f'{root}/{_STALE}')
    return count


def _merge(system: Any, parts: list[str], made: Path) -> int:
    path = ''

    def opened() -> Any:
        nonlocal path
        for path in parts:
            with system.open(path, 'rb') as file:
                yield file
    try:
        with made.open('wb') as file:
            return merge_parts(opened(), file)
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, 'errno', None):  # of a disk or network, not of what the file holds
            raise
        raise OutputError(f'{path} cannot be read: {one_line(error)}; if it is damaged, remove it '
                          'and run the same again') from error
