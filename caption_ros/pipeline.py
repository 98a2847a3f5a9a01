# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From one frame to its captions: the one path of nodes, bags, commands and Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import (
    CaptionError,
    CaptionRosError,
    ImageFormatError,
    OptionError,
    RegionError,
)
from caption_ros.region import Region, regions_from_labels, scale_labels


def caption_frame(rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer] | None,
                  captioner: Captioner,
                  options: CaptionOptions = CaptionOptions()) -> list[Caption]:
    """Caption an image, or the regions that a label image marks in it.

    Args:
        rgb: Image, shape (H, W, 3), uint8.
        labels: Label image, integers, 0 is background; None when there is no mask. Another
            size than the image's is scaled, nearest.
        captioner: The model.
        options: What to describe and how.

    Returns:
        Captions; the whole scene's first, then the regions' in order of their labels.

    Raises:
        ImageFormatError: If rgb is no image.
        RegionError: If regions are wanted and there are none.
        OptionError: If the model cannot do what an option asks.
        CaptionError: If the model fails or says nothing.
    """
    _check_image(rgb)
    regions = None
    if labels is not None and options.describe != 'scene':
        labels = scale_labels(labels, (rgb.shape[0], rgb.shape[1]))
        regions = regions_from_labels(labels, min_area_px=options.min_region_area_px,
                                      max_regions=options.max_regions)
    return caption_marked(rgb, regions, captioner, options)


def caption_frames(
    frames: Sequence[tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer] | None]],
    captioner: Captioner, options: CaptionOptions = CaptionOptions(),
) -> list[list[Caption] | CaptionRosError]:
    """Caption the frames of a batch as ``caption_frame`` does each.

    A frame that fails costs no other frame.

    Args:
        frames: Image and label image of each frame, as ``caption_frame`` takes them.
        captioner: The model.
        options: What to describe and how.

    Returns:
        For each frame, in the same order, its captions, or the error that ``caption_frame``
        raises for it.
    """
    answers: list[list[Caption] | CaptionRosError] = []
    for rgb, labels in frames:
        try:
            answers.append(caption_frame(rgb, labels, captioner, options))
        except CaptionRosError as error:
            answers.append(error)
    return answers


def caption_marked(rgb: npt.NDArray[np.uint8], regions: Sequence[Region] | None,
                   captioner: Captioner,
                   options: CaptionOptions = CaptionOptions()) -> list[Caption]:
    """Caption an image, or the regions that somebody marked in it, as ``describe`` says.

    Args:
        rgb: Image, shape (H, W, 3), uint8.
        regions: Regions of this image; None when nobody marks any.
        captioner: The model.
        options: What to describe and how.

    Raises:
        ImageFormatError: If rgb is no image.
        RegionError: If regions are wanted and there are none.
        OptionError: If the model cannot do what an option asks.
        CaptionError: If the model fails or says nothing.
    """
    describe = options.describe
    if describe == 'auto':
        describe = 'scene' if regions is None else 'regions'
    wanted: list[Region | None] = [None] if describe in ('scene', 'both') else []
    if describe in ('regions', 'both'):
        if regions is None:
            raise RegionError(f'describe is {describe!r} and there is no mask; '
                              'pass a label image or describe the scene')
        if not regions and describe == 'regions':
            raise RegionError('the mask marks no region of at least '
                              f'{options.min_region_area_px} px (0 is background)')
        wanted.extend(regions)
    return caption_regions(rgb, wanted, captioner, options)


def caption_regions(rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                    captioner: Captioner,
                    options: CaptionOptions = CaptionOptions()) -> list[Caption]:
    """Caption given regions of an image; None stands for the whole scene.

    Raises:
        ImageFormatError: If rgb is no image.
        RegionError: If a region belongs to an image of another size.
        OptionError: If the model cannot do what an option asks.
        CaptionError: If the model fails, says nothing or leaves a region out.
    """
    _check_image(rgb)
    for region in regions:
        if region is not None and tuple(region.image_size) != rgb.shape[:2]:
            raise RegionError(f'the region belongs to an image of {region.image_size} (height, '
                              f'width), got an image of {rgb.shape[:2]}')
    if options.candidates > 1 and getattr(captioner, 'filter_name', None) is None:
        raise OptionError(f'candidates is {options.candidates} and there is no filter to choose '
                          'among them; set a filter or candidates 1')
    if not regions:
        return []
    captions = captioner.caption(rgb, regions, options)
    if len(captions) != len(regions):
        raise CaptionError(f'model {captioner.name!r} gave {len(captions)} captions for '
                           f'{len(regions)} regions')
    if not all(caption.text.strip() for caption in captions):
        raise CaptionError(f'model {captioner.name!r} gave an empty caption')
    return captions


def _check_image(rgb: npt.NDArray[np.uint8]) -> None:
    shape, dtype = getattr(rgb, 'shape', None), getattr(rgb, 'dtype', None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ImageFormatError(f'image must be (H, W, 3) uint8, got {shape} {dtype}')
