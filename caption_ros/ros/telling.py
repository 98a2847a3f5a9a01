# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What people get of captions: narration, pictures with captions on them, detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from caption_ros.annotate import annotate
from caption_ros.caption import Caption
from caption_ros.narration import Narrator
from caption_ros.region_message import detections_msg
from caption_ros.ros.messages import msg_from_array
from caption_ros.ros.pointing import optional_msgs

_PICTURE_DEPTH = 2


class Telling:
    """Publishes ``narration``, ``annotated`` and, with vision_msgs, ``detections``.

    Args:
        node: Node that publishes.
        topic: Makes the name of a topic of this camera from its plain name.
    """

    def __init__(self, node: Node, topic: Callable[[str], str]) -> None:
        self._narrations = node.create_publisher(String, topic('narration'), 10)
        self._pictures = node.create_publisher(Image, topic('annotated'),
                                               QoSProfile(depth=_PICTURE_DEPTH))
        self._vision = optional_msgs('vision_msgs')
        self._detections = None if self._vision is None else node.create_publisher(
            self._vision.Detection2DArray, topic('detections'), 10)
        self._narrator = Narrator()

    def start(self) -> None:
        """Forget what was said: a new activation begins."""
        self._narrator = Narrator()

    def narrate(self, captions: Sequence[Caption], *, masked: bool, source: str, now_s: float,
                min_gap_s: float, max_silence_s: float) -> None:
        """Publish a sentence when a frame brings news.

        Args:
            captions: All captions of the frame.
            masked: Whether the regions of the frame were known, also when there is none.
            source: Who knew them; see Narrator.update.
            now_s: Steady time, seconds.
            min_gap_s: Least time between two narrations.
            max_silence_s: Time after which to narrate again; 0 never does.
        """
        self._narrator.min_gap_s, self._narrator.max_silence_s = min_gap_s, max_silence_s
        sentence = self._narrator.update(captions, now_s, masked=masked, source=source)
        if sentence:
            self._narrations.publish(String(data=sentence))

    def show(self, header: Header, rgb: npt.NDArray[np.uint8],
             captions: Sequence[Caption]) -> None:
        """Publish picture and detections of one frame.

        Args:
            header: Header of the image.
            rgb: The image, shape (H, W, 3), uint8.
            captions: All captions of the frame; those held back are not shown.
        """
        said = [caption for caption in captions if not caption.held_back]
        # Drawing takes milliseconds, so it is done only for somebody.
        if self._pictures.get_subscription_count():
            picture = annotate(rgb, [(caption.region, caption.text) for caption in said])
            self._pictures.publish(msg_from_array(picture, 'rgb8', header))
        if self._detections is not None and self._vision is not None:
            self._detections.publish(detections_msg(said, header, self._vision))

    def counts(self) -> dict[str, int]:
        """Return what was narrated and what was not."""
        return {'narrations': self._narrator.narrations,
                'narrations repeated': self._narrator.repeats,
                'flickers not narrated': self._narrator.flickers}
