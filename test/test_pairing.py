# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from caption_ros.pairing import Pair, Pairer

MS = 1_000_000
SECOND = 1_000_000_000


def _pairer(**settings):
    return Pairer(**{'slop_s': 0.01, 'timeout_s': 2.0, **settings})


def test_a_mask_350_ms_late_finds_its_image():
    pairer = _pairer()
    pairs = []
    for i in range(60):  # 30 Hz, every tenth frame segmented, its mask comes 350 ms later
        now = i / 30
        assert pairer.add_image(SECOND + i * 33 * MS, f'image {i}', now) is None
        if i >= 11 and (i - 11) % 10 == 0:
            pairs.append(pairer.add_mask(SECOND + (i - 11) * 33 * MS, f'mask {i - 11}', now))
    assert [(pair.image, pair.mask) for pair in pairs] == [
        (f'image {i}', f'mask {i}') for i in (0, 10, 20, 30, 40)]
    assert pairer.paired == 5


def test_a_looping_bag_pairs_in_every_loop():
    pairer = _pairer()
    now, pairs = 0.0, []
    for loop in range(3):
        for i in range(100):
            now += 1 / 30
            pairer.add_image(5 * SECOND + i * 33 * MS, f'{loop}/{i}', now)
            if i >= 11 and i % 10 == 1:
                pairs.append(pairer.add_mask(5 * SECOND + (i - 11) * 33 * MS, 'mask', now))
    assert [pair.image for pair in pairs] == [
        f'{loop}/{i}' for loop in range(3) for i in range(0, 90, 10)]


def test_a_jump_back_keeps_pairing_at_once():
    pairer = _pairer()
    pairer.add_image(100 * SECOND, 'before', 0.0)
    pairer.add_image(1 * SECOND, 'after', 0.1)
    assert pairer.add_mask(1 * SECOND, 'mask', 0.45).image == 'after'
    assert pairer.add_mask(100 * SECOND, 'mask', 0.46).image == 'before'


def test_stamps_of_zero_pair_by_arrival_newest_image_first():
    pairer = _pairer()
    pairer.add_image(0, 'old', 0.0)
    pairer.add_image(0, 'new', 0.1)
    assert pairer.add_mask(0, 'mask', 0.2) == Pair(0, 'new', 'mask')


def test_a_stamp_of_zero_never_pairs_with_a_real_stamp():
    pairer = _pairer(slop_s=10.0)
    pairer.add_image(1 * SECOND, 'image', 0.0)
    assert pairer.add_mask(0, 'mask', 0.1) is None


def test_equal_stamps_overwrite_nothing():
    pairer = _pairer()
    pairer.add_image(7, 'first', 0.0)
    pairer.add_image(7, 'second', 0.1)
    assert [pairer.add_mask(7, 'mask', 0.2).image for _ in range(2)] == ['second', 'first']


def test_a_mask_may_come_before_its_image():
    pairer = _pairer()
    assert pairer.add_mask(7, 'mask', 0.0) is None
    assert pairer.add_image(7, 'image', 0.1) == Pair(7, 'image', 'mask')


def test_an_image_is_used_once():
    pairer = _pairer()
    pairer.add_image(7, 'image', 0.0)
    assert pairer.add_mask(7, 'mask', 0.1) is not None
    assert pairer.add_mask(7, 'mask', 0.2) is None


@pytest.mark.parametrize('slop_s, gap_ms, pairs', [
    (0.0, 0, True), (0.0, 1, False), (0.01, 10, True), (0.01, 11, False)])
def test_slop_is_the_largest_difference_and_includes_itself(slop_s, gap_ms, pairs):
    pairer = _pairer(slop_s=slop_s)
    pairer.add_image(SECOND, 'image', 0.0)
    assert (pairer.add_mask(SECOND + gap_ms * MS, 'mask', 0.1) is not None) is pairs


def test_the_equal_stamp_wins_over_a_near_one():
    pairer = _pairer()
    pairer.add_image(SECOND, 'equal', 0.0)
    pairer.add_image(SECOND + 5 * MS, 'near', 0.1)
    assert pairer.add_mask(SECOND, 'mask', 0.2).image == 'equal'


def test_what_waits_too_long_is_counted_and_forgotten():
    pairer = _pairer()
    pairer.add_image(SECOND, 'image', 0.0)
    pairer.add_mask(9 * SECOND, 'mask', 0.0)
    assert pairer.expire(1.9) == []
    assert pairer.expire(2.1) == ['image']
    assert (pairer.images_without_mask, pairer.masks_without_image) == (1, 1)
    assert pairer.add_mask(SECOND, 'mask', 2.2) is None


def test_memory_is_bounded_by_count_and_by_bytes():
    few = _pairer(max_images=3)
    for i in range(5):
        few.add_image(SECOND + i, i, 0.0)
    assert few.images_without_mask == 2
    light = _pairer(slop_s=0.0, max_bytes=100)
    for i in range(5):
        light.add_image(SECOND + i, i, 0.0, nbytes=40)
    assert light.images_without_mask == 3
    assert light.add_mask(SECOND + 4, 'mask', 0.0).image == 4


def test_waiting_masks_are_bounded_too():
    pairer = _pairer(slop_s=0.0, max_bytes=100)
    for i in range(5):
        pairer.add_mask(SECOND + i, i, 0.0, nbytes=40)
    assert pairer.masks_without_image == 3
    assert pairer.add_image(SECOND + 4, 'image', 0.0).mask == 4
    huge = _pairer(max_bytes=10)
    huge.add_image(SECOND, 'larger than all room', 0.0, nbytes=1000)
    assert huge.add_mask(SECOND, 'mask', 0.1) is not None


def test_the_nearest_stamp_wins_and_the_newest_arrival_among_equals():
    pairer = _pairer()
    for stamp, item in ((-4, 'four before'), (3, 'three after'), (-3, 'three before')):
        pairer.add_image(SECOND + stamp * MS, item, 0.0)
    order = [pairer.add_mask(SECOND, 'mask', 0.1).image for _ in range(3)]
    assert order == ['three before', 'three after', 'four before']


def test_clear_forgets_without_counting():
    pairer = _pairer()
    pairer.add_image(SECOND, 'image', 0.0)
    pairer.clear()
    assert pairer.add_mask(SECOND, 'mask', 0.1) is None
    assert pairer.images_without_mask == 0
