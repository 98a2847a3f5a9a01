# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A frame on its way: from messages to an image and regions, to what became of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import ImageFormatError, RegionError
from caption_ros.message import image_from_msg, labels_from_msg
from caption_ros.pipeline import wanted_regions
from caption_ros.region import Region, count_regions, regions_from_labels, scale_labels
from caption_ros.region_message import named, regions_from_detections, without_unlabelled
from caption_ros.ros.intake import Frame


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
        rgb: The image, shape (H, W, 3), uint8; None when it could not be read, or is forgotten.
        regions: How many regions it has; None when nobody said.
        left_out: How many more its mask marks than max_regions allows.
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
    left_out: int = 0
    unchanged: bool = False

    @property
    def said(self) -> tuple[Caption, ...]:
        """The captions that the filter did not hold back."""
        return tuple(caption for caption in self.captions if not caption.held_back)

    @property
    def bad_frame(self) -> bool:
        """True when the frame was at fault and not the model."""
        return isinstance(self.error, ImageFormatError | RegionError)

    def without_pixels(self) -> Outcome:
        """Return it without image and mask, as it is remembered."""
        return replace(self, frame=self.frame.without_pixels(), rgb=None)


@dataclass
class Look:
    """What is known of a frame so far: all of it, or what was before an error."""

    frame: Frame
    options: CaptionOptions
    rgb: npt.NDArray[np.uint8] | None = None
    regions: list[Region] | None = None
    wanted: Sequence[Region | None] = ()
    scaled_mask: str = ''
    left_out: int = 0
    captions: Sequence[Caption] = ()
    error: Exception | None = None
    same_as: Outcome | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_seen: bool = False

    def see(self, then: Callable[[Look], None] | None = None) -> None:
        """Convert the image and find what to describe of it, once; others wait for that.

        Args:
            then: What is to be done with it before anybody else sees it.
        """
        with self._lock:
            if not self._is_seen:
                self._see()
                if then is not None and self.error is None:
                    then(self)
                self._is_seen = True

    def _see(self) -> None:
        try:
            self.rgb = image_from_msg(self.frame.image)
            self.regions = self._marked()
            self.wanted = wanted_regions(self.regions, self._options())
        except Exception as error:  # whatever is in a message, the node lives on
            self.error = error

    def _options(self) -> CaptionOptions:
        """Return the options; with both, the scene is described until something marks a region."""
        if self.regions is None and self.options.describe == 'both':
            return replace(self.options, describe='scene')
        return self.options

    def answer(self, answer: Sequence[Caption] | Exception) -> None:
        """Take what the model said."""
        if isinstance(answer, Exception):
            self.error = answer
        else:
            self.captions = answer

    def outcome(self, latency_s: float) -> Outcome:
        """Return what became of the frame."""
        if self.same_as is not None:
            return replace(self.same_as, frame=self.frame, rgb=self.rgb, latency_s=latency_s,
                           unchanged=True)
        return Outcome(self.frame, self.options, tuple(self.captions), latency_s, self.error,
                       self.scaled_mask, self.rgb,
                       None if self.regions is None else len(self.regions), self.left_out)

    def _marked(self) -> list[Region] | None:
        """Return the regions: pointed at, people, or those of the mask; None if nobody says."""
        options = self.options
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
        labels = self._labels(size)
        regions = regions_from_labels(labels, **limits)
        if len(regions) == options.max_regions:
            self.left_out = count_regions(
                labels, min_area_px=options.min_region_area_px) - len(regions)
        return named(regions, marks.names) if marks.names else regions

    def _labels(self, size: tuple[int, int]) -> npt.NDArray[np.integer]:
        try:
            labels = labels_from_msg(self.frame.mask)
        except ImageFormatError as error:
            raise ImageFormatError(f'the mask, not the image: {error}') from error
        if labels.shape != size:
            self.scaled_mask = (f'mask is {labels.shape[1]}x{labels.shape[0]}, wanted the size of '
                                f'its image, {size[1]}x{size[0]}: scaled')
            labels = scale_labels(labels, size)
        # Whoever names labels keeps to vision_msgs in all.
        return labels if self.frame.marks.names is None else without_unlabelled(
            labels, self.frame.mask.encoding)
