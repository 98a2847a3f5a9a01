# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Messages that mark regions in an image to regions, and captions to detections.

Takes messages of vision_msgs, hri_msgs and sensor_msgs by their fields, whoever read them. None
of these packages is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.errors import RegionError
from caption_ros.region import Box, Region, region_from_box

ImageSize = tuple[int, int]

# vision_msgs: the greatest value of a pixel's type is "unlabelled".
_UNLABELLED = {'mono8': 255, '8UC1': 255, 'mono16': 65535, '16UC1': 65535}
_STRAIGHT = 1e-3  # a box turned by less is upright
_FARTHEST = 1e6  # pixels, and radians


def region_from_roi(message: Any, image_size: ImageSize) -> Region | None:
    """Make a region of a sensor_msgs/RegionOfInterest; None when it has no width or height.

    Args:
        message: The box, in pixels.
        image_size: Height and width of the image.

    Raises:
        RegionError: If nothing of it lies in the image.
    """
    if not message.width or not message.height:
        return None
    x, y = int(message.x_offset), int(message.y_offset)
    return region_from_box((x, y, x + int(message.width), y + int(message.height)), image_size)


def region_from_normalised(message: Any, image_size: ImageSize, name: str = '') -> Region | None:
    """Make a region of an hri_msgs/NormalizedRegionOfInterest2D, edges from 0 to 1.

    Args:
        message: The box.
        image_size: Height and width of the image.
        name: What the region is known by, such as a REP-155 face id; it becomes its id.

    Returns:
        The region, or None when nothing of it lies in the image.

    Raises:
        RegionError: If an edge is no number.
    """
    height, width = image_size
    edges = (message.xmin * width, message.ymin * height,
             message.xmax * width, message.ymax * height)
    _check_finite(edges, f'the box of {name!r}' if name else 'the box')
    box = _inside(edges, image_size)
    return None if box is None else replace(region_from_box(box, image_size), id=name)


def regions_from_detections(message: Any, image_size: ImageSize, *, min_area_px: int = 1,
                            max_regions: int | None = None) -> list[Region]:
    """Make regions of a vision_msgs/Detection2DArray, with its ids and class names.

    A box is cut at the edges of the image, and one that is turned marks the pixels inside it.

    Args:
        message: The detections.
        image_size: Height and width of the image.
        min_area_px: Smaller regions, also those outside the image, are left out.
        max_regions: Keep at most that many, the largest.

    Returns:
        Regions in the order of the detections; their label is the position there, from 1.

    Raises:
        RegionError: If a box is no box.
    """
    boxes = []
    for number, detection in enumerate(message.detections, 1):
        box, what = detection.bbox, f'detection {number} of {len(message.detections)}'
        x, y, angle = box.center.position.x, box.center.position.y, box.center.theta
        _check_finite((x, y, angle, box.size_x, box.size_y), what)
        if box.size_x < 0 or box.size_y < 0:
            raise RegionError(f'{what} is {box.size_x:g} x {box.size_y:g} px, wanted 0 or more')
        corners = _corners((x, y), (box.size_x, box.size_y), angle)
        outer = _inside((*corners.min(0), *corners.max(0)), image_size)
        if outer is not None:
            boxes.append((number, outer, corners if abs(math.sin(2 * angle)) > _STRAIGHT else None,
                          detection))
    if max_regions is not None and len(boxes) > max_regions:
        # Before any mask is made: an array may hold any number of boxes.
        largest = sorted(boxes, key=lambda entry: -_area(entry[1]))[:max_regions]
        boxes = sorted(largest, key=lambda entry: entry[0])
    regions = [_detected(number, outer, corners, detection, image_size)
               for number, outer, corners, detection in boxes]
    return [region for region in regions if region.area_px >= max(min_area_px, 1)]


def _detected(number: int, outer: Box, corners: npt.NDArray[np.float64] | None, detection: Any,
              image_size: ImageSize) -> Region:
    best = max(detection.results, key=lambda result: result.hypothesis.score, default=None)
    region = replace(region_from_box(outer, image_size, number), id=str(detection.id),
                     name='' if best is None else str(best.hypothesis.class_id))
    if corners is None:
        return region
    x0, y0, x1, y1 = outer
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, np.round(corners - (x0, y0) - 0.5).astype(np.int32), 1)
    return replace(region, mask=mask.view(np.bool_), area_px=int(np.count_nonzero(mask)))


def names_from_label_info(message: Any) -> dict[int, str]:
    """Return the names of label values in a vision_msgs/LabelInfo."""
    return {int(entry.class_id): str(entry.class_name) for entry in message.class_map
            if entry.class_name}


def without_unlabelled(labels: npt.NDArray[np.integer], encoding: str,
                       ) -> npt.NDArray[np.integer]:
    """Turn the pixels that vision_msgs calls unlabelled into background.

    Args:
        labels: Label image, shape (H, W), integer.
        encoding: Encoding of the message it came in: 255 is unlabelled with 8 bits, 65535 with
            16, and nothing with other types.
    """
    unlabelled = _UNLABELLED.get(encoding)
    return labels if unlabelled is None else np.where(labels == unlabelled, 0, labels)


def named(regions: Iterable[Region], names: Mapping[int, str]) -> list[Region]:
    """Give regions the names of their labels."""
    return [region if region.label is None or region.label not in names
            else replace(region, name=names[region.label]) for region in regions]


def detections_msg(captions: Sequence[Caption], header: Any, types: Any) -> Any:
    """Make a vision_msgs/Detection2DArray of the captions of regions.

    The id is that of the region or else its label, the class the caption's text, the score the
    caption's.

    Args:
        captions: Captions of one frame; that of the scene is left out.
        header: Header of the frame's image.
        types: The module vision_msgs.msg.
    """
    detections = []
    for caption in captions:
        region = caption.region
        if region is None:
            continue
        x0, y0, x1, y1 = region.box
        detection = types.Detection2D(header=header, id=region.id or (
            '' if region.label is None else str(region.label)))
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = float(x1 - x0), float(y1 - y0)
        said = types.ObjectHypothesisWithPose()
        said.hypothesis.class_id, said.hypothesis.score = caption.text, float(caption.score)
        detection.results = [said]
        detections.append(detection)
    return types.Detection2DArray(header=header, detections=detections)


def _check_finite(values: Sequence[float], what: str) -> None:
    if not all(abs(value) <= _FARTHEST for value in values):  # false for NaN, too
        raise RegionError(f'{what} is {", ".join(f"{value:g}" for value in values)}, wanted '
                          f'numbers up to {_FARTHEST:g}')


def _corners(centre: tuple[float, float], size: tuple[float, float], angle: float,
             ) -> npt.NDArray[np.float64]:
    """Return the corners of a turned box, shape (4, 2), x and y in pixels."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    halves = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.divide(size, 2)
    # Rounded, so that a box with whole edges keeps them.
    return np.asarray((halves @ turn + centre).round(6))


def _inside(edges: Sequence[float], image_size: ImageSize) -> Box | None:
    """Return the pixels of the image that a box touches, or None."""
    height, width = image_size
    x0, x1 = (min(max(edge, 0.0), width) for edge in (edges[0], edges[2]))
    y0, y1 = (min(max(edge, 0.0), height) for edge in (edges[1], edges[3]))
    if x1 <= x0 or y1 <= y0:
        return None
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
