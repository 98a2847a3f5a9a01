# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pairing of images with masks that come later, by stamp.

A segmenter's mask carries the stamp of its image and comes 50 to 500 ms after it. What waits is
forgotten by its age since arrival, never by its stamp: so a looping recording, a clock that
jumps back, equal stamps and stamps of 0 need no special case.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

_REMEMBERED = 1000  # stamps: more than half a minute of a fast camera


@dataclass(frozen=True)
class Pair:
    """An image with its mask, and the image's stamp in nanoseconds."""

    stamp_ns: int
    image: Any
    mask: Any


@dataclass(frozen=True)
class _Waiting:
    stamp_ns: int
    item: Any
    arrived_s: float
    nbytes: int


class Pairer:
    """Keeps images until their mask comes, and masks until their image comes.

    Args:
        slop_s: Largest difference of stamps that still makes a pair, 0 or more; equal stamps
            go first. Stamps of 0 say nothing, so they pair with each other only.
        timeout_s: How long an image or mask waits, by a steady clock.
        max_images: Most images that wait, and most masks.
        max_bytes: Most bytes that waiting images hold, and waiting masks; the newest stays.

    Who wants the images that no mask came for calls expire() before adding.
    """

    def __init__(self, slop_s: float, timeout_s: float, max_images: int = 120,
                 max_bytes: int = 512 << 20) -> None:
        self._slop_ns = round(slop_s * 1e9)
        self._timeout_s = timeout_s
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._images: list[_Waiting] = []
        self._masks: list[_Waiting] = []
        self.paired = 0
        self.images_without_mask = 0
        self.masks_without_image = 0
        self.masks_too_late = 0
        self._expired: deque[int] = deque(maxlen=_REMEMBERED)  # stamps of images

    def take_images(self) -> list[Any]:
        """Remove and return the images that wait, oldest first; they have found no mask."""
        images = [waiting.item for waiting in self._images]
        self.images_without_mask += len(images)
        self._images = []
        return images

    def add_image(self, stamp_ns: int, item: Any, now_s: float, nbytes: int = 0) -> Pair | None:
        """Add an image; return a pair when its mask is already here."""
        self.expire(now_s)
        mask = self._take(self._masks, stamp_ns)
        if mask is not None:
            self.paired += 1
            return Pair(stamp_ns, item, mask.item)
        self._images.append(_Waiting(stamp_ns, item, now_s, nbytes))
        self.images_without_mask += self._shorten(self._images)
        return None

    def add_mask(self, stamp_ns: int, item: Any, now_s: float, nbytes: int = 0) -> Pair | None:
        """Add a mask; return a pair when its image is still here."""
        self.expire(now_s)
        image = self._take(self._images, stamp_ns)
        if image is not None:
            self.paired += 1
            return Pair(image.stamp_ns, image.item, item)
        self.masks_too_late += any(abs(stamp_ns - gone_ns) <= self._slop_ns
                                   for gone_ns in self._expired)
        self._masks.append(_Waiting(stamp_ns, item, now_s, nbytes))
        self.masks_without_image += self._shorten(self._masks)
        return None

    def expire(self, now_s: float) -> list[Any]:
        """Forget what has waited too long; return the images whose mask did not come."""
        limit = now_s - self._timeout_s
        gone = [waiting for waiting in self._images if waiting.arrived_s < limit]
        self._expired.extend(waiting.stamp_ns for waiting in gone if waiting.stamp_ns)
        lost = [waiting.item for waiting in gone]
        self.images_without_mask += len(lost)
        self._images = [waiting for waiting in self._images if waiting.arrived_s >= limit]
        masks = [waiting for waiting in self._masks if waiting.arrived_s >= limit]
        self.masks_without_image += len(self._masks) - len(masks)
        self._masks = masks
        return lost

    def take_over(self, other: Pairer) -> None:
        """Take over what waits in another, and its counts."""
        self._images, self._masks = other._images, other._masks
        self.paired = other.paired
        self.images_without_mask = other.images_without_mask
        self.masks_without_image = other.masks_without_image
        self.masks_too_late = other.masks_too_late

    def clear(self) -> None:
        """Forget everything that waits, uncounted."""
        self._expired.clear()
        self._images.clear()
        self._masks.clear()

    def _shorten(self, waiting: list[_Waiting]) -> int:
        """Drop the oldest until count and bytes are within bounds; return how many."""
        total = sum(one.nbytes for one in waiting)
        drop = 0
        while len(waiting) - drop > self._max_images or (
                total > self._max_bytes and len(waiting) - drop > 1):
            total -= waiting[drop].nbytes
            drop += 1
        del waiting[:drop]
        return drop

    def _take(self, waiting: list[_Waiting], stamp_ns: int) -> _Waiting | None:
        """Remove and return the best partner: nearest stamp, newest arrival among equals."""
        best, best_gap = -1, self._slop_ns
        for i, candidate in enumerate(waiting):
            if (candidate.stamp_ns == 0) != (stamp_ns == 0):
                continue
            gap = abs(candidate.stamp_ns - stamp_ns)
            if gap <= best_gap:
                best, best_gap = i, gap
        return waiting.pop(best) if best >= 0 else None
