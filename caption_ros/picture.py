# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Picture and mask files to arrays, with their size checked before they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.errors import ImageFormatError
from caption_ros.image import check_size


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError
    if not path.is_file():
        raise ImageFormatError(f'{path} does not exist or is no file')
    try:
        picture = Image.open(path)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError,
            ValueError) as error:
        raise ImageFormatError(f'{path} is no picture that can be read: {error}') from error
    check_size(picture.height, picture.width)
    return picture


def _upright(picture: Any, path: Path) -> Any:
    from PIL import ImageOps
    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageFormatError(f'{path} is broken: {error}') from error


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture file, upright by its orientation tag, transparency over white.

    Returns:
        RGB image, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is missing, no picture, broken or too large.
    """
    from PIL import Image
    picture = _upright(_open(path), path)
    if picture.mode.startswith('I;16') or picture.mode == 'I':
        grey = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ('RGBA', 'LA', 'PA') or 'transparency' in picture.info:
        layer = picture.convert('RGBA')
        paper = Image.new('RGBA', layer.size, 'white')
        picture = Image.alpha_composite(paper, layer)
    return np.asarray(picture.convert('RGB'))


def read_labels(path: Path) -> npt.NDArray[np.integer]:
    """Read a mask or label image file.

    One-channel and palette files give their values, a colour file one region: every pixel that
    is not black and, with an alpha channel, not transparent.

    Returns:
        Label image, shape (H, W), integer, 0 is background.

    Raises:
        ImageFormatError: If it is missing, no picture, broken or too large.
    """
    picture = _upright(_open(path), path)
    if picture.mode in ('1', 'L', 'P') or picture.mode.startswith('I'):
        labels = np.asarray(picture)
        return labels.astype(np.uint8) * 255 if labels.dtype == np.bool_ else labels
    pixels = np.asarray(picture.convert('RGBA'))
    inside = (pixels[..., :3] > 127).any(axis=2) & (pixels[..., 3] > 127)
    return inside.astype(np.uint8) * 255
