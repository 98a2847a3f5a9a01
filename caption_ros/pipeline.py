# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From one frame to its captions: the one path of nodes, bags, commands and Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions, Frame
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
    return caption_marked(rgb, marked_regions(rgb, labels, options), captioner, options)


def marked_regions(rgb: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer] | None,
                   options: CaptionOptions) -> list[Region] | None:
    """Return the regions that a label image marks in an image, or None if nobody asks for them.

    Raises:
        ImageFormatError: If rgb is no image.
        RegionError: If labels are no label image.
    """
    _check_image(rgb)
    if labels is None or options.describe == 'scene':
        return None
    labels = scale_labels(labels, (rgb.shape[0], rgb.shape[1]))
    return regions_from_labels(labels, min_area_px=options.min_region_area_px,
                               max_regions=options.max_regions)


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
    wanted: list[Frame] = []
    for rgb, labels in frames:
        try:
            wanted.append((rgb, wanted_regions(marked_regions(rgb, labels, options), options)))
            answers.append([])
        except CaptionRosError as error:
            answers.append(error)
    said = iter(caption_batch(wanted, captioner, options))
    return [answer if isinstance(answer, CaptionRosError) else next(said) for answer in answers]


def caption_batch(frames: Sequence[Frame], captioner: Captioner,
                  options: CaptionOptions = CaptionOptions(),
                  ) -> list[list[Caption] | CaptionRosError]:
    """Caption given regions of several images in one batch, as ``caption_regions`` does each.

    A frame that fails costs no other frame.

    Returns:
        For each frame, in the same order, its captions, or the error that ``caption_regions``
        raises for it.
    """
    # A captioner of the user's own may know caption() alone.
    if len(frames) > 1 and hasattr(captioner, 'caption_frames'):
        try:
            for frame in frames:
                _check(*frame, captioner, options)
            said = captioner.caption_frames(frames, options)
            return [_checked(captions, frame[1], captioner)
                    for captions, frame in zip(said, frames, strict=True)]
        except (CaptionRosError, ValueError):
            pass  # one by one, to see which frame it was
    answers: list[list[Caption] | CaptionRosError] = []
    for rgb, regions in frames:
        try:
            answers.append(caption_regions(rgb, regions, captioner, options))
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
    return caption_regions(rgb, wanted_regions(regions, options), captioner, options)


def wanted_regions(regions: Sequence[Region] | None,
                   options: CaptionOptions) -> list[Region | None]:
    """Return what to caption of an image, as ``describe`` says; None is the whole scene.

    Args:
        regions: Regions that somebody marked in it; None when nobody marks any.
        options: What to describe.

    Raises:
        RegionError: If regions are wanted and there are none.
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
    return wanted


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
    _check(rgb, regions, captioner, options)
    if not regions:
        return []
    return _checked(captioner.caption(rgb, regions, options), regions, captioner)


def _check(rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None], captioner: Captioner,
           options: CaptionOptions) -> None:
    """Raise what caption_regions raises of an input that no model should see."""
    _check_image(rgb)
    for region in regions:
        if region is not None and tuple(region.image_size) != rgb.shape[:2]:
            raise RegionError(f'the region belongs to an image of {region.image_size} (height, '
                              f'width), got an image of {rgb.shape[:2]}')
    if options.candidates > 1 and getattr(captioner, 'filter_name', None) is None:
        raise OptionError(f'candidates is {options.candidates} and there is no filter to choose '
                          'among them; set a filter or candidates 1')


def _checked(captions: list[Caption], regions: Sequence[Region | None],
             captioner: Captioner) -> list[Caption]:
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
