# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Noise is no change, one small new thing is."""

import numpy as np

from caption_ros.change import ChangeDetector
from caption_ros.region import region_from_box


def test_noise_is_no_change_and_a_small_thing_is():
    rng = np.random.default_rng(0)
    grey = np.full((240, 320, 3), 90, np.uint8)
    noisy = (grey + rng.normal(0, 12, grey.shape)).clip(0, 255).astype(np.uint8)
    thing = grey.copy()
    thing[100:120, 100:120] = 200
    detector = ChangeDetector()
    assert [detector.has_changed(rgb) for rgb in (grey, grey, noisy, thing, thing, grey)] == [
        True, False, False, True, False, True]


def test_a_slow_change_counts_once_it_has_added_up():
    detector = ChangeDetector()
    levels = [np.full((24, 32, 3), 90 + 4 * i, np.uint8) for i in range(7)]
    assert [detector.has_changed(rgb) for rgb in levels] == [
        True, False, False, True, False, False, True]


def test_a_mask_that_moves_is_a_change_and_ragged_edges_are_none():
    rgb, detector = np.full((240, 320, 3), 90, np.uint8), ChangeDetector()

    def changed(*boxes):
        return detector.has_changed(rgb, [region_from_box(box, (240, 320), label)
                                          for label, box in boxes])
    assert changed((3, (40, 40, 80, 90)))
    assert not changed((3, (41, 39, 80, 91)))
    assert changed((3, (60, 40, 100, 90)))
    assert changed((4, (60, 40, 100, 90)))
    assert changed((4, (60, 40, 100, 90)), (5, (0, 0, 9, 9)))
    assert changed()
    assert not changed()


def test_another_colour_as_bright_is_a_change():
    red = np.full((24, 32, 3), (200, 30, 20), np.uint8)
    green = np.full((24, 32, 3), (20, 200, 30), np.uint8)
    detector = ChangeDetector()
    assert [detector.has_changed(rgb) for rgb in (red, green, green)] == [True, True, False]
