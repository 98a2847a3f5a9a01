# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from caption_ros.scenes import FIRST_TRAINING_SEED, TabletopStream, scene_frame
from caption_ros.scenes.layout import sample_layout
from caption_ros.scenes.render import render
from caption_ros.scenes.vocabulary import COLOURS, SHAPES, SIZES, TABLES, scene_sentence

SEEDS = range(40)


@pytest.fixture(scope='module')
def frames():
    return [scene_frame(seed) for seed in SEEDS]


def test_there_is_enough_to_tell_apart():
    assert len(SHAPES) >= 7 and len(COLOURS) >= 9 and len(SIZES) == 2 and len(TABLES) == 3


def test_a_frame_is_a_camera_image_with_labels(frames):
    for frame in frames:
        assert frame.rgb.shape == (480, 640, 3) and frame.rgb.dtype == np.uint8
        assert frame.labels.shape == (480, 640) and frame.labels.dtype == np.uint8


def test_a_seed_gives_the_same_frame_each_time():
    first, second = scene_frame(7), scene_frame(7)
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.labels, second.labels)
    assert first.scene_caption == second.scene_caption


def test_scenes_hold_one_to_five_objects(frames):
    counts = {len(frame.region_captions) for frame in frames}
    assert counts == {1, 2, 3, 4, 5}


def test_every_object_can_be_seen(frames):
    for frame in frames:
        for label in frame.region_captions:
            assert (frame.labels == label).sum() > 300, frame.layout.seed


def test_labels_run_from_left_to_right_and_the_sentence_follows_them(frames):
    for frame in frames:
        phrases = [frame.region_captions[label] for label in sorted(frame.region_captions)]
        assert frame.scene_caption == scene_sentence(phrases, frame.layout.table)
        whole = []  # occlusion shifts the visible centre: compare each object drawn alone
        for i in range(len(phrases)):
            alone = sample_layout(frame.layout.seed)
            alone = type(alone)(**{**alone.__dict__, 'objects': (alone.objects[i],)})
            _, labels = render(alone, 0.0, 640, 480, np.random.default_rng(0))
            columns = np.flatnonzero((labels > 0).any(axis=0))
            whole.append(columns[0] + columns[-1])
        assert whole == sorted(whole), frame.layout.seed


def test_no_phrase_comes_twice_in_a_scene(frames):
    for frame in frames:
        phrases = list(frame.region_captions.values())
        assert len(set(phrases)) == len(phrases)


def test_an_object_has_the_colour_of_its_name():
    hits = total = 0
    for seed in range(40, 70):
        frame = scene_frame(seed)
        for label, item in enumerate(frame.layout.objects, 1):
            seen = np.median(frame.rgb[frame.exact_labels == label], axis=0)
            seen = seen / max(seen.max(), 1)
            if item.colour in ('white', 'black'):
                continue
            nearest = min(COLOURS, key=lambda name: np.abs(
                np.array(COLOURS[name]) / max(COLOURS[name]) - seen).sum()
                if name not in ('white', 'black') else 9)
            hits += nearest == item.colour
            total += 1
    assert hits / total > 0.9


def test_objects_move_from_frame_to_frame_and_keep_their_captions():
    stream = TabletopStream(5)
    first, later = stream.frame(0), stream.frame(30)
    assert (first.exact_labels != later.exact_labels).sum() > 200
    assert first.scene_caption == later.scene_caption


def test_a_segmenters_mask_is_ragged_but_near_the_truth(frames):
    for frame in frames[:10]:
        both = (frame.labels > 0) & (frame.exact_labels > 0)
        either = (frame.labels > 0) | (frame.exact_labels > 0)
        assert 0.8 < both.sum() / either.sum() < 1.0


def test_another_size_shows_the_same_view():
    small, large = scene_frame(3), TabletopStream(3, 1280, 960).frame(0)
    shrunk = large.exact_labels[1::2, 1::2]
    assert (shrunk == small.exact_labels).mean() > 0.99


def test_training_seeds_begin_behind_the_evaluation_range():
    assert FIRST_TRAINING_SEED == 100_000
