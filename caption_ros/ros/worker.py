# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The one thread that converts, captions and hands over; never a subscription callback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.change import ChangeDetector
from caption_ros.errors import ImageFormatError, RegionError
from caption_ros.mailbox import Mailbox
from caption_ros.message import image_from_msg, labels_from_msg
from caption_ros.pipeline import caption_batch, wanted_regions
from caption_ros.region import Region, regions_from_labels, scale_labels
from caption_ros.region_message import named, regions_from_detections, without_unlabelled
from caption_ros.ros.intake import Frame
from caption_ros.ros.parameters import NodeParameters


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one frame.

    Attributes:
        frame: The frame.
        options: The options that it was captioned with.
        captions: Its captions; empty when it failed.
        latency_s: From taking the frame to the captions of its batch, seconds.
        error: Why there are no captions, or None.
        scaled_mask: Text about a mask of another size than the image, or empty.
        rgb: The image, shape (H, W, 3), uint8; None when it could not be read.
        regions: How many regions it has; None when nobody said.
        unchanged: Whether it shows what the last one did; the captions are those of that one.
    """

    frame: Frame
    options: CaptionOptions
    captions: tuple[Caption, ...]
    latency_s: float
    error: Exception | None = None
    scaled_mask: str = ''
    rgb: npt.NDArray[np.uint8] | None = None
    regions: int | None = None
    unchanged: bool = False

    @property
    def said(self) -> tuple[Caption, ...]:
        """The captions that the filter did not hold back."""
        return tuple(caption for caption in self.captions if not caption.held_back)

    @property
    def bad_frame(self) -> bool:
        """True when the frame was at fault and not the model."""
        return isinstance(self.error, ImageFormatError | RegionError)


class CaptionWorker:
    """Captions the frames of a mailbox on its own thread, those of all cameras as one batch.

    Args:
        captioner: The model; used on this thread only.
        mailbox: Where frames come from, each camera's from its slot; closed by ``close``.
        options: Returns the options for the next frames.
        settings: Returns the parameters of the node.
        deliver: Takes the outcomes of each batch, on this thread.
    """

    def __init__(self, captioner: Captioner, mailbox: Mailbox[Frame],
                 options: Callable[[], CaptionOptions], settings: Callable[[], NodeParameters],
                 deliver: Callable[[Sequence[Outcome]], None]) -> None:
        self._captioner = captioner
        self._mailbox = mailbox
        self._options = options
        self._settings = settings
        self._deliver = deliver
        self._shown: dict[str, _Shown] = {}  # by camera
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name='captioner', daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Take the next frames now whatever max_rate_hz says."""
        self._hurry.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop after the batch in work; return False when that takes longer than the timeout."""
        self._mailbox.close()
        self._hurry.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        started_s = -1e9
        while not self._mailbox.is_closed:
            rate_hz = self._settings().max_rate_hz
            if rate_hz > 0:
                # Before the frames are taken, so that newer ones can still replace them.
                self._hurry.wait(max(started_s + 1 / rate_hz - time.monotonic(), 0))
            frames = self._mailbox.take_all()
            self._hurry.clear()
            if frames:
                started_s = time.monotonic()
                self._deliver(self._caption(frames, started_s))

    def _caption(self, frames: Sequence[Frame], started_s: float) -> list[Outcome]:
        options, settings = self._options(), self._settings()
        looks = [_Look(frame) for frame in frames]
        for look in looks:
            look.see(options)
            if settings.skip_static and look.error is None:
                look.same_as = self._last_of(look, options, started_s,
                                             settings.skip_static_max_silence_s)
        new = [look for look in looks if look.error is None and look.same_as is None]
        try:
            answers = caption_batch([(look.rgb, look.wanted) for look in new], self._captioner,
                                    options)
        except Exception as error:  # whatever a model raises, the node lives on
            answers = [error] * len(new)
        for look, answer in zip(new, answers):
            look.answer(answer)
        outcomes = [look.outcome(options, time.monotonic() - started_s) for look in looks]
        for outcome in outcomes:
            if not outcome.unchanged and outcome.frame.camera in self._shown:
                self._shown[outcome.frame.camera].outcome = outcome
        return outcomes

    def _last_of(self, look: _Look, options: CaptionOptions, now_s: float,
                 max_silence_s: float) -> Outcome | None:
        """Return what was said of a camera's last frame, if this one shows nothing new."""
        shown = self._shown.setdefault(look.frame.camera, _Shown(ChangeDetector()))
        changed = shown.detector.has_changed(look.rgb, look.regions or ())
        last = shown.outcome
        if (changed or last is None or last.error is not None or last.options != options
                or last.frame.session != look.frame.session
                or now_s - shown.captioned_s >= max_silence_s):
            shown.captioned_s = now_s
            return None
        return last


@dataclass
class _Shown:
    """What a camera showed when it was captioned last, and what was said of it."""

    detector: ChangeDetector
    outcome: Outcome | None = None
    captioned_s: float = 0.0


@dataclass
class _Look:
    """What is known of a frame so far: all of it, or what was before an error."""

    frame: Frame
    rgb: npt.NDArray[np.uint8] | None = None
    regions: list[Region] | None = None
    wanted: Sequence[Region | None] = ()
    scaled_mask: str = ''
    captions: Sequence[Caption] = ()
    error: Exception | None = None
    same_as: Outcome | None = None

    def see(self, options: CaptionOptions) -> None:
        """Convert the image and find what to describe of it."""
        try:
            self.rgb = image_from_msg(self.frame.image)
            self.regions = self._marked(options)
            self.wanted = wanted_regions(self.regions, options)
        except Exception as error:  # whatever is in a message, the node lives on
            self.error = error

    def answer(self, answer: Sequence[Caption] | Exception) -> None:
        """Take what the model said."""
        if isinstance(answer, Exception):
            self.error = answer
        else:
            self.captions = answer

    def outcome(self, options: CaptionOptions, latency_s: float) -> Outcome:
        """Return what became of the frame."""
        if self.same_as is not None:
            return replace(self.same_as, frame=self.frame, latency_s=latency_s, unchanged=True)
        return Outcome(self.frame, options, tuple(self.captions), latency_s, self.error,
                       self.scaled_mask, self.rgb,
                       None if self.regions is None else len(self.regions))

    def _marked(self, options: CaptionOptions) -> list[Region] | None:
        """Return the regions: pointed at, people, or those of the mask; None if nobody says."""
        if options.describe == 'scene':
            return None
        assert self.rgb is not None
        size = (self.rgb.shape[0], self.rgb.shape[1])
        mask, marks = self.frame.mask, self.frame.marks
        limits = {'min_area_px': options.min_region_area_px, 'max_regions': options.max_regions}
        if marks.any_region:
            return marks.regions(size, **limits)
        if hasattr(mask, 'detections'):
            return regions_from_detections(mask, size, **limits)
        if mask is None:
            return None
        regions = regions_from_labels(self._labels(size), **limits)
        return named(regions, marks.names) if marks.names else regions

    def _labels(self, size: tuple[int, int]) -> npt.NDArray[np.integer]:
        labels = labels_from_msg(self.frame.mask)
        if labels.shape != size:
            self.scaled_mask = (f'mask is {labels.shape[1]}x{labels.shape[0]}, wanted the size of '
                                f'its image, {size[1]}x{size[0]}: scaled')
            labels = scale_labels(labels, size)
        # Whoever names labels keeps to vision_msgs in all.
        return labels if self.frame.marks.names is None else without_unlabelled(
            labels, self.frame.mask.encoding)
