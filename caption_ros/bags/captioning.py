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
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import CaptionError, ImageFormatError, RegionError
from caption_ros.pipeline import caption_frame
from caption_ros.record import caption_record

Progress = Callable[..., None]
_MOST_FAILURES = 5  # in a row: then it is the model and not the frame


def caption_frames(reader: FrameReader, captioner: Captioner, options: CaptionOptions,
                   journal: Journal, on_skip: Callable[[Skipped], None],
                   progress: Progress = lambda done, note='': None) -> Counter[str]:
    """Caption all frames that a reader yields.

    Args:
        reader: Frames in order of their completion.
        captioner: The model.
        options: What to describe and how.
        journal: Where the captions go.
        on_skip: Takes what has to be skipped.
        progress: Takes the images read so far and a note.

    Returns:
        Counts of frames: captioned, and left out, by why.

    Raises:
        OptionError: If the model cannot do what an option asks.
        CaptionError: If the model fails several times in a row.
        OutputError: If the journal cannot be written.
    """
    counts: Counter[str] = Counter()
    failures = 0
    for item in reader:
        if isinstance(item, Skipped):
            counts['skipped'] += 1
            on_skip(item)
        else:
            try:
                journal.add(item.key, frame_record(item, captioner, options))
                counts['captioned'] += 1
                failures = 0
            except RegionError:
                counts['without region'] += 1
            except (CaptionError, ImageFormatError) as error:
                failures += isinstance(error, CaptionError)
                if failures >= _MOST_FAILURES:
                    raise
                counts['skipped'] += 1
                on_skip(Skipped(item.key[0], item.key[1], item.stamp_ns, str(error)))
        progress(reader.images, _note(counts))
    return counts + reader.counts


def frame_record(frame: Frame, captioner: Captioner, options: CaptionOptions) -> dict[str, Any]:
    """Caption a frame and make its record, as the node publishes it.

    A recording is captioned long after it was made: ``age_s`` is what the image's age was when
    it was received, and ``latency_s`` is 0, so that the same input gives the same record.
    """
    captions = caption_frame(frame.rgb, frame.labels, captioner, options)
    received_ns = frame.key[1]
    age_s = (received_ns - frame.stamp_ns) / 1e9 if frame.stamp_ns else 0.0
    record = caption_record([caption for caption in captions if not caption.held_back],
                            stamp_ns=frame.stamp_ns, frame_id=frame.frame_id,
                            model=captioner.name, latency_s=0.0, age_s=age_s)
    held = [caption.to_dict() for caption in captions if caption.held_back]
    return {**record, 'held_back': held} if held else record


def _note(counts: Counter[str]) -> str:
    left_out = sum(counts.values()) - counts['captioned']
    return f'{counts["captioned"]} captioned' + (f', {left_out} left out' if left_out else '')
