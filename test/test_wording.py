# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What counts as the same meaning, and how comings and goings are said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_ros.wording import appeared, content_words, gone


@pytest.mark.parametrize('first, second', [
    ('a red mug', 'the mug is red'),
    ('a man riding a bike', 'a man rides a bike'),
    ('two dogs', 'Two dogs.'),
    ('a picture of a cat', 'there is a cat'),
    ('boxes', 'a box'),
    ('a cat sitting on a bottle', 'a cat that sits on bottles'),
])
def test_same_meaning(first, second):
    assert content_words(first) == content_words(second)


@pytest.mark.parametrize('first, second', [
    ('a red mug', 'a blue mug'),
    ('a mug', 'two mugs'),
    ('a cat under a table', 'a cat on a table'),
    ('a man', 'a woman'),
    ('a glass', 'glue'),
    ('это красная кружка', 'это синяя кружка'),
    ('红色的杯子', '蓝色的球'),
    ('!!!', '???'),
    ('the', 'a'),
])
def test_other_meaning(first, second):
    assert content_words(first) != content_words(second)


@given(st.text(max_size=80))
@settings(max_examples=50, deadline=None)
def test_every_text_means_something_and_can_be_told(text):
    assert content_words(text)
    assert content_words(text) == content_words(text)
    assert appeared(text) and gone(text)


@pytest.mark.parametrize('text, came, went', [
    ('a red mug', 'a red mug appeared', 'the red mug is gone'),
    ('An apple.', 'An apple appeared', 'the apple is gone'),
    ('two dogs', 'two dogs appeared', 'two dogs disappeared'),
    ('a', 'a appeared', 'a disappeared'),
    ('A mug. It is red.', 'new: A mug. It is red', 'gone: A mug. It is red'),
])
def test_comings_and_goings(text, came, went):
    assert (appeared(text), gone(text)) == (came, went)
