# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""When there is something to say, on scripted sequences and on real captions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caption_ros.caption import Caption
from caption_ros.narration import Narrator
from caption_ros.region import region_from_box

RATE_HZ = 10


def captions_of(seen, held_back=()):
    """Make captions of {label: text}; the label None is the scene."""
    return [Caption(text, 0.9, 'alpha', None if label is None else
                    region_from_box((0, 0, 8, 8), (48, 64), label), held_back=label in held_back)
            for label, text in seen.items()]


def narrate(narrator, script, masked=True, start_s=0.0):
    """Play [(seconds, {label: text})]; return [(time, sentence)]."""
    said, now_s = [], start_s
    for seconds, seen in script:
        for _ in range(round(seconds * RATE_HZ)):
            text = narrator.update(captions_of(seen), now_s, masked=masked)
            if text:
                said.append((round(now_s, 1), text))
            now_s += 1 / RATE_HZ
    return said


def texts(*args, **kwargs):
    return [text for _, text in narrate(*args, **kwargs)]


def flicker(seconds, first, second, every=1):
    """Alternate two states, every so many frames."""
    return [(every / RATE_HZ, state) for state, _ in zip(
        itertools.cycle((first, second)), range(round(seconds * RATE_HZ / every)))]


MUG, BALL = 'a red mug', 'a blue ball'


def test_a_minute_with_eight_changes_gives_eight_narrations():
    script = [
        (6, {1: MUG}),                                           # first look
        (6, {1: MUG, 2: BALL}),                                  # 1
        *flicker(10, {1: MUG, 2: BALL}, {1: 'a red cup', 2: BALL}),
        (6, {2: BALL}),                                          # 2
        (5, {2: 'a blue ball in the air'}),                      # 3
        (6, {2: 'a blue ball in the air', 3: 'a dog'}),          # 4
        (5, {2: 'the ball that is blue in the air', 3: 'a dog', 4: 'a man'}),  # 5
        (5, {7: 'a table'}),                                     # 6: another place
        (5, {}),                                                 # 7
        (6, {1: MUG}),                                           # 8
    ]
    assert sum(seconds for seconds, _ in script) == pytest.approx(60)
    said = texts(Narrator(), script)
    assert said == [
        'a red mug',
        'a blue ball appeared',
        'the red mug is gone',
        'a blue ball in the air',
        'a dog appeared',
        'a man appeared',
        'a table',
        'the table is gone',
        'a red mug appeared',
    ]


@pytest.mark.parametrize('every', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('other', ['a red cup', 'something else'])
def test_two_wordings_that_flicker_for_ten_seconds_give_no_narration(other, every):
    narrator = Narrator()
    narrate(narrator, [(20, {1: MUG})])
    assert narrate(narrator, flicker(10, {1: other}, {1: MUG}, every), start_s=20.0) == []
    assert narrator.flickers > 8


def test_a_slow_flicker_is_believed_twice_at_most():
    narrator = Narrator()
    narrate(narrator, [(20, {1: MUG})])
    said = narrate(narrator, flicker(30, {1: 'a cup'}, {1: MUG}, every=15), start_s=20.0)
    assert len(said) <= 2


def test_other_words_for_the_same_are_no_change():
    said = texts(Narrator(), [(3, {1: 'a small red ball'}), (3, {1: 'The ball is small and red.'}),
                              (3, {1: 'an image of small red balls'})])
    assert said == ['a small red ball']


def test_a_mistake_of_one_frame_is_not_said():
    frame = 1 / RATE_HZ
    script = [(3, {1: MUG}), (frame, {1: 'a dog'}), (2, {1: MUG}), (frame, {}), (2, {1: MUG}),
              (frame, {1: MUG, 9: 'a ghost'}), (3, {1: MUG})]
    assert texts(Narrator(), script) == [MUG]
    assert texts(Narrator(settle_s=0.0), script) == [MUG]


def test_numbers_that_a_segmenter_gives_anew_are_no_change():
    orders = itertools.cycle(itertools.permutations((MUG, BALL, 'a box')))
    script = [(0.1, dict(enumerate(next(orders), 1))) for _ in range(100)]
    assert texts(Narrator(), script) == ['a red mug; a blue ball; a box']


def test_what_vanished_is_named_though_all_others_move_up():
    script = [(3, {1: MUG, 2: BALL, 3: 'a box'}), (3, {1: BALL, 2: 'a box'})]
    assert texts(Narrator(), script)[1:] == ['the red mug is gone']


def test_all_that_changes_together_is_one_sentence():
    script = [(3, {1: MUG, 2: BALL, 3: 'a box'}),
              (0.2, {1: MUG, 3: 'an open box', 4: 'a cat'}),
              (3, {1: MUG, 3: 'an open box', 5: 'a dog'})]
    assert texts(Narrator(), script)[1:] == [
        'the blue ball is gone; now an open box; a dog appeared']


def test_no_two_sentences_within_the_gap():
    script = [(1, {1: f'thing {i}'}) for i in range(40)]
    times = [at_s for at_s, _ in narrate(Narrator(min_gap_s=4.0), script)]
    assert 8 <= len(times) <= 11  # a view that never rests is told all the same
    assert min(b - a for a, b in itertools.pairwise(times)) >= 4.0 - 1e-6


def test_what_came_and_went_within_the_gap_is_not_said():
    script = [(3, {1: MUG}), (3, {1: MUG, 2: BALL}), (8, {1: MUG})]
    assert texts(Narrator(min_gap_s=10.0), script) == [MUG]


@pytest.mark.parametrize('silence_s, repeats', [(0.0, 0), (10.0, 2), (20.0, 1)])
def test_silence_is_ended_only_when_asked(silence_s, repeats):
    narrator = Narrator(max_silence_s=silence_s)
    assert texts(narrator, [(29, {1: MUG, 2: BALL})]) == ['a red mug; a blue ball'] * (1 + repeats)
    assert (narrator.narrations, narrator.repeats) == (1, repeats)


def test_scene_captions_are_compared_where_there_are_no_masks():
    script = [(3, {None: 'a man in a room'}), (3, {None: 'a room with a man'}),
              (3, {None: 'an empty room'})]
    assert texts(Narrator(), script, masked=False) == ['a man in a room', 'an empty room']


def test_with_scene_and_regions_a_new_place_is_told_by_the_scene():
    narrator = Narrator()
    kitchen = {None: 'a kitchen', 1: MUG, 2: BALL}
    said = texts(narrator, [(3, kitchen), (3, kitchen | {3: 'a cat'}),
                            (3, {None: 'a garden', 1: 'a tree'})])
    assert said == ['a kitchen', 'a cat appeared', 'a garden']


@pytest.mark.parametrize('scene', [{}, {None: 'a mug and a ball, red and blue'}],
                         ids=['regions', 'scene and regions'])
def test_regions_that_swap_colours_are_told(scene):
    script = [(3, scene | {1: MUG, 2: BALL}), (3, scene | {1: 'a blue mug', 2: 'a red ball'})]
    assert texts(Narrator(), script)[1:] == ['now a blue mug; now a red ball']


def test_masks_that_come_later_do_not_repeat_what_was_said():
    narrator = Narrator()
    scene = 'a red mug and a blue ball'
    assert texts(narrator, [(3, {None: scene})], masked=False) == [scene]
    assert narrate(narrator, [(3, {None: scene, 1: MUG, 2: BALL})], start_s=3.0) == []


def test_masks_that_stop_do_not_make_things_vanish():
    narrator = Narrator()
    narrate(narrator, [(3, {1: MUG})])
    assert texts(narrator, [(3, {None: MUG})], masked=False, start_s=3.0) == []
    assert texts(narrator, [(3, {1: MUG})], start_s=6.0) == []


def test_a_caption_that_is_held_back_keeps_its_region_there():
    narrator = Narrator()
    narrate(narrator, [(3, {1: MUG, 2: BALL})])
    for i in range(50):
        assert not narrator.update(captions_of({1: 'nonsense', 2: BALL}, held_back=[1]),
                                   3 + i / RATE_HZ, masked=True)
    assert texts(narrator, [(3, {2: BALL})], start_s=8.0) == ['the red mug is gone']


def test_nobody_is_told_more_than_a_few_things_at_once():
    said, = texts(Narrator(), [(3, {i: f'thing {i}' for i in range(1, 21)})])
    assert said.endswith('thing 6; and 14 more')


@given(st.lists(st.dictionaries(st.integers(1, 4), st.sampled_from(
    [MUG, BALL, 'a red cup', 'a cat', 'the cat']), max_size=4), max_size=80),
    st.floats(0, 5), st.floats(0, 20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_stream_keeps_the_gap_and_ends_up_told(states, gap_s, silence_s, masked):
    narrator = Narrator(gap_s, silence_s)
    said = narrate(narrator, [(0.1, state) for state in states], masked=True)
    said += narrate(narrator, [(12, {1: 'a whale'})], start_s=len(states) / RATE_HZ)
    times = [at_s for at_s, _ in said]
    assert all(b - a >= gap_s - 0.11 for a, b in itertools.pairwise(times))
    assert 'a whale' in said[-1][1]
    assert len(narrator._regions) == 1


def test_memory_stays_bounded():
    narrator = Narrator()
    for i in range(3000):
        narrator.update(captions_of({i + j: f'thing {i + j} {i}' for j in range(3)}), i * 0.02,
                        masked=True)
    assert len(narrator._regions) < 20


def test_real_captions_of_the_simulator_are_told_once_for_each_scene():
    from caption_ros import caption_frame, load_captioner
    from caption_ros.scenes import TabletopStream
    captioner = load_captioner('tabletop')
    narrator, said, now_s, truth = Narrator(), [], 0.0, []
    for seed in (11, 12, 13):
        stream = TabletopStream(seed, 320, 240)
        truth.append('; '.join(stream.frame(0).region_captions.values()))
        for index in range(0, 60, 10):
            frame = stream.frame(index)
            captions = caption_frame(frame.rgb, frame.labels, captioner)
            text = narrator.update(captions, now_s, masked=True)
            if text:
                said.append(text)
            now_s += 0.6
    captioner.close()
    assert said == truth
