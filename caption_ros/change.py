# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a picture, or what is marked in it, has changed since another one, cheaply."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.region import Box, Region

_CELLS = (16, 12)  # across, down
_SAME_PLACE = 0.8  # least overlap of two boxes, intersection over union


class ChangeDetector:
    """Compares pictures by the mean colours of 16x12 cells.

    Means take sensor noise out and keep a change of one small thing, which the mean of the
    whole picture would drown.

    Args:
        threshold: Least difference of one cell that counts as a change, of 255 levels.
    """

    def __init__(self, threshold: float = 10.0) -> None:
        self._threshold = threshold
        self._kept: npt.NDArray[np.float32] | None = None
        self._marked: dict[object, Box] = {}

    def has_changed(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region] = ()) -> bool:
        """Tell whether a picture differs from the last one that did; the first one does.

        Args:
            rgb: Image, shape (H, W, 3), uint8.
            regions: What is marked in it; a change of labels, or of where they are by more than
                the ragged edges of a segmenter, is a change too.
        """
        # People and boxes have no label: by what they are called, or their place in the list.
        marked = {region.id or (i if region.label is None else region.label, region.label is None):
                  region.box for i, region in enumerate(regions)}
        small = cv2.resize(rgb, _CELLS, interpolation=cv2.INTER_AREA)
        colours = small.astype(np.float32)
        if (self._kept is not None and np.abs(colours - self._kept).max() < self._threshold
                and marked.keys() == self._marked.keys()
                and all(_overlap(box, self._marked[label]) >= _SAME_PLACE
                        for label, box in marked.items())):
            return False
        self._kept, self._marked = colours, marked
        return True


def _overlap(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes that are not empty, 0..1."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(across, 0) * max(down, 0)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other)]
    return both / (sum(areas) - both)
