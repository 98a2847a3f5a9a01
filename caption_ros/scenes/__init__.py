# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The simulated tabletop: a seed to camera images, label images and reference captions.

It serves the demo's camera, the training of the small checkpoint and the held-out scores.
Seeds 0 to 99 999 are for evaluation only; training starts at ``FIRST_TRAINING_SEED``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.scenes.layout import BASE_HEIGHT, BASE_WIDTH, Layout, sample_layout
from caption_ros.scenes.render import render

__all__ = ['FIRST_TRAINING_SEED', 'FRAME_RATE_HZ', 'Frame', 'TabletopStream', 'scene_frame']

FIRST_TRAINING_SEED = 100_000
FRAME_RATE_HZ = 30.0  # pace at which a stream's objects move
_RAGGED_CELL_PX = 8


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera frame with what a segmenter would say of it.

    Attributes:
        rgb: Camera image, shape (H, W, 3), uint8.
        labels: Label image with the ragged edges of a segmenter, shape (H, W), uint8,
            0 background, 1 to N the objects from left to right.
        exact_labels: The same without the segmenter's errors.
        scene_caption: Reference caption of the whole frame.
        region_captions: Label value to reference caption of that object.
        layout: The scene graph behind it.
    """

    rgb: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    exact_labels: npt.NDArray[np.uint8]
    scene_caption: str
    region_captions: dict[int, str]
    layout: Layout


def _ragged(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Shift a label image's edges by a smooth random field, as a segmenter's edges are."""
    height, width = labels.shape
    reach = rng.uniform(1.0, 3.5) * width / BASE_WIDTH
    cells = (height // _RAGGED_CELL_PX + 1, width // _RAGGED_CELL_PX + 1, 2)
    field = (rng.standard_normal(cells) * reach).astype(np.float32)
    field = cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)
    field[..., 0] += np.arange(width, dtype=np.float32)[None]
    field[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(labels, field, None, cv2.INTER_NEAREST))


class TabletopStream:
    """Frames of one scene whose objects move from frame to frame.

    Args:
        seed: Scene seed, 0 or greater; 0 to 99 999 are for evaluation.
        width: Picture width, pixels.
        height: Picture height, pixels.
    """

    def __init__(self, seed: int, width: int = BASE_WIDTH, height: int = BASE_HEIGHT) -> None:
        self.layout = sample_layout(seed)
        self.width = width
        self.height = height

    def frame(self, index: int) -> Frame:
        """Return the frame with an index, 0 or greater; the same each time."""
        rng = np.random.default_rng([self.layout.seed, 1, index])
        rgb, exact = render(self.layout, index / FRAME_RATE_HZ, self.width, self.height, rng)
        return Frame(
            rgb=rgb, labels=_ragged(exact, rng), exact_labels=exact,
            scene_caption=self.layout.sentence,
            region_captions={i + 1: item.phrase for i, item in enumerate(self.layout.objects)},
            layout=self.layout,
        )


def scene_frame(seed: int, width: int = BASE_WIDTH, height: int = BASE_HEIGHT) -> Frame:
    """Return a still of the scene with a seed."""
    return TabletopStream(seed, width, height).frame(0)
