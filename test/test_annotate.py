# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Outlines where the regions are, text that can be read, whatever the image and the script."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_ros.annotate import annotate, label_colour
from caption_ros.errors import RegionError
from caption_ros.region import region_from_box, regions_from_labels


def grey(height, width, level=128):
    return np.full((height, width, 3), level, np.uint8)


def luminance(colour):
    """Relative luminance of WCAG 2, 0..1."""
    part = np.asarray(colour) / 255
    part = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(part @ (0.2126, 0.7152, 0.0722))


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def has_colour(picture, colour):
    return (np.abs(picture.astype(int) - colour) <= 2).all(2)


def test_regions_are_outlined_in_the_colour_of_their_label():
    labels = np.zeros((480, 640), np.uint8)
    labels[300:400, 100:200] = 5
    labels[100:200, 400:500] = 9
    five, nine = regions_from_labels(labels)
    both = annotate(grey(480, 640), [(five, 'one'), (nine, 'two')])
    alone = annotate(grey(480, 640), [(nine, 'two')])
    for picture in (both, alone):  # the same colour whatever else is there
        rows, cols = np.nonzero(has_colour(picture, label_colour(9))[90:, :])
        assert 396 <= cols.min() <= 401 and 497 <= cols.max() <= 503
        assert rows.max() + 90 <= 203
    assert has_colour(both, label_colour(5))[350, 98:103].any()
    assert not has_colour(alone, label_colour(5)).any()
    assert (both[340:360, 120:180] == 128).all()  # the region itself stays to be seen


def test_holes_are_outlined_too():
    labels = np.ones((480, 640), np.uint8)
    labels[200:300, 200:300] = 0
    picture = annotate(grey(480, 640), [(*regions_from_labels(labels), 'a frame')])
    assert has_colour(picture, label_colour(1))[250, 196:204].any()


def test_colours_of_neighbouring_labels_differ():
    for first, second in itertools.combinations(range(1, 9), 2):
        assert np.abs(np.subtract(label_colour(first), label_colour(second))).max() > 40
    assert all(0 <= part <= 255 for label in (-3, 0, 255, 65535, 2**31) for part in
               label_colour(label))


@pytest.mark.parametrize('level', [0, 128, 255], ids=['black', 'grey', 'white'])
def test_text_has_contrast_on_any_picture(level):
    picture = annotate(grey(480, 640, level), [(None, 'MMMMMMMM')])
    band = picture[-20:, :100].reshape(-1, 3)
    brightest, darkest = band.max(0), np.median(band, 0)
    assert contrast(brightest, darkest) > 7  # what WCAG 2 wants at its highest level


def letter_height(picture, before):
    changed = (picture != before).any(2)
    bright = (picture > 200).all(2) & changed
    return int(bright.any(1).sum())


@pytest.mark.parametrize('size', [(1, 1), (5, 7), (24, 32), (48, 64), (240, 320), (480, 640),
                                  (1080, 1920), (2160, 3840), (2, 2000), (2000, 2)], ids=str)
def test_text_is_legible_at_any_size(size):
    before = grey(*size)
    picture = annotate(before, [(None, 'HHHH')])
    grown = picture.shape[0] // size[0]
    assert picture.shape == (size[0] * grown, size[1] * grown, 3)
    assert (before == 128).all()
    if min(size) > 2 or max(size) < 2000:
        tall = letter_height(picture, np.full_like(picture, 128))
        assert 8 <= tall and tall >= min(picture.shape[:2]) / 60
    assert min(size) < 240 or grown == 1  # the size of a usual image stays


def test_long_text_is_broken_and_cut_inside_the_picture():
    short = annotate(grey(240, 320), [(None, 'one line')])
    long = annotate(grey(240, 320), [(None, 'word ' * 1000), (
        region_from_box((300, 0, 320, 10), (240, 320), 1), 'unbroken' * 100)])
    assert short.shape == long.shape
    assert ((long != 128).any(2).sum(0) > 0).mean() > 0.9


def test_texts_of_neighbours_do_not_cover_each_other():
    size = (480, 640)
    regions = [region_from_box((100, 200 + 3 * i, 140, 300 + 3 * i), size, i) for i in (1, 2)]
    picture = annotate(grey(*size), [(region, 'a mug of coffee') for region in regions])
    for region in regions:
        # The bar of each plate is there from top to bottom.
        bar = has_colour(picture, label_colour(region.label))[:, 100:104].all(1)
        assert bar.sum() >= 20


def test_long_texts_at_the_edges_do_not_cover_each_other():
    size = (480, 640)
    corners = [(0, 0), (600, 0), (0, 450), (600, 450)]
    regions = [region_from_box((x, y, x + 40, y + 30), size, i)
               for i, (x, y) in enumerate(corners, 1)]
    picture = annotate(grey(*size), [(region, 'a long caption ' * 9) for region in regions]
                       + [(None, 'a scene ' * 40)])
    rows = []
    for region in regions:  # those of the bar of its plate, which is wider than an outline
        bar = has_colour(picture, label_colour(region.label))
        wide = np.lib.stride_tricks.sliding_window_view(bar[:, :20], 6, 1).all(2).any(1)
        rows += list(np.flatnonzero(wide))
    assert len(rows) == len(set(rows)) >= 4 * 40


@pytest.mark.parametrize('text', [
    'Красная кружка', '红色的杯子', 'كوب أحمر', '赤いマグカップ', '😀', 'a\x00b\nc', '\ud800', '',
    '   ', 'é' * 400], ids=ascii)
def test_no_text_is_too_strange(text):
    before = grey(240, 320)
    picture = annotate(before, [(region_from_box((10, 100, 90, 180), (240, 320)), text)])
    assert picture.shape == before.shape


@given(st.text(max_size=60), st.integers(1, 70), st.integers(1, 70), st.integers(-9, 70000))
@settings(max_examples=25, deadline=None)
def test_any_text_on_any_small_picture(text, height, width, label):
    region = region_from_box((0, 0, width // 2 + 1, height // 2 + 1), (height, width), label)
    picture = annotate(grey(height, width), [(region, text), (None, text)])
    assert picture.shape[0] % height == 0 and picture.dtype == np.uint8


def test_a_region_of_another_image_is_refused():
    with pytest.raises(RegionError, match=r'image of \(48, 64\)'):
        annotate(grey(480, 640), [(region_from_box((0, 0, 5, 5), (48, 64)), 'text')])
