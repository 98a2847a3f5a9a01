# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Regions of an image: from label images and boxes to alpha channels, patch masks and crops.

Boxes are (x0, y0, x1, y1) in pixels, end exclusive. Image and mask always go through the same
geometry: what a function does to one it does to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.errors import RegionError

Box = tuple[int, int, int, int]
_MANY_LABELS = 1 << 16
_EXACT_IN_FLOAT32 = 1 << 24
_PATCH_SHARE = 0.25  # of a patch's area: less than that is edge, not region


@dataclass(frozen=True, eq=False)
class Region:
    """One region of an image.

    Attributes:
        label: Value in the label image, or None for a box.
        box: Smallest box around the region.
        mask: Region pixels inside the box, shape (y1 - y0, x1 - x0), bool.
        area_px: Number of region pixels, at least 1.
        image_size: Height and width of the image.
        id: What it is called by who found it, such as a tracker's number; mostly empty.
        name: The kind of thing by who found it, such as a class of a segmenter; mostly empty.
    """

    label: int | None
    box: Box
    mask: npt.NDArray[np.bool_]
    area_px: int
    image_size: tuple[int, int]
    id: str = ''
    name: str = ''

    def full_mask(self) -> npt.NDArray[np.bool_]:
        """Return the mask at the image's size, shape (H, W), bool."""
        full = np.zeros(self.image_size, np.bool_)
        x0, y0, x1, y1 = self.box
        full[y0:y1, x0:x1] = self.mask
        return full


def _areas(labels: npt.NDArray[np.integer]) -> dict[int, int]:
    """Return the number of pixels of each value other than 0, by ascending value."""
    low, high = min(int(labels.min()), 0), int(labels.max())
    if high - low >= _MANY_LABELS:
        values, counts = np.unique(labels, return_counts=True)
        return {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}
    if low < 0:
        labels = labels.astype(np.int64) - low
    bins = 256 if high - low < 256 else _MANY_LABELS
    narrow = _without_background(np.ascontiguousarray(
        labels, np.uint8 if bins == 256 else np.uint16).ravel(), -low)
    # OpenCV counts three times faster than bincount, which widens to 64 bit, but in float32.
    counts = (cv2.calcHist([narrow[None]], [0], None, [bins], [0, bins])[:, 0]
              if 0 < narrow.size <= _EXACT_IN_FLOAT32 else np.bincount(narrow, minlength=bins))
    return {int(v) + low: int(counts[v]) for v in np.flatnonzero(counts) if v + low}


def _without_background(values: npt.NDArray[Any], background: int) -> npt.NDArray[Any]:
    """Return contiguous values without most that are background: what is counted is the rest."""
    if background:
        return values
    whole = len(values) * values.itemsize // 8 * 8 // values.itemsize
    words = values[:whole].view(np.uint64)
    return np.concatenate([words[words != 0].view(values.dtype), values[whole:]])


def _bounds(mask: npt.NDArray[np.bool_]) -> Box:
    x, y, wide, tall = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + wide, y + tall


def regions_from_labels(
    labels: npt.NDArray[np.integer], *, min_area_px: int = 1, max_regions: int | None = None,
) -> list[Region]:
    """Split a label image into regions.

    Args:
        labels: Label image, shape (H, W), integer or bool; 0 is background, every other value
            one region, so a 0/255 mask is one region.
        min_area_px: Regions of fewer pixels are left out.
        max_regions: Keep at most that many, the largest.

    Returns:
        Regions in the order of their labels; empty when all is background.

    Raises:
        RegionError: If labels is not a 2-D integer array with pixels.
    """
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in 'iub':
        raise RegionError(f'label image must be (H, W) of integers, got {labels.shape} '
                          f'{labels.dtype}; give one number per pixel, 0 for background')
    if labels.dtype.kind == 'b':
        labels = labels.view(np.uint8)
    size = (int(labels.shape[0]), int(labels.shape[1]))
    areas = {label: area for label, area in _areas(labels).items() if area >= min_area_px}
    if max_regions is not None and len(areas) > max_regions:
        # Before any mask is made: a noisy label image may hold thousands of values.
        largest = set(sorted(areas, key=lambda label: -areas[label])[:max_regions])
        areas = {label: area for label, area in areas.items() if label in largest}
    regions = []
    for label, area in areas.items():
        whole = labels == label
        box = _bounds(whole)
        regions.append(Region(label, box, whole[box[1]:box[3], box[0]:box[2]].copy(), area, size))
    return regions


def count_regions(labels: npt.NDArray[np.integer], *, min_area_px: int = 1) -> int:
    """Return how many regions regions_from_labels finds where it may keep all."""
    return sum(area >= min_area_px for area in _areas(labels).values())


def scale_labels(
    labels: npt.NDArray[np.integer], size: tuple[int, int],
) -> npt.NDArray[np.integer]:
    """Scale a label image to (height, width) by nearest neighbour, keeping its values."""
    height, width = labels.shape
    if (height, width) == tuple(size):
        return labels
    rows = np.minimum(((np.arange(size[0]) + 0.5) * height / size[0]).astype(int), height - 1)
    cols = np.minimum(((np.arange(size[1]) + 0.5) * width / size[1]).astype(int), width - 1)
    return labels[np.ix_(rows, cols)]


def region_from_box(
    box: Sequence[int], image_size: tuple[int, int], label: int | None = None,
) -> Region:
    """Make a region of a box, clipped to the image.

    Args:
        box: x0, y0, x1, y1 in pixels, end exclusive.
        image_size: Height and width of the image.
        label: Value to carry along.

    Raises:
        RegionError: If the box has not four numbers or nothing of it lies in the image.
    """
    if len(box) != 4:
        raise RegionError(f'box must be x0 y0 x1 y1, got {len(box)} number(s)')
    height, width = image_size
    x0, x1 = (int(np.clip(int(v), 0, width)) for v in (box[0], box[2]))
    y0, y1 = (int(np.clip(int(v), 0, height)) for v in (box[1], box[3]))
    if x1 <= x0 or y1 <= y0:
        raise RegionError(f'box {tuple(int(v) for v in box)} covers nothing of an image of '
                          f'{width}x{height} pixels; it is x0 y0 x1 y1, end exclusive')
    mask = np.ones((y1 - y0, x1 - x0), np.bool_)
    return Region(label, (x0, y0, x1, y1), mask, mask.size, (int(height), int(width)))


def alpha_channel(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Turn a region mask into the normalised alpha channel that Alpha-CLIP expects.

    The mask must already have gone through the resize and crop of the image.

    Args:
        mask: Region pixels, shape (H, W), bool, True inside the region.

    Returns:
        Alpha channel, shape (1, H, W), float32, about +1.923 inside and -1.923 outside.

    Raises:
        RegionError: If mask is not a 2-D bool array or has no True pixel.

    References:
        Sun et al., Alpha-CLIP, CVPR 2024, arXiv:2312.03818.
    """
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise RegionError(f'mask must be (H, W) bool, got {mask.shape} {mask.dtype}')
    if not mask.any():
        raise RegionError('mask must have a pixel inside the region, got none')
    return normalise_alpha(mask.astype(np.float32))[None]


def normalise_alpha(coverage: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Map coverage 0..1 to the range of Alpha-CLIP's alpha channel, any shape, float32."""
    return np.asarray((coverage - np.float32(0.5)) / np.float32(0.26), np.float32)


def resize_mask(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Scale a mask; where it shrinks, by area averaging.

    Args:
        mask: Region pixels, shape (H, W), bool.
        size: Height and width wanted.

    Returns:
        Share of each new pixel that the region covers, shape size, float32, 0 to 1.
    """
    cover = mask.astype(np.float32)
    # OpenCV averages areas only if no side grows; else it would skip pixels, so shrink first.
    least = min(size[0], mask.shape[0]), min(size[1], mask.shape[1])
    for height, width in (least, size):
        if cover.shape != (height, width):
            cover = np.asarray(cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA),
                               np.float32)
    return cover


def region_cover(region: Region, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Scale a region's mask; see resize_mask.

    Where both sides shrink, only the part that holds the region is scaled, between places where
    an edge of pixels is one of new pixels, too: 480 to 224 has one every 15 pixels.

    Returns:
        Share of each new pixel that the region covers, shape size, float32, 0 to 1.
    """
    if size[0] > region.image_size[0] or size[1] > region.image_size[1]:
        return resize_mask(region.full_mask(), size)
    x0, y0, x1, y1 = region.box
    (top, bottom), rows = _block(y0, y1, region.image_size[0], size[0])
    (left, right), columns = _block(x0, x1, region.image_size[1], size[1])
    part = np.zeros((bottom - top, right - left), np.bool_)
    part[y0 - top:y1 - top, x0 - left:x1 - left] = region.mask
    cover = np.zeros(size, np.float32)
    new = cover[rows, columns]
    new[:] = resize_mask(part, (new.shape[0], new.shape[1]))
    return cover


def _block(start: int, end: int, length: int, cells: int) -> tuple[tuple[int, int], slice]:
    """Return the least pixels around start..end that are whole cells, and these cells."""
    blocks = math.gcd(length, cells)
    first, last = start * blocks // length, -(-end * blocks // length)
    return ((first * length // blocks, last * length // blocks),
            slice(first * cells // blocks, last * cells // blocks))


def _overlap(start: int, end: int, length: int, cells: int) -> npt.NDArray[np.float32]:
    """Return the share of each of the cells of a length that each pixel start..end fills."""
    edges = np.arange(cells + 1) * (length / cells)
    pixels = np.arange(start, end)
    high = np.minimum(edges[1:, None], pixels + 1)
    low = np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.clip(high - low, 0, None) * (cells / length), np.float32)


def patch_mask(region: Region, grid: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Tell which patches of a stretched image a region lies on.

    Args:
        region: Region of the image.
        grid: Rows and columns of patches that span the whole image.

    Returns:
        Row-major, shape (rows * cols,), bool, at least one True.
    """
    x0, y0, x1, y1 = region.box
    height, width = region.image_size
    # Exact areas as two products over the box: eight times faster than scaling the full mask.
    cover = (_overlap(y0, y1, height, grid[0]) @ region.mask.astype(np.float32)
             @ _overlap(x0, x1, width, grid[1]).T).reshape(-1)
    chosen = cover >= _PATCH_SHARE - 1e-6
    if not chosen.any():
        chosen[int(cover.argmax())] = True
    return np.asarray(chosen)


def crop_box(region: Region, margin: float = 0.15, min_size_px: int = 32) -> Box:
    """Return the box to crop for a region: with context, not too small, inside the image.

    Args:
        region: Region of the image.
        margin: Context on each side as a share of the box's longer side.
        min_size_px: Least width and height, as far as the image allows.
    """
    height, width = region.image_size
    x0, y0, x1, y1 = region.box
    pad = margin * max(x1 - x0, y1 - y0)

    def span(low: int, high: int, limit: int) -> tuple[int, int]:
        length = min(max(high - low + 2 * pad, min_size_px), limit)
        start = min(max((low + high - length) / 2, 0), limit - length)
        return int(np.floor(start)), min(int(np.ceil(start + length)), limit)

    left, right = span(x0, x1, width)
    top, bottom = span(y0, y1, height)
    return left, top, right, bottom


def crop(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.generic], box: Box,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.generic]]:
    """Cut the same box out of an image (H, W, 3) and a mask or label image (H, W)."""
    x0, y0, x1, y1 = box
    return rgb[y0:y1, x0:x1], mask[y0:y1, x0:x1]
