# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a picture has changed since another one, cheaply."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_CELLS = (16, 12)  # across, down


class ChangeDetector:
    """Compares pictures by the mean brightness of 16x12 cells.

    Means take sensor noise out and keep a change of one small thing, which the mean of the
    whole picture would drown.

    Args:
        threshold: Least difference of one cell that counts as a change, of 255 grey levels.
    """

    def __init__(self, threshold: float = 10.0) -> None:
        self._threshold = threshold
        self._kept: npt.NDArray[np.float32] | None = None

    def has_changed(self, rgb: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a picture differs from the last one that did; the first one does.

        Args:
            rgb: Image, shape (H, W, 3), uint8.
        """
        small = cv2.resize(rgb, _CELLS, interpolation=cv2.INTER_AREA)
        grey = small.astype(np.float32).mean(axis=2)
        if self._kept is not None and np.abs(grey - self._kept).max() < self._threshold:
            return False
        self._kept = grey
        return True
