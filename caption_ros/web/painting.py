# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From what a browser sends to pictures, label images and boxes; knows nothing of gradio."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.errors import ImageFormatError, RegionError
from caption_ros.picture import read_picture
from caption_ros.region import scale_labels

# Colours that one paints with; each is a region of its own.
COLOURS = ('#ff3b30', '#34c759', '#007aff', '#ffcc00', '#af52de')
MOST_PIXELS = 40_000_000
_SIDE_PX = 960  # of what the browser paints on
_PALETTE = np.array([[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in COLOURS],
                    np.int32)
# Not all that Pillow knows: EPS would run Ghostscript.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_PAINTED = 128  # alpha of a pixel that counts as painted


def read_upload(path: Path) -> npt.NDArray[np.uint8]:
    """Read an uploaded picture; its size is looked at before it is decoded.

    Returns:
        RGB image, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is no picture, broken or of more than 40 million pixels.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(), path.open('rb') as file:
            warnings.simplefilter('ignore')  # its size is judged here
            width, height = Image.open(file, formats=_FORMATS).size
            is_too_large = width * height > MOST_PIXELS
    except Image.DecompressionBombError:
        is_too_large = True
    except Exception as error:  # Pillow has many
        raise ImageFormatError(f'{path.name} is no picture; wanted a JPEG, PNG, WebP or the like'
                               ) from error
    if is_too_large:
        raise ImageFormatError(f'{path.name} has more than {MOST_PIXELS // 1_000_000} million '
                               'pixels; make it smaller first')
    try:
        return read_picture(path)
    except ImageFormatError as error:
        raise ImageFormatError(str(error).replace(str(path), path.name)) from error


def to_paint_on(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image (H, W, 3), made smaller if a browser would have too much of it."""
    height, width = rgb.shape[:2]
    scale = _SIDE_PX / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def img_tag(rgb: npt.NDArray[np.uint8], alt: str) -> str:
    """Return an image (H, W, 3) as an element of HTML that holds all of it."""
    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'


def painted_labels(layers: Sequence[npt.NDArray[np.uint8]],
                   size: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Return what is painted as a label image of a picture's size.

    Args:
        layers: Layers of paint, each (h, w, 4) uint8, of the size of what was painted on.
        size: Height and width of the picture.

    Returns:
        Label image, shape ``size``; 1 is the first of COLOURS and so on, 0 is unpainted. None
        when nothing is painted.

    Raises:
        RegionError: If all paint lies beside the picture, or a layer is no paint.
    """
    labels = np.zeros(size, np.uint8)
    any_paint = False
    for layer in layers:
        if layer.ndim != 3 or layer.shape[2] != 4 or 0 in layer.shape:
            raise RegionError(f'a layer of paint has the shape {layer.shape}, wanted (height, '
                              'width, 4); load the picture again')
        painted = layer[..., 3] >= _PAINTED
        if not painted.any():
            continue
        any_paint = True
        seen, which = np.unique(layer[painted][:, :3], axis=0, return_inverse=True)
        gaps = ((seen[:, None].astype(np.int32) - _PALETTE) ** 2).sum(-1)
        own = np.zeros(layer.shape[:2], np.uint8)
        own[painted] = (gaps.argmin(1) + 1)[which.reshape(-1)]
        own = scale_labels(own, size).astype(np.uint8)
        labels[own > 0] = own[own > 0]
    if any_paint and not labels.any():
        raise RegionError('the paint lies beside the picture; paint on the thing itself')
    return labels if any_paint else None


def box_of(corners: str, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the box that four numbers tell, cut to a picture; None if the text is empty.

    Args:
        corners: x0, y0, x1 and y1 in pixels, end exclusive, with commas or spaces between.
        size: Height and width of the picture.

    Raises:
        RegionError: If these are not four numbers, or they hold nothing of the picture.
    """
    words = corners.replace(',', ' ').split()
    if not words:
        return None
    try:
        x0, y0, x1, y1 = (round(max(-1e9, min(1e9, float(word)))) for word in words)
    except (ValueError, OverflowError):
        raise RegionError(f'box {corners[:60]!r} is not four numbers; wanted x0, y0, x1, y1 in '
                          'pixels, such as 40, 60, 200, 180') from None
    height, width = size
    cut = (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
    if cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise RegionError(f'box {x0}, {y0}, {x1}, {y1} holds nothing of the picture, which is '
                          f'{width}x{height}; wanted x0 < x1 and y0 < y1 inside of it')
    return cut
