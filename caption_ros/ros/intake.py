# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From messages as they come to frames for the worker: stamps checked, masks paired."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from caption_ros.health import Counters
from caption_ros.mailbox import Mailbox
from caption_ros.message import stamp_to_ns
from caption_ros.pairing import Pair, Pairer
from caption_ros.ros.parameters import NodeParameters
from caption_ros.ros.pointing import Marks

_SLOWEST_MASKS_S = 10.0  # masks that come less often come by chance
_GAPS = 2.0  # between masks, until a segmenter is said to be silent


@dataclass(frozen=True, eq=False)
class Frame:
    """An image message, its mask if it has one, and when it came.

    Attributes:
        image: With the fields of sensor_msgs/Image or CompressedImage.
        mask: With those of a sensor_msgs/Image of labels, vision_msgs/Detection2DArray, or None.
        arrived_s: Arrival of the image by a steady clock, seconds.
        session: Number of the activation that it belongs to.
        marks: Regions and names that were known when it was handed on.
        camera: Name of the camera that it is of.
    """

    image: Any
    mask: Any
    arrived_s: float
    session: int
    marks: Marks = Marks()
    camera: str = ''

    @property
    def header(self) -> Any:
        """Header of the image, with the fields of std_msgs/Header."""
        return self.image.header

    def has_image_of(self, other: Frame) -> bool:
        """Tell whether it is another's image, whatever is marked in it."""
        return self.arrived_s == other.arrived_s

    def is_same(self, other: Frame) -> bool:
        """Tell whether it is another's image with the same marks."""
        return self.has_image_of(other) and self.marks is other.marks

    def without_pixels(self) -> Frame:
        """Return it without image and mask, which take megabytes; the header stays."""
        return replace(self, image=SimpleNamespace(header=self.header), mask=None)


class Intake:
    """Pairs images with masks and leaves the newest frame in the mailbox.

    Args:
        mailbox: Where frames go.
        counters: Where it counts.
        warn: Takes a kind of problem and its text.
        marks: Returns the regions and names that are known now.
        camera: Name of the camera, and of its slot in the mailbox.
    """

    def __init__(self, mailbox: Mailbox[Frame], counters: Counters,
                 warn: Callable[[str, str], None], marks: Callable[[], Marks] = Marks,
                 camera: str = '') -> None:
        self._marks = marks
        self._camera = camera
        self._mailbox = mailbox
        self._counters = counters
        self._warn = warn
        self._lock = threading.Lock()
        self._parameters: NodeParameters | None = None
        self._pairer = Pairer(0.0, 1.0)
        self._session = 0
        self._mask_publishers = 0
        self._are_masks_expected = False
        self._last_mask_s = 0.0
        self._mask_gap_s = 0.0
        self.newest: Frame | None = None
        self.newest_s = 0.0  # when it was handed on
        self.last_image_s: float | None = None

    def start(self, parameters: NodeParameters, session: int) -> None:
        """Take frames from now on."""
        with self._lock:
            self._session = session
            self._mask_publishers = 0
            self._are_masks_expected = False
            self._mask_gap_s = 0.0
            self.newest = self.last_image_s = None
            self._apply(parameters)

    def stop(self) -> None:
        """Take no more frames and forget those that wait."""
        with self._lock:
            self._parameters = None
            self._pairer.clear()
            self.newest = None

    def apply(self, parameters: NodeParameters) -> None:
        """Use new parameters from the next message on."""
        with self._lock:
            if self._parameters is not None:
                self._apply(parameters)

    def _apply(self, new: NodeParameters) -> None:
        old, self._parameters = self._parameters, new
        if old is None or (old.mask_slop_s, old.mask_timeout_s) != (
                new.mask_slop_s, new.mask_timeout_s):
            before = self._pairer
            self._pairer = Pairer(new.mask_slop_s, new.mask_timeout_s)
            self._pairer.take_over(before)

    def masks_alive(self) -> bool:
        """Tell whether masks may be expected: until an image has waited for any in vain."""
        return self._are_masks_expected

    def set_mask_publishers(self, count: int) -> None:
        """Take note of how many publishers the mask topic has."""
        with self._lock:
            if count > self._mask_publishers:
                self._expect_masks()
            elif count == 0:
                self._expect_none([])
            self._mask_publishers = count

    def on_image(self, message: Any) -> None:
        """Take an image message."""
        now_s = time.monotonic()
        with self._lock:
            if self._parameters is None:
                return
            self._counters.add('images received')
            self.last_image_s = now_s
            stamp_ns = stamp_to_ns(message.header.stamp)
            if stamp_ns == 0 and not self._parameters.accept_zero_stamp:
                self._counters.add('images with stamp 0')
                self._warn('zero stamp', 'image has stamp 0, wanted the time of exposure: dropped '
                           '(set accept_zero_stamp to caption such images)')
                return
            frame = Frame(message, None, now_s, self._session)
            self._expire(now_s)
            if not self._wants_mask():
                self._hand_on(frame)
                return
            self._hand_on_pair(
                self._pairer.add_image(stamp_ns, frame, now_s, len(message.data)))

    def on_mask(self, message: Any) -> None:
        """Take a mask message."""
        now_s = time.monotonic()
        with self._lock:
            if self._parameters is None:
                return
            self._counters.add('masks received')
            self._mask_gap_s = now_s - self._last_mask_s
            self._expect_masks()
            if self._marks().any_region:
                return  # images do not wait for it; one that did is older than what went on since
            pair = self._pairer.add_mask(stamp_to_ns(message.header.stamp), message, now_s,
                                         len(getattr(message, 'data', ())))
            self._hand_on_pair(pair)

    def expire(self) -> None:
        """Forget images and masks whose partner did not come in time."""
        with self._lock:
            if self._parameters is not None:
                self._expire(time.monotonic())

    def again(self, frame: Frame) -> None:
        """Leave a frame for the worker once more, unless a newer one waits."""
        with self._lock:
            if self.newest is not None and self.newest.is_same(frame):
                self._mailbox.put(self.newest, self._camera)

    def renew(self) -> Frame | None:
        """Return the newest frame; where the box that is pointed at is another since, with that.

        The frame with it is left for the worker. None where there is no frame, or where nothing
        is pointed at any more and the next one will have a mask.
        """
        with self._lock:
            frame = self.newest
            if frame is None or (marks := self._marks()).roi is frame.marks.roi:
                return frame
            if self._wants_mask():
                return None
            self.newest = replace(frame, marks=marks)
            self._mailbox.put(self.newest, self._camera)
            return self.newest

    def counts(self) -> dict[str, int]:
        """Return the pairing counters."""
        with self._lock:
            return {'pairs': self._pairer.paired,
                    'images without mask': self._pairer.images_without_mask,
                    'masks without image': self._pairer.masks_without_image,
                    'masks too late': self._pairer.masks_too_late}

    def _expect_masks(self) -> None:
        self._are_masks_expected = True
        self._last_mask_s = time.monotonic()

    def _expire(self, now_s: float) -> None:
        expired = self._pairer.expire(now_s)
        # Not by the time since the last mask alone: a camera may be slower than masks are.
        if not any(frame.arrived_s >= self._last_mask_s for frame in expired):
            return
        # A segmenter may be slower than mask_timeout_s, for all that it is in time.
        gap_s = self._mask_gap_s if self._mask_gap_s <= _SLOWEST_MASKS_S else 0.0
        if now_s - self._last_mask_s > _GAPS * gap_s:
            self._expect_none(expired)

    def _expect_none(self, expired: list[Frame]) -> None:
        """Expect no masks; hand on the newest image that has waited for one."""
        self._are_masks_expected = False
        self._mask_gap_s = 0.0
        if self._wants_mask():
            return
        waited = [*expired, *self._pairer.take_images()]
        if waited and (self.newest is None or waited[-1].arrived_s > self.newest.arrived_s):
            self._hand_on(waited[-1])

    def _wants_mask(self) -> bool:
        describe = self._parameters.options.describe if self._parameters is not None else 'scene'
        if describe == 'scene' or self._marks().any_region:
            return False
        return describe == 'regions' or self.masks_alive()

    def _hand_on_pair(self, pair: Pair | None) -> None:
        if pair is not None:
            image = pair.image
            self._hand_on(Frame(image.image, pair.mask, image.arrived_s, image.session))

    def _hand_on(self, frame: Frame) -> None:
        frame = replace(frame, marks=self._marks(), camera=self._camera)
        self.newest, self.newest_s = frame, time.monotonic()
        if self._mailbox.put(frame, self._camera):
            self._counters.add('frames replaced by a newer one')
