# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Picture and mask files to arrays, with their size checked before they are decoded."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.errors import ImageFormatError
from caption_ros.image import check_size

# What Pillow's readers raise for broken files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
           OverflowError, struct.error)


def _open(path: Path, *, is_mask: bool = False) -> Any:
    """Open a file, check its size, decode it and turn it upright by its orientation tag."""
    from PIL import Image, ImageOps

    if not path.is_file():
        raise ImageFormatError(f'{path} does not exist or is no file')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # damage raises here or does not matter
        try:
            with path.open('rb') as file:  # Pillow leaves files that it opens itself open
                picture: Image.Image = Image.open(file)
                check_size(picture.height, picture.width)
                if is_mask and picture.format == 'JPEG':
                    raise ImageFormatError('it is a JPEG, which changes label values; save the '
                                           'mask as PNG')
                picture.load()
            picture = ImageOps.exif_transpose(picture)
        except ImageFormatError as error:
            raise ImageFormatError(f'{path}: {error}') from error
        except (*_BROKEN, Image.DecompressionBombError) as error:
            raise ImageFormatError(f'{path} is broken or no picture: '
                                   f'{_one_line(error)}') from error
    if picture.mode == 'F':
        raise ImageFormatError(f'{path} holds floating point numbers, wanted 8 or 16 bit '
                               'integers; save it as PNG')
    return picture


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture file, upright by its orientation tag, transparency over white.

    Grey pictures of 16 bits lose the lower eight.

    Returns:
        RGB image, shape (H, W, 3), uint8.

    Raises:
        ImageFormatError: If it is missing, no picture, broken or too large.
    """
    from PIL import Image

    picture = _open(path)
    if picture.mode.startswith('I'):
        grey = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.mode in ('RGBA', 'LA', 'PA') or 'transparency' in picture.info:
        layer = picture.convert('RGBA')
        paper = Image.new('RGBA', layer.size, 'white')
        picture = Image.alpha_composite(paper, layer)
    return np.asarray(picture.convert('RGB'))


def read_labels(path: Path) -> npt.NDArray[np.integer]:
    """Read a mask or label image file.

    A file of one channel or a palette gives its values, and so does a colour file that is grey
    all over. A file that has transparency gives one region: what is neither transparent nor
    black, or, where all is black, what is not transparent. One bright colour on dark is one
    region too; several have no order of labels, and JPEG changes values: both are refused.

    Returns:
        Label image, shape (H, W), integer, 0 is background.

    Raises:
        ImageFormatError: If it is missing, no picture, broken, too large or no label image.
    """
    picture = _open(path, is_mask=True)
    if picture.mode in ('1', 'L', 'P') or picture.mode.startswith('I'):
        labels = np.asarray(picture)
        return labels.astype(np.uint8) * 255 if labels.dtype == np.bool_ else labels
    pixels = np.asarray(picture.convert('RGBA'))
    shown = pixels[..., 3] > 127
    if not shown.all():
        bright = shown & (pixels[..., :3] > 127).any(axis=2)
        return (bright if bright.any() else shown).astype(np.uint8) * 255
    grey = pixels[..., 0]
    if (grey[..., None] == pixels[..., 1:3]).all():
        return grey
    colours = (pixels[..., :3] > 127) @ np.array([1, 2, 4], np.uint8)  # 0 is dark
    if len(np.unique(colours[colours > 0])) != 1:
        raise ImageFormatError(f'{path} is a mask of several colours, wanted grey, where 0 is '
                               'background and each other value one region')
    return (colours > 0).astype(np.uint8) * 255


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
