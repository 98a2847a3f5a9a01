# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames of a recording, read, paired, chosen and decoded on a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.bags.files import Message, Skipped
from caption_ros.bags.images import parse
from caption_ros.bags.recording import Recording
from caption_ros.bags.topics import Plan
from caption_ros.change import ChangeDetector
from caption_ros.errors import ImageFormatError
from caption_ros.message import image_from_msg, labels_from_msg, stamp_to_ns
from caption_ros.pairing import Pairer

Key = tuple[str, int, int]
# The node's defaults: mask_slop_s and mask_timeout_s.
_MASK_SLOP_S, _MASK_TIMEOUT_S = 0.01, 2.0
_EARLY = 20  # th part of a period: a camera that jitters still gives a frame each period


@dataclass(frozen=True)
class Sampling:
    """Which frames to caption.

    Attributes:
        every_s: One frame in so many seconds of each image topic; 0 is all.
        on_change: Only frames that differ from the last one captioned.
        start_s: First second of the recording.
        end_s: Second of the recording where to stop, or None.
    """

    every_s: float = 0.0
    on_change: bool = False
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded frame.

    Attributes:
        key: Image topic, time of receipt in nanoseconds, and how often it had not gone on by then.
        number: Its place among the chosen frames, from 0, the same in each reading.
        stamp_ns: Stamp of the image, nanoseconds.
        frame_id: Coordinate frame of the image.
        rgb: Image, shape (H, W, 3), uint8.
        labels: Label image, shape (H, W), integer, or None.
    """

    key: Key
    number: int
    stamp_ns: int
    frame_id: str
    rgb: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer] | None


class Numbering:
    """Tells messages of one topic and one time of receipt apart."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}

    def key(self, message: Message) -> Key:
        """Return the key of the next message; it is the same in each reading."""
        name = message.topic.name
        last_ns, count = self._last.get(name, (-1, 0))
        count += message.received_ns <= last_ns  # also where a loop was recorded: times come again
        self._last[name] = (message.received_ns, count)
        return name, message.received_ns, count


class FrameReader:
    """Reads frames ahead of the captioner.

    Args:
        recording: The recording.
        plan: The topics.
        sampling: Which frames to take.
        is_done: Tells whether a frame has captions already; such a frame is not decoded.
        ahead: How many frames to read ahead at most, so that memory stays flat.

    Attributes:
        images: Image messages read so far.
        counts: Frames left out, by why.
    """

    def __init__(self, recording: Recording, plan: Plan, sampling: Sampling,
                 is_done: Callable[[Key], bool], ahead: int = 4) -> None:
        self._recording = recording
        self._plan = plan
        self._sampling = sampling
        self._is_done = is_done
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._numbering = Numbering()
        self._pairer = Pairer(_MASK_SLOP_S, _MASK_TIMEOUT_S)
        self._due_ns: dict[str, int] = {}
        self._changes: dict[str, ChangeDetector] = {}
        self._chosen = 0
        self.images = 0
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Frame | Skipped]:
        """Yield frames in order of their completion, and what had to be skipped."""
        thread = threading.Thread(target=self._run, name='frames', daemon=True)
        thread.start()
        try:
            while (item := self._queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        try:
            names = {*self._plan.images, self._plan.mask}
            wanted = [topic for topic in self._recording.topics if topic.name in names]
            for message in self._recording.messages(wanted, self._put):
                if self._stopped.is_set():
                    return
                self._take(message)
            self._pairer.expire(float('inf'))
            self.counts['without mask'] += self._pairer.images_without_mask
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - raised again where frames are taken
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def _take(self, message: Message) -> None:
        is_mask = message.topic.name == self._plan.mask
        if not is_mask:
            self.images += 1
        key = self._numbering.key(message)
        if not self._is_in_time(message.received_ns):
            return
        try:
            fields = parse(message)
        except ImageFormatError as error:
            self._put(Skipped(message.topic.name, message.received_ns, None, str(error)))
            return
        if not is_mask and message.topic.name != self._plan.masked:
            self._choose(key, fields, None)
            return
        add = self._pairer.add_mask if is_mask else self._pairer.add_image
        item = fields if is_mask else (key, fields)
        pair = add(stamp_to_ns(fields.header.stamp), item, message.received_ns / 1e9,
                   len(message.data))
        if pair is not None:
            self._choose(pair.image[0], pair.image[1], pair.mask)

    def _is_in_time(self, received_ns: int) -> bool:
        second = (received_ns - self._recording.start_ns) / 1e9
        end_s = self._sampling.end_s
        return second >= self._sampling.start_s and (end_s is None or second < end_s)

    def _choose(self, key: Key, image: Any, mask: Any) -> None:
        topic, received_ns, _ = key
        every_ns = round(self._sampling.every_s * 1e9)
        due_ns = self._due_ns.get(topic, received_ns)
        if every_ns and received_ns < due_ns - every_ns // _EARLY:
            return
        is_done, next_ns = self._is_done(key), _next_due(due_ns, received_ns, every_ns)
        if is_done and not self._sampling.on_change:
            self._due_ns[topic] = next_ns
            self._chosen += 1
            return
        try:
            rgb = image_from_msg(image)
            labels = None if mask is None else labels_from_msg(mask)
        except ImageFormatError as error:
            self._put(Skipped(topic, received_ns, stamp_to_ns(image.header.stamp), str(error)))
            return
        self._due_ns[topic] = next_ns
        if self._sampling.on_change and not self._changes.setdefault(
                topic, ChangeDetector()).has_changed(rgb):
            self.counts['unchanged'] += 1
            return
        number, self._chosen = self._chosen, self._chosen + 1
        if not is_done:
            self._put(Frame(key, number, stamp_to_ns(image.header.stamp), image.header.frame_id,
                            rgb, labels))


def _next_due(due_ns: int, received_ns: int, every_ns: int) -> int:
    """Return when the next frame is due: on a grid, so that jitter does not add up."""
    late = (received_ns - due_ns) // every_ns if every_ns else 0
    return due_ns + (max(late, 0) + 1) * every_ns if every_ns else received_ns
