# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Outlines of regions as polygons of few corners, for drawing."""

from __future__ import annotations

import cv2
import numpy as np

from caption_ros.region import Region

_MOST_POLYGONS, _MOST_CORNERS = 8, 64
_TOLERANCE_SHARE = 0.002  # of the image's longer side


def outlines(region: Region) -> list[list[int]]:
    """Return the outer edges of a region, the longest first.

    Args:
        region: Region of an image.

    Returns:
        At most 8 polygons, each x0, y0, x1, y1, ... in pixels of the image, at most 64 corners.
    """
    edges, _ = cv2.findContours(np.ascontiguousarray(region.mask).view(np.uint8),
                                cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE,
                                offset=(region.box[0], region.box[1]))
    polygons = []
    for edge in sorted(edges, key=len, reverse=True)[:_MOST_POLYGONS]:
        tolerance_px = max(1.0, _TOLERANCE_SHARE * max(region.image_size))
        corners = cv2.approxPolyDP(edge, tolerance_px, closed=True)
        while len(corners) > _MOST_CORNERS:
            tolerance_px *= 2
            corners = cv2.approxPolyDP(edge, tolerance_px, closed=True)
        polygons.append([int(value) for value in corners.ravel()])
    return polygons
