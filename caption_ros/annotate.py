# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures with their regions outlined and their captions written on."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

_PALETTE = ((255, 92, 64), (64, 160, 255), (72, 200, 96), (255, 196, 0), (200, 96, 255),
            (0, 200, 200), (255, 128, 192), (160, 200, 64))
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PIXELS_PER_SIZE = 21.0  # height of a Hershey letter at scale 1


def _write(picture: npt.NDArray[np.uint8], text: str, at: tuple[int, int], scale: float,
           colour: tuple[int, int, int]) -> None:
    thick = max(1, round(scale * 1.6))
    (wide, tall), drop = cv2.getTextSize(text, _FONT, scale, thick)
    x = int(np.clip(at[0], 0, max(picture.shape[1] - wide - 6, 0)))
    y = int(np.clip(at[1], tall + 4, picture.shape[0] - drop - 2))
    cv2.rectangle(picture, (x, y - tall - 4), (x + wide + 6, y + drop), (24, 24, 24), -1)
    cv2.putText(picture, text, (x + 3, y - 2), _FONT, scale, colour, thick, cv2.LINE_AA)


def _lines(text: str, width_px: int, scale: float) -> list[str]:
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if lines[-1] and cv2.getTextSize(longer, _FONT, scale, 1)[0][0] > width_px - 12:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def annotate(
    rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer] | None,
    regions: Sequence[tuple[int | None, tuple[int, int, int, int], str]], scene: str = '',
) -> npt.NDArray[np.uint8]:
    """Draw captions on a picture.

    Args:
        rgb: Image, shape (H, W, 3), uint8; left unchanged.
        labels: Label image, shape (H, W), for the outlines; None draws boxes.
        regions: Label value, box (x0, y0, x1, y1, end exclusive) and caption of each region.
        scene: Caption of the whole image, written in a band below it.

    Returns:
        Picture, shape (H or more, W, 3), uint8.
    """
    picture = rgb.copy()
    height, width = rgb.shape[:2]
    scale = max(0.45, width / 640 * 0.52)
    for i, (label, box, _) in enumerate(regions):
        colour = _PALETTE[i % len(_PALETTE)]
        if labels is not None and label is not None:
            inside = (labels == label).astype(np.uint8)
            outline, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outline, -1, colour, max(2, width // 320))
        else:
            cv2.rectangle(picture, box[:2], box[2:], colour, max(2, width // 320))
    for i, (_, box, text) in enumerate(regions):  # texts above all outlines
        _write(picture, text, (box[0], box[1] - 4), scale, _PALETTE[i % len(_PALETTE)])
    if not scene:
        return picture
    lines = _lines(scene, width, scale)
    step = round(scale * _PIXELS_PER_SIZE * 1.7)
    band = np.full((step * len(lines) + 10, width, 3), 24, np.uint8)
    for row, line in enumerate(lines):
        cv2.putText(band, line, (8, step * (row + 1) - 2), _FONT, scale, (240, 240, 240),
                    max(1, round(scale * 1.6)), cv2.LINE_AA)
    return np.vstack([picture, band])
