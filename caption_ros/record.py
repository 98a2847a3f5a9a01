# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of one frame: the text and the JSON record of the caption topics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caption_ros.caption import Caption

JOINER = '; '
_SECOND_NS = 1_000_000_000


def caption_text(captions: Sequence[Caption]) -> str:
    """Join the captions of a frame to the text of the ``caption`` topic."""
    return JOINER.join(caption.text for caption in captions)


def caption_record(captions: Sequence[Caption], *, stamp_ns: int, frame_id: str, model: str,
                   latency_s: float, age_s: float) -> dict[str, Any]:
    """Make the JSON values of the ``captions`` topic.

    Args:
        captions: Captions of one frame.
        stamp_ns: Stamp of the frame's image, nanoseconds.
        frame_id: Coordinate frame of the image.
        model: Name of the model.
        latency_s: From the moment the frame was taken up to its captions, seconds.
        age_s: From the image's stamp to now, seconds.
    """
    return {
        'stamp': {'sec': stamp_ns // _SECOND_NS, 'nanosec': stamp_ns % _SECOND_NS},
        'frame_id': frame_id,
        'model': model,
        'latency_s': round(latency_s, 6),
        'age_s': round(age_s, 6),
        'captions': [caption.to_dict() for caption in captions],
    }
