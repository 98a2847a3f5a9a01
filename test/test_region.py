# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_ros import region as region_module
from caption_ros.errors import RegionError
from caption_ros.region import (
    Region,
    alpha_channel,
    crop,
    crop_box,
    patch_mask,
    region_cover,
    region_from_box,
    regions_from_labels,
    resize_mask,
    scale_labels,
)


def _labels(dtype=np.uint8):
    labels = np.zeros((6, 8), dtype)
    labels[1:3, 1:4] = 5
    labels[4, 7] = 2
    return labels


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.int64])
def test_every_value_but_zero_is_a_region(dtype):
    two, five = regions_from_labels(_labels(dtype))
    assert (two.label, two.box, two.area_px) == (2, (7, 4, 8, 5), 1)
    assert (five.label, five.box, five.area_px) == (5, (1, 1, 4, 3), 6)
    assert five.full_mask().sum() == 6 and five.full_mask()[1, 1]


def test_background_is_never_a_region():
    assert regions_from_labels(np.zeros((4, 4), np.uint8)) == []


def test_a_binary_mask_is_one_region():
    (region,) = regions_from_labels((_labels() > 0).astype(np.uint8) * 255)
    assert region.label == 255 and region.area_px == 7
    assert regions_from_labels(_labels() > 0)[0].label == 1


@pytest.mark.parametrize('value', [-3, 70_000, 2**31 - 1])
def test_values_beyond_16_bits_and_below_zero_are_regions(value):
    labels = np.zeros((4, 4), np.int32)
    labels[0, 0] = value
    assert [region.label for region in regions_from_labels(labels)] == [value]


def test_regions_come_in_the_order_of_their_values_with_negative_ones_first():
    labels = np.array([[300, 0, -128], [2, -1, 2]], np.int16)
    assert [(r.label, r.area_px) for r in regions_from_labels(labels)] == [
        (-128, 1), (-1, 1), (2, 2), (300, 1)]
    narrow = np.array([[127, 0, -128]], np.int8)
    assert [r.label for r in regions_from_labels(narrow)] == [-128, 127]


def test_a_noisy_label_image_makes_no_more_masks_than_wanted(monkeypatch):
    made = []
    monkeypatch.setattr(region_module, '_bounds',
                        lambda mask, real=region_module._bounds: made.append(1) or real(mask))
    labels = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    labels[:5] = 7
    regions = regions_from_labels(labels, max_regions=3)
    assert len(made) == len(regions) == 3 and 7 in [region.label for region in regions]


def test_areas_are_exact_beyond_what_float32_counts():
    labels = np.ones((4100, 4100), np.uint8)
    (region,) = regions_from_labels(labels)
    assert region.area_px == 4100 * 4100 == np.count_nonzero(region.mask)


def test_a_region_keeps_the_holes_of_its_mask():
    labels = np.ones((3, 3), np.uint8)
    labels[1, 1] = 0
    (region,) = regions_from_labels(labels)
    assert region.area_px == 8 and not region.mask[1, 1]


def test_the_largest_regions_stay_in_the_order_of_their_labels():
    labels = np.zeros((3, 6), np.uint8)
    labels[0, :1], labels[1, :3], labels[2, :2] = 1, 2, 3
    assert [r.label for r in regions_from_labels(labels, max_regions=2)] == [2, 3]
    assert [r.label for r in regions_from_labels(labels, min_area_px=3)] == [2]


@pytest.mark.parametrize('labels', [
    pytest.param(np.zeros((2, 2, 3), np.uint8), id='three channels'),
    pytest.param(np.zeros((2, 2), np.float32), id='floats'),
    pytest.param(np.zeros((0, 2), np.uint8), id='no pixels'),
])
def test_what_is_no_label_image_is_refused(labels):
    with pytest.raises(RegionError, match='label image must be'):
        regions_from_labels(labels)


def test_labels_scale_without_new_values():
    scaled = scale_labels(_labels(), (12, 16))
    assert scaled.shape == (12, 16) and set(np.unique(scaled)) == {0, 2, 5}
    assert (scaled == 5).sum() == 4 * 6


def test_a_box_is_clipped_to_the_image():
    region = region_from_box((-5, 2, 4, 99), (10, 20))
    assert region.box == (0, 2, 4, 10) and region.area_px == 32


@pytest.mark.parametrize('box', [(30, 0, 40, 5), (5, 5, 5, 9), (6, 5, 2, 9)])
def test_a_box_that_covers_nothing_is_refused(box):
    with pytest.raises(RegionError, match='covers nothing of an image of 20x10 pixels'):
        region_from_box(box, (10, 20))


def test_the_alpha_channel_has_the_values_of_alpha_clip():
    mask = np.array([[True, False]])
    assert alpha_channel(mask).tolist() == pytest.approx(np.array([[[1.923077, -1.923077]]]))
    assert alpha_channel(mask).dtype == np.float32


@pytest.mark.parametrize('mask, text', [
    (np.zeros((4, 4), np.uint8), r'mask must be \(H, W\) bool, got \(4, 4\) uint8'),
    (np.zeros((2, 2), np.bool_), 'must have a pixel inside'),
])
def test_an_alpha_channel_of_nothing_is_refused(mask, text):
    with pytest.raises(RegionError, match=text):
        alpha_channel(mask)


def test_a_mask_shrinks_to_the_share_it_covers():
    mask = np.zeros((4, 4), np.bool_)
    mask[:, 0] = True
    assert resize_mask(mask, (2, 2)).tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_patches_are_row_major_and_one_pixel_still_has_one():
    region = region_from_box((8, 0, 16, 8), (16, 16))
    assert patch_mask(region, (2, 2)).tolist() == [False, True, False, False]
    pixel = region_from_box((0, 15, 1, 16), (16, 16))
    assert patch_mask(pixel, (2, 2)).tolist() == [False, False, True, False]


def test_a_patch_counts_from_a_quarter_of_its_area():
    quarter = region_from_box((0, 0, 4, 4), (16, 16))
    assert patch_mask(quarter, (2, 2)).tolist() == [True, False, False, False]
    mostly_right = region_from_box((7, 0, 16, 8), (16, 16))
    assert patch_mask(mostly_right, (2, 2)).tolist() == [False, True, False, False]


@pytest.mark.parametrize('size', [(8, 1000), (1000, 8), (5, 5)])
def test_one_pixel_lies_on_its_own_patch_whatever_the_shape(size):
    height, width = size
    for y in range(0, height, max(1, height // 5)):
        for x in range(0, width, max(1, width // 5)):
            pixel = region_from_box((x, y, x + 1, y + 1), size)
            cover = resize_mask(pixel.full_mask(), (14, 14))
            assert cover.max() > 0 and 0 <= cover.min() and cover.max() <= 1
            row, col = divmod(int(np.flatnonzero(patch_mask(pixel, (14, 14)))[0]), 14)
            assert abs((row + 0.5) / 14 - (y + 0.5) / height) <= 0.5 / 14 + 0.5 / height
            assert abs((col + 0.5) / 14 - (x + 0.5) / width) <= 0.5 / 14 + 0.5 / width


sizes = st.tuples(st.integers(1, 200), st.integers(1, 300))


@settings(max_examples=200, deadline=None)
@given(size=st.one_of(sizes, st.sampled_from([(60, 80), (160, 240), (224, 112)])),
       new=st.one_of(sizes, st.sampled_from([(14, 14), (28, 28), (56, 80)])), data=st.data())
def test_a_region_covers_what_its_whole_mask_covers(size, new, data):
    height, width = size
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    mask = np.random.default_rng(x0 + y1).random((y1 - y0, x1 - x0)) < 0.7
    mask[0, 0] = True
    region = Region(1, (x0, y0, x1, y1), mask, int(mask.sum()), size)
    cover = region_cover(region, new)
    assert cover.shape == new and cover.dtype == np.float32
    np.testing.assert_allclose(cover, resize_mask(region.full_mask(), new), atol=1e-5)


def test_only_the_part_with_the_region_is_scaled(monkeypatch):
    scaled = []
    monkeypatch.setattr('caption_ros.region.resize_mask', lambda mask, size: scaled.append(
        (mask.shape, size)) or np.ones(size, np.float32))
    cover = region_cover(region_from_box((100, 31, 140, 32), (480, 640)), (224, 224))
    assert scaled == [((15, 40), (7, 14))]  # 480 / 224 is 15 / 7, 640 / 224 is 20 / 7
    assert cover.sum() == 7 * 14 and cover[14:21, 35:49].all()


@settings(max_examples=60, deadline=None)
@given(size=sizes, data=st.data())
def test_a_crop_holds_its_region_and_stays_in_the_image(size, data):
    height, width = size
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    region = region_from_box((x0, y0, x1, y1), size)
    left, top, right, bottom = crop_box(region)
    assert 0 <= left <= x0 < x1 <= right <= width
    assert 0 <= top <= y0 < y1 <= bottom <= height
    rgb = np.zeros((height, width, 3), np.uint8)
    cut, mask = crop(rgb, region.full_mask(), (left, top, right, bottom))
    assert cut.shape[:2] == mask.shape and mask.sum() == region.area_px


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int16, np.int32]))
def test_regions_and_background_make_up_the_label_image_again(seed, dtype):
    rng = np.random.default_rng(seed)
    values = np.array([0, 1, 2, 120, 255 if dtype == np.uint8 else -3], dtype)
    labels = rng.choice(values, (rng.integers(1, 12), rng.integers(1, 12)))
    again = np.zeros_like(labels)
    for region in regions_from_labels(labels):
        assert region.area_px == np.count_nonzero(region.mask)
        assert region.mask.any(axis=0)[[0, -1]].all() and region.mask.any(axis=1)[[0, -1]].all()
        again[region.full_mask()] = region.label
    assert np.array_equal(again, labels)
