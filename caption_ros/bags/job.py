# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One recording captioned from IN to OUT: whole, or to be gone on with."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caption_ros.bags.captioning import Captioning, Progress
from caption_ros.bags.files import Skipped, one_line
from caption_ros.bags.frames import FrameReader, Sampling
from caption_ros.bags.journal import Journal
from caption_ros.bags.places import Places
from caption_ros.bags.recording import Recording
from caption_ros.bags.topics import Outputs, Plan, output_topics, plan_topics
from caption_ros.bags.writing import write_results
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import OptionError, OutputError

_MOST_LISTED = 10_000
_MOST_BATCH = 256
_LEAST_AHEAD = 4

ProgressBar = Callable[[str, int], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class BagOptions:
    """What to do with a recording.

    Attributes:
        topics: Image topics to caption; empty takes all there are.
        mask: Mask topic; None takes the one that there is, if any.
        model: The model's name; with device and dtype a part of what a run must have in common
            to be gone on with.
        device: Where the model runs.
        dtype: What it computes in.
        sampling: Which frames.
        captions: What to describe and how.
        batch: Frames captioned at once, 1..256; as many more are decoded meanwhile.
        captions_only: Leave the recording's own messages out of OUT.
        report: Make the page, too.
        resume: Go on with an unfinished run.
        force: Overwrite, and start over.
    """

    topics: tuple[str, ...] = ()
    mask: str | None = None
    model: str = 'tabletop'
    device: str = 'auto'
    dtype: str = 'auto'
    sampling: Sampling = Sampling()
    captions: CaptionOptions = CaptionOptions()
    batch: int = 8
    captions_only: bool = False
    report: bool = True
    resume: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        sampling = self.sampling
        if not 1 <= self.batch <= _MOST_BATCH:
            raise OptionError(f'batch must be 1 to {_MOST_BATCH} frames, got {self.batch!r}')
        if not 0 <= sampling.every_s < 1e9:
            raise OptionError(f'every must be 0 s or more, got {sampling.every_s!r}')
        if not sampling.start_s >= 0:
            raise OptionError(f'start must be 0 s or more, got {sampling.start_s!r}')
        if sampling.end_s is not None and not sampling.end_s > sampling.start_s:
            raise OptionError(f'end must be later than start, {sampling.start_s} s, got '
                              f'{sampling.end_s!r}')


@dataclass
class Summary:
    """What became of a recording.

    Attributes:
        plan: The topics.
        out: Where the captioned recording lies, or None when nothing was captioned.
        frames: Frames that have captions.
        resumed: How many of them an earlier run captioned.
        counts: Frames captioned now, and frames left out, by why.
        skipped: What could not be read or captioned, the first 10 000.
        skipped_count: How many these are in all.
    """

    plan: Plan
    out: Path | None = None
    frames: int = 0
    resumed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    skipped: dict[Skipped, None] = field(default_factory=dict)  # a set that keeps its order
    skipped_count: int = 0
    _seen: set[int] = field(default_factory=set)  # hashes, of those that are not listed too

    def skip(self, skipped: Skipped) -> None:
        """Add what was skipped; the second reading meets the same damage again."""
        if hash(skipped) not in self._seen:
            self._seen.add(hash(skipped))
            self.skipped_count += 1
            if len(self.skipped) < _MOST_LISTED:
                self.skipped[skipped] = None


def caption_bag(source: Path, out: Path, load: Callable[[], Captioner],
                options: BagOptions = BagOptions(),
                bar: ProgressBar = lambda what, total: nullcontext(lambda done, note='': None),
                ) -> Summary | None:
    """Caption a recording.

    Args:
        source: The recording, only read: a rosbag2 folder, .mcap, .db3 or .bag.
        out: The captioned recording: .mcap, .db3, else a rosbag2 folder.
        load: Loads the model; called when the rest of the input is known to be good.
        options: What to do.
        bar: Shows progress.

    Returns:
        What became of it; None when there is nothing left to do.

    Raises:
        RecordingError: If IN is no recording or has nothing to caption.
        OptionError: If options and recording do not fit, or results are there already.
        CaptionError: If the model fails again and again.
        OutputError: If results cannot be written; IN and finished captions are intact.
    """
    places = Places(source, out)
    try:
        if _is_finished(places, options):
            return None
    except OSError as error:
        raise OutputError(f'{places.out.parent} cannot be looked into: {one_line(error)}; choose '
                          'another folder for OUT') from error
    recording = Recording(source)
    recording.check_start(options.sampling.start_s)
    plan = plan_topics(recording, options.topics, options.mask,
                       use_mask=options.captions.describe != 'scene')
    if plan.mask is None and options.captions.describe in ('regions', 'both'):
        raise OptionError(f'describe {options.captions.describe!r} needs masks and {source} has '
                          'no mask topic; name one with --mask or describe the scene')
    names = output_topics(recording, plan)
    settings = _settings(recording, plan, options, places)
    journal = Journal(places.part, settings, start_over=options.force and not options.resume)
    try:
        if not journal.settings['is_new'] and not options.force:
            places.check_free()
        places.clean()
        summary = _run(recording, plan, names, journal, load(), places, options, bar)
    except BaseException:
        if not len(journal):
            journal.remove()
        raise
    finally:
        places.clean()
        journal.close()
    return summary


def _is_finished(places: Places, options: BagOptions) -> bool:
    """Check what is there; True when the run asked for has been finished before."""
    if options.force:
        places.check_replaceable()
    elif places.part.exists() and not options.resume:
        raise OptionError(f'{places.part} is of an unfinished run; go on with --resume or start '
                          'over with --force')
    elif not places.part.exists():
        if options.resume and places.out.exists() and places.jsonl.exists():
            return True
        places.check_free()
    return False


def _settings(recording: Recording, plan: Plan, options: BagOptions,
              places: Places) -> dict[str, Any]:
    """Return what decides the captions of a run, and whether it replaces nothing."""
    settings = {
        'recording': recording.path.resolve().name, 'size_bytes': recording.size_bytes,
        'out': places.out.name, 'model': options.model, 'device': options.device,
        'dtype': options.dtype, **dataclasses.asdict(plan),
        **dataclasses.asdict(options.sampling), **dataclasses.asdict(options.captions),
        'batch': options.batch, 'captions_only': options.captions_only,
        'is_new': not options.force,
    }
    return dict(json.loads(json.dumps(settings)))  # as it will be read again


def _run(recording: Recording, plan: Plan, names: dict[str, Outputs], journal: Journal,
         captioner: Captioner, places: Places, options: BagOptions, bar: ProgressBar) -> Summary:
    summary = Summary(plan, resumed=len(journal))
    for damage in recording.damage:
        summary.skip(damage)
    reader = FrameReader(recording, plan, options.sampling, journal.__contains__,
                         ahead=max(options.batch, _LEAST_AHEAD))
    captioning = Captioning(captioner, options.captions, journal, summary.skip, options.batch)
    images = sum(recording.counts[topic] for topic in recording.topics
                 if topic.name in plan.images)
    with bar('images', images) as progress:
        summary.counts = captioning.run(reader, progress)
    summary.frames = len(journal)
    if not summary.frames:
        journal.remove()
        return summary
    try:
        places.work.mkdir(parents=True)
        with bar('writing', recording.counts.total()) as progress:
            made = write_results(recording, journal, names, places, on_skip=summary.skip,
                                 captions_only=options.captions_only,
                                 with_report=options.report, progress=progress)
        if summary.skipped:
            _list_skipped(summary, places.work / places.skipped.name)
        places.publish(made)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(
            f'{places.out} could not be written: {one_line(error)}; IN and the captions in '
            f'{places.part} are intact: make room and go on with --resume') from error
    journal.remove()
    summary.out = places.out
    return summary


def _list_skipped(summary: Summary, path: Path) -> None:
    with path.open('w', encoding='utf-8') as file:
        for skipped in summary.skipped:
            file.write(json.dumps(dataclasses.asdict(skipped), ensure_ascii=False) + '\n')
