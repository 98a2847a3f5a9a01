# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Regions that others mark: boxes, turned boxes, people, names; and detections out."""

from __future__ import annotations

from types import SimpleNamespace as Message

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_ros.errors import RegionError
from caption_ros.region import regions_from_labels
from caption_ros.region_message import (
    named,
    names_from_label_info,
    region_from_normalised,
    region_from_roi,
    regions_from_detections,
    without_unlabelled,
)

SIZE = (48, 64)


def roi(x, y, width, height):
    return Message(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False)


def detection(x, y, wide, tall, theta=0.0, id='', **classes):
    """A Detection2D by its fields; classes are name=score."""
    return Message(id=id, bbox=Message(
        center=Message(position=Message(x=x, y=y), theta=theta), size_x=wide, size_y=tall),
        results=[Message(hypothesis=Message(class_id=name, score=score))
                 for name, score in classes.items()])


def regions_of(*detections, **options):
    return regions_from_detections(Message(detections=list(detections)), SIZE, **options)


def test_a_roi_is_a_box_cut_at_the_image():
    assert region_from_roi(roi(10, 20, 8, 4), SIZE).box == (10, 20, 18, 24)
    assert region_from_roi(roi(60, 40, 100, 100), SIZE).box == (60, 40, 64, 48)


@pytest.mark.parametrize('message', [roi(3, 4, 0, 9), roi(3, 4, 9, 0), roi(0, 0, 0, 0)])
def test_a_roi_without_width_or_height_is_none(message):
    assert region_from_roi(message, SIZE) is None


def test_a_roi_outside_the_image_is_refused():
    with pytest.raises(RegionError, match='covers nothing of an image of 64x48'):
        region_from_roi(roi(64, 0, 9, 9), SIZE)


def test_normalised_edges_are_shares_of_the_image():
    face = region_from_normalised(Message(xmin=0.25, ymin=0.5, xmax=0.5, ymax=1.2), SIZE, 'f1')
    assert (face.box, face.id, face.label) == ((16, 24, 32, 48), 'f1', None)
    assert region_from_normalised(Message(xmin=1.1, ymin=0, xmax=1.5, ymax=1), SIZE) is None
    with pytest.raises(RegionError, match="the box of 'f1' is nan"):
        region_from_normalised(Message(xmin=float('nan'), ymin=0, xmax=1, ymax=1), SIZE, 'f1')


def test_detections_keep_ids_and_their_likeliest_class():
    first, second = regions_of(detection(20, 10, 8, 4, id='track_7', mug=0.9, cup=0.2),
                               detection(40, 30, 10, 10))
    assert (first.label, first.id, first.name, first.box) == (1, 'track_7', 'mug', (16, 8, 24, 12))
    assert (second.label, second.id, second.name) == (2, '', '')


def test_a_turned_box_marks_what_is_inside():
    region, = regions_of(detection(30, 24, 20, 20, theta=np.pi / 4))
    assert region.box == (15, 9, 45, 39)
    assert region.area_px == pytest.approx(400, rel=0.15)  # with its edge
    assert not region.mask[0, 0] and region.mask[15, 15]
    quarter, = regions_of(detection(30, 24, 20, 10, theta=np.pi / 2))
    assert quarter.box == (25, 14, 35, 34) and quarter.mask.all()


def test_small_and_too_many_boxes_are_left_out():
    boxes = [detection(10 + 3 * i, 20, 2 + i, 2 + i) for i in range(5)]
    assert [region.label for region in regions_of(*boxes, max_regions=2)] == [4, 5]
    assert [region.label for region in regions_of(*boxes, min_area_px=20)] == [4, 5]
    assert regions_of(detection(-50, 0, 10, 10), detection(10, 10, 0, 5)) == []
    assert regions_of() == []


@pytest.mark.parametrize('box, text', [
    ((float('nan'), 0, 1, 1), 'detection 1 of 1 is nan, 0, 0, 1, 1, wanted numbers'),
    ((0, float('inf'), 1, 1), 'inf'),
    ((0, 0, 1e300, 1), r'1e\+300'),
    ((0, 0, -4, 1), '-4 x 1 px, wanted 0 or more'),
])
def test_what_is_no_box_is_refused(box, text):
    with pytest.raises(RegionError, match=text):
        regions_of(detection(*box))


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2, *[st.floats(0, 1e6)] * 2,
                          st.floats(-7, 7)), max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_box_gives_a_region_inside_the_image_or_none(boxes):
    for region in regions_of(*(detection(*box) for box in boxes)):
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= SIZE[1] and 0 <= y0 < y1 <= SIZE[0]
        assert region.mask.shape == (y1 - y0, x1 - x0)
        assert 1 <= region.area_px == region.mask.sum()


def test_thousands_of_boxes_take_no_memory():
    many = Message(detections=[detection(32, 24, 64, 48)] * 5000)
    assert len(regions_from_detections(many, SIZE, max_regions=16)) == 16


def test_labels_get_their_names():
    info = Message(class_map=[Message(class_id=1, class_name='mug'),
                              Message(class_id=2, class_name=''),
                              Message(class_id=9, class_name='elsewhere')])
    labels = np.repeat(np.array([[1, 2, 3]], np.uint8), 4, 0)
    regions = named(regions_from_labels(labels), names_from_label_info(info))
    assert [region.name for region in regions] == ['mug', '', '']


@pytest.mark.parametrize('encoding, unlabelled', [
    ('mono8', 255), ('8UC1', 255), ('mono16', 65535), ('16UC1', 65535)])
def test_unlabelled_pixels_are_background(encoding, unlabelled):
    labels = np.array([[0, 1, 255, 65535]], np.int32)
    assert without_unlabelled(labels, encoding).tolist() == [
        [0 if value == unlabelled else value for value in (0, 1, 255, 65535)]]
    assert without_unlabelled(labels, '32SC1') is labels
