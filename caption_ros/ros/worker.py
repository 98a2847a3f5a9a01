# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The one thread that converts, captions and hands over; never a subscription callback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import ImageFormatError, RegionError
from caption_ros.mailbox import Mailbox
from caption_ros.message import image_from_msg, labels_from_msg
from caption_ros.pipeline import caption_marked
from caption_ros.region import Region, regions_from_labels, scale_labels
from caption_ros.region_message import named, regions_from_detections, without_unlabelled
from caption_ros.ros.intake import Frame


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one frame.

    Attributes:
        frame: The frame.
        options: The options that it was captioned with.
        captions: Its captions; empty when it failed.
        latency_s: From taking the frame to its captions, seconds.
        error: Why there are no captions, or None.
        scaled_mask: Text about a mask of another size than the image, or empty.
        rgb: The image, shape (H, W, 3), uint8; None when it could not be read.
        regions: How many regions it has; None when nobody said.
    """

    frame: Frame
    options: CaptionOptions
    captions: tuple[Caption, ...]
    latency_s: float
    error: Exception | None = None
    scaled_mask: str = ''
    rgb: npt.NDArray[np.uint8] | None = None
    regions: int | None = None

    @property
    def said(self) -> tuple[Caption, ...]:
        """The captions that the filter did not hold back."""
        return tuple(caption for caption in self.captions if not caption.held_back)

    @property
    def bad_frame(self) -> bool:
        """True when the frame was at fault and not the model."""
        return isinstance(self.error, ImageFormatError | RegionError)


class CaptionWorker:
    """Captions the frames of a mailbox on its own thread.

    Args:
        captioner: The model; used on this thread only.
        mailbox: Where frames come from; closed by ``close``.
        options: Returns the options for the next frame.
        max_rate_hz: Returns the most frames per second; 0 is no limit.
        deliver: Takes each outcome, on this thread.
    """

    def __init__(self, captioner: Captioner, mailbox: Mailbox[Frame],
                 options: Callable[[], CaptionOptions], max_rate_hz: Callable[[], float],
                 deliver: Callable[[Outcome], None]) -> None:
        self._captioner = captioner
        self._mailbox = mailbox
        self._options = options
        self._max_rate_hz = max_rate_hz
        self._deliver = deliver
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name='captioner', daemon=True)
        self._thread.start()

    def hurry(self) -> None:
        """Take the next frame now whatever max_rate_hz says."""
        self._hurry.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop after the frame in work; return False when that takes longer than the timeout."""
        self._mailbox.close()
        self._hurry.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        started_s = -1e9
        while not self._mailbox.is_closed:
            rate_hz = self._max_rate_hz()
            if rate_hz > 0:
                # Before the frame is taken, so that a newer one can still replace it.
                self._hurry.wait(max(started_s + 1 / rate_hz - time.monotonic(), 0))
            frame = self._mailbox.take()
            self._hurry.clear()
            if frame is not None:
                started_s = time.monotonic()
                self._deliver(self._caption(frame, started_s))

    def _caption(self, frame: Frame, started_s: float) -> Outcome:
        options = self._options()
        look = _Look(frame)
        try:
            look.see(options)
            assert look.rgb is not None
            look.captions = caption_marked(look.rgb, look.regions, self._captioner, options)
        except Exception as error:  # whatever a model raises, the node lives on
            look.error = error
        return Outcome(frame, options, tuple(look.captions), time.monotonic() - started_s,
                       look.error, look.scaled_mask, look.rgb,
                       None if look.regions is None else len(look.regions))


@dataclass
class _Look:
    """What is known of a frame so far: all of it, or what was before an error."""

    frame: Frame
    rgb: npt.NDArray[np.uint8] | None = None
    regions: list[Region] | None = None
    scaled_mask: str = ''
    captions: Sequence[Caption] = ()
    error: Exception | None = None

    def see(self, options: CaptionOptions) -> None:
        """Convert the image and find its regions: pointed at, people, or those of its mask."""
        self.rgb = image_from_msg(self.frame.image)
        size = (self.rgb.shape[0], self.rgb.shape[1])
        mask, marks = self.frame.mask, self.frame.marks
        limits = {'min_area_px': options.min_region_area_px, 'max_regions': options.max_regions}
        if options.describe == 'scene':
            return
        if marks.any_region:
            self.regions = marks.regions(size, **limits)
        elif hasattr(mask, 'detections'):
            self.regions = regions_from_detections(mask, size, **limits)
        elif mask is not None:
            self.regions = regions_from_labels(self._labels(size), **limits)
            if marks.names:
                self.regions = named(self.regions, marks.names)

    def _labels(self, size: tuple[int, int]) -> npt.NDArray[np.integer]:
        labels = labels_from_msg(self.frame.mask)
        if labels.shape != size:
            self.scaled_mask = (f'mask is {labels.shape[1]}x{labels.shape[0]}, wanted the size of '
                                f'its image, {size[1]}x{size[0]}: scaled')
            labels = scale_labels(labels, size)
        # Whoever names labels keeps to vision_msgs in all.
        return labels if self.frame.marks.names is None else without_unlabelled(
            labels, self.frame.mask.encoding)
