# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What others say about the frames that follow: a box to describe, people, names of labels."""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import RegionOfInterest

from caption_ros.region import Region
from caption_ros.region_message import (
    ImageSize,
    names_from_label_info,
    region_from_normalised,
    region_from_roi,
)

_ID = re.compile(r'[A-Za-z0-9_]{1,64}')  # what may stand in a topic name
_MOST_PEOPLE = 32
_RELIABLE = QoSProfile(depth=10)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # meets any publisher


def optional_msgs(package: str) -> ModuleType | None:
    """Return the message module of a package, or None where it is not installed."""
    try:
        return importlib.import_module(f'{package}.msg')
    except ImportError:
        return None


@dataclass(frozen=True)
class Marks:
    """Regions and names as they are known when a frame comes.

    Attributes:
        roi: The box pointed at, a sensor_msgs/RegionOfInterest, or None.
        people: Boxes of people by their ids, hri_msgs/NormalizedRegionOfInterest2D.
        names: Names of label values; None when nobody has told them.
    """

    roi: Any = None
    people: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[int, str] | None = None

    @property
    def any_region(self) -> bool:
        """True when there is something to describe without a mask."""
        return self.roi is not None or bool(self.people)

    def regions(self, image_size: ImageSize, *, min_area_px: int = 1,
                max_regions: int | None = None) -> list[Region]:
        """Return the regions in an image; the box that is pointed at comes before people.

        Raises:
            RegionError: If the box lies outside the image, or is none.
        """
        if self.roi is not None:
            pointed = region_from_roi(self.roi, image_size)
            return [] if pointed is None else [pointed]
        found = (region_from_normalised(box, image_size, name)
                 for name, box in self.people.items())
        kept = [region for region in found if region is not None and region.area_px >= min_area_px]
        largest = sorted(kept, key=lambda region: -region.area_px)[:max_regions]
        return [region for region in kept if region in largest]


class Pointing:
    """Listens to ``roi``, to ``mask_labels`` and, if asked, to the people of REP-155.

    Args:
        node: Node that subscribes.
        topic: Makes the name of a topic of this camera from its plain name.
        people: Whom to take for regions: none, faces or bodies.
        warn: Takes a kind of problem and its text.
        group: Group of the callbacks.
    """

    def __init__(self, node: Node, topic: Callable[[str], str], people: str,
                 warn: Callable[[str, str], None], group: CallbackGroup) -> None:
        self._node = node
        self._warn = warn
        self._group = group
        self._lock = threading.Lock()
        self._roi: Any = None
        self._names: dict[int, str] | None = None
        self._boxes: dict[str, tuple[float, Any]] = {}  # id to arrival and box
        self._followed: dict[str, Any] = {}  # id to subscription
        self._kind = people
        self._hri = optional_msgs('hri_msgs') if people != 'none' else None
        self._subscriptions: list[Any] = []
        try:
            self._listen(topic)
        except Exception:
            self.close()
            raise

    def _listen(self, topic: Callable[[str], str]) -> None:
        wanted = [(RegionOfInterest, topic('roi'), self._on_roi, _RELIABLE)]
        vision = optional_msgs('vision_msgs')
        if vision is not None and hasattr(vision, 'LabelInfo'):
            # Each kind of publisher gets a subscription that fits: names may have been told once,
            # before this node began, or with each mask.
            wanted += [(vision.LabelInfo, topic('mask_labels'), self._on_names, qos)
                       for qos in (_LATCHED, _RELIABLE)]
        if self._hri is not None:
            wanted.append((self._hri.IdsList, f'/humans/{self._kind}/tracked', self._on_tracked,
                           _NEWEST))
        for each in wanted:
            self._subscriptions.append(self._subscribe(*each))

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None],
                   qos: QoSProfile) -> Any:
        return self._node.create_subscription(kind, topic, callback, qos,
                                              callback_group=self._group)

    def close(self) -> None:
        """Unsubscribe."""
        with self._lock:
            gone = [*self._subscriptions, *self._followed.values()]
            self._subscriptions, self._followed = [], {}
        for subscription in gone:
            self._node.destroy_subscription(subscription)

    def marks(self, max_age_s: float) -> Marks:
        """Return what is known now.

        Args:
            max_age_s: A person not seen for longer is left out.
        """
        now_s = time.monotonic()
        with self._lock:
            return Marks(self._roi, {name: box for name, (at_s, box) in self._boxes.items()
                                     if now_s - at_s <= max_age_s}, self._names)

    def _on_roi(self, message: RegionOfInterest) -> None:
        with self._lock:
            self._roi = message if message.width and message.height else None

    def _on_names(self, message: Any) -> None:
        names = names_from_label_info(message)
        with self._lock:
            self._names = names

    def _on_tracked(self, message: Any) -> None:
        ids = self._usable(message.ids)
        with self._lock:
            gone = [self._followed.pop(name) for name in set(self._followed) - set(ids)]
            self._boxes = {name: box for name, box in self._boxes.items() if name in ids}
            new = [name for name in ids if name not in self._followed]
            for name in new:
                self._followed[name] = self._subscribe(
                    self._hri.NormalizedRegionOfInterest2D, f'/humans/{self._kind}/{name}/roi',
                    lambda box, name=name: self._on_person(name, box), _NEWEST)
        for subscription in gone:
            self._node.destroy_subscription(subscription)

    def _usable(self, ids: Sequence[str]) -> list[str]:
        ids = list(dict.fromkeys(ids))
        usable = [name for name in ids if _ID.fullmatch(name)]
        if len(usable) < len(ids) or len(usable) > _MOST_PEOPLE:
            self._warn('people', f'of {len(ids)} {self._kind} that are tracked {len(usable)} have '
                       f'an id of letters and digits; followed are at most {_MOST_PEOPLE}')
        return usable[:_MOST_PEOPLE]

    def _on_person(self, name: str, box: Any) -> None:
        with self._lock:
            if name in self._followed:
                self._boxes[name] = (time.monotonic(), box)
