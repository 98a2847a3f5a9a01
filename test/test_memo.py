# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A memo of arrays, which are neither hashable nor comparable."""

import gc

import numpy as np

from caption_ros.memo import Memo


def test_a_value_is_of_one_object_and_goes_with_it():
    memo, array, same = Memo(), np.arange(3), np.arange(3)
    memo.keep(array, 'value')
    assert memo.get(array) == 'value' and memo.get(same) is None
    memo.keep(array, 'newer')
    assert memo.get(array) == 'newer' and len(memo) == 1
    del array
    gc.collect()
    assert len(memo) == 0


def test_an_object_at_the_place_of_one_that_is_gone_has_no_value():
    memo = Memo()
    for i in range(1000):
        array = np.full(2, i)
        assert memo.get(array) is None
        memo.keep(array, i)
        assert memo.get(array) == i
    assert len(memo) == 1
