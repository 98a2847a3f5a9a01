# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Noise is no change, one small new thing is."""

import numpy as np

from caption_ros.change import ChangeDetector


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
