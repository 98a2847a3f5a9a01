# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures with their regions outlined and their captions written on."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.errors import RegionError
from caption_ros.region import Box, Region

Colour = tuple[int, int, int]

_LEAST_WIDTH, _LEAST_HEIGHT = 320, 120  # below that no text is legible: pixels become squares
_MOST_GROWN = 4096
_LETTER_SHARE = 1 / 26  # of the shorter side
_LEAST_LETTER_PX = 13
_LINES_OF_A_REGION, _LINES_OF_THE_SCENE = 2, 3
_MOST_LETTERS = 300
_PLATE, _INK = 20, 245  # grey levels under and of letters: a contrast of 16 to 1
_PLATE_SHARE = 0.8  # the picture shines through the rest
_GOLDEN_RATIO = 0.618034  # as a step of hue it keeps any run of labels apart
_FIRST_ASIAN = 0x2E80
_ASIAN_FONTS = ('NotoSansCJK-Regular.ttc', 'wqy-zenhei.ttc', 'DroidSansFallbackFull.ttf')
_OTHER_FONTS = ('NotoSans-Regular.ttf', 'DejaVuSans.ttf', 'LiberationSans-Regular.ttf')


def label_colour(label: int) -> Colour:
    """Return the colour of a label, the same in each frame: red, green, blue, 0..255."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def annotate(rgb: npt.NDArray[np.uint8], captions: Sequence[tuple[Region | None, str]],
             ) -> npt.NDArray[np.uint8]:
    """Draw captions on a picture.

    Letters grow with the picture. Letters of other scripts need a font of the system that has
    them; without one they show as boxes.

    Args:
        rgb: Image, shape (H, W, 3), uint8; left unchanged.
        captions: Regions of this image with what is said of them; None is the whole scene,
            written along the lower edge. Regions without a label take colours by their order.

    Returns:
        Picture, shape (H, W, 3), uint8; a whole number of times larger if the image is so small
        that no text could be read.

    Raises:
        RegionError: If a region belongs to an image of another size.
    """
    grown = _growth(*rgb.shape[:2])
    picture = np.repeat(np.repeat(rgb, grown, 0), grown, 1) if grown > 1 else rgb.copy()
    letter_px = max(_LEAST_LETTER_PX, round(min(picture.shape[:2]) * _LETTER_SHARE))
    shown = [(region, text, label_colour(order if region.label is None else region.label))
             for order, (region, text) in enumerate(captions, 1) if region is not None]
    for region, _, colour in shown:
        if tuple(region.image_size) != rgb.shape[:2]:
            raise RegionError(f'the region belongs to an image of {region.image_size} (height, '
                              f'width), got an image of {rgb.shape[:2]}')
        _outline(picture, region, colour, grown)
    taken: list[Box] = []
    for scene in (text for region, text in captions if region is None):
        plate = _plate(scene, letter_px, picture.shape[1], _LINES_OF_THE_SCENE)
        taken.append(_paste(picture, plate, (0, picture.shape[0] - plate.shape[0]), None))
    for region, text, colour in shown:  # texts above all outlines
        plate = _plate(text, letter_px, picture.shape[1], _LINES_OF_A_REGION)
        box = tuple(edge * grown for edge in region.box)
        taken.append(_paste(picture, plate, _place(plate, box, picture.shape, taken), colour))
    return picture


def _growth(height: int, width: int) -> int:
    wanted = max(-(-_LEAST_WIDTH // width), -(-_LEAST_HEIGHT // height))
    return max(min(wanted, _MOST_GROWN // max(height, width)), 1)


def _outline(picture: npt.NDArray[np.uint8], region: Region, colour: Colour, grown: int) -> None:
    mask = np.ascontiguousarray(region.mask).view(np.uint8)
    if grown > 1:
        mask = np.repeat(np.repeat(mask, grown, 0), grown, 1)
    offset = region.box[0] * grown, region.box[1] * grown
    edges, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    thick = max(2, round(min(picture.shape[:2]) / 240))
    cv2.drawContours(picture, edges, -1, (_PLATE,) * 3, thick + 2)  # shows on its own colour
    cv2.drawContours(picture, edges, -1, colour, thick)


def _place(plate: npt.NDArray[np.uint8], box: Sequence[int], shape: Sequence[int],
           taken: Sequence[Box]) -> tuple[int, int]:
    """Return where a plate goes: above, inside or below its box, or else near, on nothing."""
    tall, wide = plate.shape
    x = max(min(box[0], shape[1] - wide), 0)
    places = [max(min(y, shape[0] - tall), 0)
              for y in (box[1] - tall, box[1], box[3] - tall, box[3])]
    rows = sorted(range(0, shape[0] - tall + 1, tall), key=lambda y: abs(y - box[1]))
    for y in (*places, *rows):
        if not any(x < x1 and x0 < x + wide and y < y1 and y0 < y + tall
                   for x0, y0, x1, y1 in taken):
            return x, y
    return x, places[0]


def _paste(picture: npt.NDArray[np.uint8], plate: npt.NDArray[np.uint8], at: tuple[int, int],
           colour: Colour | None) -> Box:
    """Lay a plate on the picture, with a bar of the region's colour; return where it lies."""
    x, y = max(at[0], 0), max(at[1], 0)
    part = picture[y:y + plate.shape[0], x:x + plate.shape[1]]
    ink = plate[:part.shape[0], :part.shape[1], None].astype(np.float32) / 255
    under = part * (1 - _PLATE_SHARE) + _PLATE * _PLATE_SHARE
    part[:] = under + (_INK - under) * ink
    if colour is not None:
        part[:, :max(3, plate.shape[0] // 6)] = colour
    return x, y, x + part.shape[1], y + part.shape[0]


@lru_cache(maxsize=128)
def _plate(text: str, letter_px: int, width_px: int, most_lines: int) -> npt.NDArray[np.uint8]:
    """Return text as a picture of its letters, shape (h, w), 0 to 255, at most width_px wide."""
    from PIL import Image, ImageDraw
    text = ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())[:_MOST_LETTERS]
    font = _font(letter_px, ord(max(text, default=' ')))
    edge = letter_px // 2
    lines = _lines(text, font, max(width_px - 2 * edge, letter_px), most_lines)
    step = round(letter_px * 1.3)
    wide = min(round(max(font.getlength(line) for line in lines)) + 2 * edge, width_px)
    plate = Image.new('L', (max(wide, 1), step * len(lines) + edge // 2))
    draw = ImageDraw.Draw(plate)
    for row, line in enumerate(lines):
        draw.text((edge, step * row + edge // 4), line, fill=255, font=font)
    return np.asarray(plate)


@lru_cache(maxsize=32)
def _font(letter_px: int, greatest: int) -> Any:
    """Return a font for text whose greatest code point is given."""
    from PIL import ImageFont
    names: tuple[str, ...] = ()  # Pillow's own has the letters of Western Europe
    if greatest > 0xFF:
        names = _OTHER_FONTS if greatest < _FIRST_ASIAN else (*_ASIAN_FONTS, *_OTHER_FONTS)
    for name in names:
        try:
            return ImageFont.truetype(name, letter_px)
        except OSError:  # not on this machine
            continue
    return ImageFont.load_default(letter_px)


def _lines(text: str, font: Any, width_px: int, most_lines: int) -> list[str]:
    """Break text into lines that fit; what is too much ends in an ellipsis."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < most_lines:
        fits = _longest(rest, font, width_px)
        if fits < len(rest):
            space = rest.rfind(' ', 1, fits + 1)
            fits = space if space > 0 else fits
        lines.append(rest[:fits])
        rest = rest[fits:].lstrip()
    if rest:
        lines[-1] = lines[-1][:_longest(lines[-1], font, width_px - font.getlength('…'))] + '…'
    return lines or ['']


def _longest(text: str, font: Any, width_px: float) -> int:
    """Return how many letters of a text fit into a width, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle]) <= width_px:
            low = middle
        else:
            high = middle - 1
    return low
