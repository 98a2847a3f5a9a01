# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One camera of caption_node: its topics, its frames, what was said of them, its health."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from caption_ros.errors import ImageFormatError
from caption_ros.health import (
    Counters,
    Level,
    Status,
    Trouble,
    input_status,
    is_silent,
    wrong_type,
)
from caption_ros.mailbox import Mailbox
from caption_ros.ros.diagnostics import LOST_SHARE, RecentCounts, mask_problem, transport_hint
from caption_ros.ros.intake import Frame, Intake
from caption_ros.ros.messages import header_msg, image_from_bytes
from caption_ros.ros.parameters import NodeParameters
from caption_ros.ros.pointing import Marks, Pointing, optional_msgs
from caption_ros.ros.reader import Reader
from caption_ros.ros.subscriptions import FollowingSubscription, compressed_topic
from caption_ros.ros.telling import Telling

if TYPE_CHECKING:
    from caption_ros.ros.look import Outcome

_COUNTS = ('images received', 'masks received', 'bad frames', 'images with stamp 0',
           'masks scaled', 'regions left out', 'frames replaced by a newer one',
           'frames skipped as unchanged', 'images lost in transport', 'masks lost in transport',
           'images missed', 'masks missed')


class Camera:
    """Listens to one camera and its segmenter, and publishes what is said of it.

    The node calls it with its own lock held, except where that is said.

    Args:
        node: Node that subscribes and publishes; a lifecycle node.
        name: Namespace of the camera's topics; empty has none.
        settings: Returns the parameters of the node.
        warn: Takes a kind of problem and its text, to log now and then.
        group: Group of the callbacks of what is not an image or a mask.
        reader: Takes images and masks.

    Attributes:
        name: As given.
        counters: What came and what became of it.
        trouble: The last thing that was wrong with the input.
        outcome: What became of the last frame since activation, without its pixels, or None.
        intake: From messages to frames.
        images: Subscription to images while active, or None.
        masks: Subscription to masks while active and wanted, or None.
    """

    def __init__(self, node: Node, name: str, settings: Callable[[], NodeParameters],
                 warn: Callable[[str, str], None], group: CallbackGroup,
                 reader: Reader) -> None:
        self._node = node
        self.name = name
        self._settings = settings
        self._warn = warn
        self._group = group
        self._reader = reader
        self.counters = Counters()
        for count in _COUNTS:
            self.counters.add(count, 0)
        self.trouble = Trouble()
        self.outcome: Outcome | None = None
        self._recent = RecentCounts()
        self.captions = node.create_lifecycle_publisher(String, self.topic('captions'), 10)
        self.caption = node.create_lifecycle_publisher(String, self.topic('caption'), 10)
        self.telling = Telling(node, self.topic)
        self.images: FollowingSubscription | None = None
        self.masks: FollowingSubscription | None = None
        self._boxes: FollowingSubscription | None = None
        self._pointing: Pointing | None = None
        self.use(Mailbox())

    def topic(self, plain: str) -> str:
        """Return the name of a topic of this camera."""
        return f'{self.name}/{plain}' if self.name else plain

    def use(self, mailbox: Mailbox[Frame]) -> None:
        """Leave frames in another mailbox from now on."""
        self.intake = Intake(mailbox, self.counters, self.note, self._marks, camera=self.name)

    def start(self, session: int) -> None:
        """Listen from now on, as part of an activation."""
        self._recent.clear()
        self.outcome = None
        self.trouble = Trouble()
        self.telling.start()
        self.intake.start(self._settings(), session)
        self._recent.add(self._counts())
        self.subscribe()

    def stop(self) -> None:
        """Listen no more, and forget what waits."""
        self.intake.stop()
        for subscription in (self.images, self.masks, self._boxes, self._pointing):
            if subscription is not None:
                subscription.close()
        self.images = self.masks = self._boxes = self._pointing = None

    def subscribe(self) -> None:
        """Subscribe to what the parameters ask for."""
        settings = self._settings()
        if self.images is None:
            compressed = settings.image_transport == 'compressed'
            image = self.topic('image')
            self.images = self._follow(CompressedImage if compressed else Image,
                                       compressed_topic(self._node, image) if compressed
                                       else image, self._on_image, 'images')
        if self._pointing is None:
            self._pointing = Pointing(self._node, self.topic, settings.people, self.note,
                                      self._group)
        wants_masks = settings.options.describe != 'scene'
        if wants_masks and self.masks is None:
            self.masks = self._follow(Image, self.topic('mask'), self._on_mask, 'masks')
            vision = optional_msgs('vision_msgs')
            if vision is not None:
                self._boxes = self._follow(vision.Detection2DArray, self.topic('boxes'),
                                           self._on_mask, 'masks')
            self.intake.set_mask_publishers(self._mask_publishers())
        elif not wants_masks and self.masks is not None:
            for subscription in (self.masks, self._boxes):
                if subscription is not None:
                    subscription.close()
            self.masks = self._boxes = None
            self.intake.set_mask_publishers(0)

    def follow(self) -> None:
        """Look at the publishers, and forget what has waited too long."""
        for subscription in (self.images, self.masks, self._boxes):
            if subscription is not None:
                subscription.follow()
        if self.masks is not None:
            self.intake.set_mask_publishers(self._mask_publishers())
        self.intake.expire()

    def note(self, kind: str, text: str) -> None:
        """Remember what is wrong with the input, and warn."""
        self.trouble.note(text, time.monotonic())
        self._warn(self.topic(kind), f'camera {self.name}: {text}' if self.name else text)

    def tell(self, outcome: Outcome) -> None:
        """Publish narration, picture and detections; on the worker's thread, without the lock.

        Of a frame that shows nothing new, the narration alone. What is pointed at is an answer to
        whoever points, and no news.
        """
        if outcome.rgb is None:
            return
        settings, marks = self._settings(), outcome.frame.marks
        if marks.roi is None:
            self.telling.narrate(
                outcome.captions, masked=outcome.regions is not None, now_s=time.monotonic(),
                source='people' if marks.people else 'mask',
                min_gap_s=settings.narration_min_gap_s,
                max_silence_s=settings.narration_max_silence_s)
        if not outcome.unchanged:
            self.telling.show(header_msg(outcome.frame.header), outcome.rgb, outcome.captions)

    def status(self, now_s: float, *, active: bool, sample: bool = False) -> Status:
        """Return the status of the input.

        Args:
            now_s: Steady time, seconds.
            active: Whether the node listens.
            sample: Whether to take note of the counts, once a second.
        """
        status = self._status(now_s, active, sample)
        return replace(status, name=f'input {self.name}') if self.name else status

    def _status(self, now_s: float, active: bool, sample: bool) -> Status:
        counts = self._counts()
        rises = self._recent.add(counts) if sample else self._recent.risen(counts)
        settings, images, masks = self._settings(), self.images, self.masks
        lost = rises['images lost in transport'] + rises['masks lost in transport']
        arrived = rises['images received'] + rises['masks received']
        last_s = self.intake.last_image_s
        since_s = None if last_s is None else now_s - last_s
        values = {name: str(counts[name]) for name in (*_COUNTS, *self.intake.counts())}
        values['image rate Hz'] = f'{rises["images received"] / self._recent.span:.1f}'
        values['last bad frame'] = self.trouble.text
        for name, subscription in (('image', images), ('mask', masks)):
            if subscription is not None:
                values[f'{name} topic'] = subscription.topic
                values[f'{name} publishers'] = str(subscription.publishers)
                values[f'{name} reliability'] = ('reliable' if subscription.reliable
                                                 else 'best effort')
        masks_lost = rises['masks lost in transport'] > rises['images lost in transport']
        best_effort = images is not None and images.best_effort_publishers > 0
        status = input_status(
            active=active, topic=images.topic if images is not None else '',
            publishers=images.publishers if images is not None else 0,
            since_image_s=since_s, stale_after_s=settings.stale_after_s,
            lost=lost if lost > LOST_SHARE * (lost + arrived) else 0,
            lost_of=masks.topic if masks_lost and masks is not None else '',
            transport_hint=transport_hint(
                best_effort, active and is_silent(since_s, settings.stale_after_s)),
            trouble=self.trouble, now_s=now_s, values=values,
            other_types=() if images is None else images.other_types,
            wanted_type='' if images is None else images.type)
        problem = self._mask_problem(rises) if status.level is Level.OK else ''
        return replace(status, level=Level.WARN, message=problem) if problem else status

    def _counts(self) -> dict[str, int]:
        return self.counters.all() | self.intake.counts()

    def _mask_problem(self, rises: dict[str, int]) -> str:
        masks = self.masks
        if masks is None or rises['pairs'] or self._marks().any_region:
            return ''  # with a region that is told no image waits for a mask
        for source in (masks, self._boxes):
            if source is not None and not source.publishers and source.other_types:
                return wrong_type(source.topic, source.other_types, source.type)
        settings = self._settings()
        return mask_problem(
            describe=settings.options.describe, topic=masks.topic,
            publishers=self._mask_publishers(), mask_timeout_s=settings.mask_timeout_s,
            mask_slop_s=settings.mask_slop_s, rises=rises)

    def _follow(self, kind: Any, topic: str, callback: Callable[[Any], None],
                what: str) -> FollowingSubscription:
        is_image = kind in (Image, CompressedImage)

        def take(message: Any) -> None:
            try:
                callback(image_from_bytes(message, kind) if is_image else message)
            except ImageFormatError as error:
                self.counters.add('bad frames')
                self.note('bad frame', f'bad message dropped: {error}')

        return FollowingSubscription(
            self._node, kind, topic, take,
            lambda count: self.counters.add(f'{what} lost in transport', count), self._reader,
            raw=is_image,
            on_missed=lambda count: self.counters.add(f'{what} missed', count))

    def _on_image(self, message: Any) -> None:
        self.intake.on_image(message)

    def _on_mask(self, message: Any) -> None:
        self.intake.on_mask(message)

    def _mask_publishers(self) -> int:
        return sum(source.publishers for source in (self.masks, self._boxes)
                   if source is not None)

    def _marks(self) -> Marks:
        pointing = self._pointing
        return Marks() if pointing is None else pointing.marks(self._settings().mask_timeout_s)
