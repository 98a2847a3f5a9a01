# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""First reading of a recording: every chosen frame to its captions in the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from caption_ros.bags.files import Skipped
from caption_ros.bags.frames import Frame, FrameReader
from caption_ros.bags.journal import Journal
from caption_ros.bags.outlines import outlines
from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import CaptionError, CaptionRosError, ImageFormatError, RegionError
from caption_ros.pipeline import caption_frames
from caption_ros.record import caption_record

Progress = Callable[..., None]
_MOST_FAILURES = 5  # in a row: then it is the model and not the frame


class Captioning:
    """Captions frames in batches.

    Batches are cut by the frames' numbers, so that a run that goes on makes the same ones.

    Args:
        captioner: The model.
        options: What to describe and how.
        journal: Where the captions go.
        on_skip: Takes what has to be skipped.
        batch: Frames captioned at once, at most.
    """

    def __init__(self, captioner: Captioner, options: CaptionOptions, journal: Journal,
                 on_skip: Callable[[Skipped], None], batch: int = 1) -> None:
        self._captioner = captioner
        self._options = options
        self._journal = journal
        self._on_skip = on_skip
        self._batch = batch
        self._frames: list[Frame] = []
        self._failures = 0
        self._counts: Counter[str] = Counter()

    def run(self, reader: FrameReader,
            progress: Progress = lambda done, note='': None) -> Counter[str]:
        """Caption all frames that a reader yields.

        Args:
            reader: Frames in order of their completion.
            progress: Takes the images read so far and a note.

        Returns:
            Counts of frames: captioned, and left out, by why.

        Raises:
            OptionError: If the model cannot do what an option asks.
            CaptionError: If the model fails several times in a row.
            OutputError: If the journal cannot be written.
        """
        for item in reader:
            if isinstance(item, Skipped):
                self._skip(item)
            else:
                self._take(item)
            progress(reader.images, self._note())
        self._caption()
        self._counts += reader.counts
        progress(reader.images, self._note())
        return self._counts

    def _take(self, frame: Frame) -> None:
        number = frame.number // self._batch
        if self._frames and number != self._frames[0].number // self._batch:
            self._caption()
        self._frames.append(frame)
        if (frame.number + 1) // self._batch != number:
            self._caption()

    def _caption(self) -> None:
        frames, self._frames = self._frames, []
        if not frames:
            return
        answers = caption_frames([(frame.rgb, frame.labels) for frame in frames],
                                 self._captioner, self._options)
        self._journal.add({frame.key: frame_record(frame, answer, self._captioner.name)
                           for frame, answer in zip(frames, answers) if isinstance(answer, list)})
        for frame, answer in zip(frames, answers):
            self._count(frame, answer)

    def _count(self, frame: Frame, answer: list[Caption] | CaptionRosError) -> None:
        if isinstance(answer, list):
            self._counts['captioned'] += 1
            self._failures = 0
        elif isinstance(answer, RegionError):
            self._counts['without region'] += 1
        elif isinstance(answer, CaptionError | ImageFormatError):
            self._failures += isinstance(answer, CaptionError)
            if self._failures >= _MOST_FAILURES:
                raise answer
            self._skip(Skipped(frame.key[0], frame.key[1], frame.stamp_ns, str(answer)))
        else:  # an option, the same for all frames
            raise answer

    def _skip(self, skipped: Skipped) -> None:
        self._counts['skipped'] += 1
        self._on_skip(skipped)

    def _note(self) -> str:
        left_out = sum(self._counts.values()) - self._counts['captioned']
        return f'{self._counts["captioned"]} captioned' + (
            f', {left_out} left out' if left_out else '')


def frame_record(frame: Frame, captions: list[Caption], model: str) -> dict[str, Any]:
    """Make the record of a frame, as the node publishes it, with outlines of its regions.

    A recording is captioned long after it was made: ``age_s`` is what the image's age was when
    it was received, and ``latency_s`` is 0, so that the same input gives the same record.
    """
    received_ns = frame.key[1]
    age_s = (received_ns - frame.stamp_ns) / 1e9 if frame.stamp_ns else 0.0
    told = [caption for caption in captions if not caption.held_back]
    record = caption_record(told, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id, model=model,
                            latency_s=0.0, age_s=age_s)
    held = [caption.to_dict() for caption in captions if caption.held_back]
    return {**record, **({'held_back': held} if held else {}),
            'outlines': [None if caption.region is None else outlines(caption.region)
                         for caption in told]}
