# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which topics are taken, by themselves and by name."""

import sqlite3

import numpy as np
import pytest

from caption_ros.bags import files
from caption_ros.bags.recording import Recording
from caption_ros.bags.topics import Plan, output_topics, plan_topics
from caption_ros.errors import OptionError, RecordingError

GREY, RGB = np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def recording(tmp_path, bags):
    def make(*topics):
        kinds = {'rgb': bags.image(RGB, 5), 'grey': bags.image(GREY, 5),
                 'depth': bags.image(RGB, 5, '32FC1'), 'jpeg': bags.jpeg(RGB, 5),
                 'text': bags.text('hello')}
        return Recording(bags.write(tmp_path / 'in', [
            (name, 5 + i, kinds[kind]) for i, (name, kind) in enumerate(topics)]))
    return make


@pytest.mark.parametrize('topics, plan', [
    ([('/c', 'rgb'), ('/c/compressed', 'jpeg')], Plan(('/c',))),
    ([('c/compressed', 'jpeg')], Plan(('c/compressed',))),
    ([('/c', 'rgb'), ('/d', 'depth'), ('/depth/image', 'grey')], Plan(('/c',))),
    ([('/c', 'grey'), ('/mask_view', 'rgb')], Plan(('/c', '/mask_view'))),
    ([('/a/c', 'rgb'), ('/b/c', 'rgb'), ('/b/labels', 'grey')],
     Plan(('/a/c', '/b/c'), '/b/labels', '/b/c')),
])
def test_topics_are_found_by_type_name_and_encoding(topics, plan, recording):
    assert plan_topics(recording(*topics)) == plan


def test_named_topics_need_no_leading_slash(recording):
    made = recording(('/c', 'rgb'), ('/m1/mask', 'grey'), ('/m2/mask', 'grey'))
    assert plan_topics(made, ['c'], 'm2/mask') == Plan(('/c',), '/m2/mask', '/c')
    assert plan_topics(made, use_mask=False) == Plan(('/c',))
    with pytest.raises(OptionError, match='--topic /nose is no image topic .*it has /c, /m1'):
        plan_topics(made, ['/nose'])
    with pytest.raises(OptionError, match='/c is to be captioned and to be the mask'):
        plan_topics(made, ['/c'], '/c')


def test_a_mask_is_known_by_the_first_message_that_can_be_read(tmp_path, bags):
    kind, data = bags.image(GREY, 5)
    made = Recording(bags.write(tmp_path / 'in', [
        ('/c', 5, bags.image(RGB, 5)), ('/mask', 6, (kind, data[:30])), ('/mask', 7, (kind, b'')),
        ('/mask', 8, (kind, data))]))
    assert plan_topics(made) == Plan(('/c',), '/mask', '/c')


def test_compressed_topics_need_no_second_look_into_the_files(tmp_path, bags, monkeypatch):
    made = Recording(bags.write(tmp_path / 'in', [
        ('/a', 5, bags.jpeg(RGB, 5)), ('/b', 6, bags.jpeg(RGB, 6))], compress='file'))
    unpacked = []
    monkeypatch.setattr(files, '_decompress', lambda path, plain: unpacked.append(path))
    assert plan_topics(made) == Plan(('/a', '/b')) and not unpacked


def test_topics_without_messages_are_no_image_topics(tmp_path, bags):
    source = bags.write(tmp_path / 'in', [('/a', 5, bags.text('a')),
                                          ('/c', 6, bags.image(RGB, 5))])
    with sqlite3.connect(source / 'in.db3') as database:
        database.execute('DELETE FROM messages WHERE timestamp = 6')
    database.close()
    with pytest.raises(RecordingError, match='no image topic, only std_msgs/msg/String; wanted'):
        plan_topics(Recording(source))


def test_masks_that_may_belong_to_two_cameras_are_asked_about(recording):
    made = recording(('/a', 'rgb'), ('/b', 'rgb'), ('/mask', 'grey'))
    with pytest.raises(OptionError, match='may belong to /a or /b; choose one with --topic'):
        plan_topics(made)
    assert plan_topics(made, ['/b']).masked == '/b'


def test_captions_never_mix_with_recorded_ones(recording, tmp_path, bags):
    made = recording(('/c', 'rgb'), ('/caption', 'text'))
    assert output_topics(made, Plan(('/c',))) == {'/c': ('/c/caption', '/c/captions', None)}
    assert output_topics(made, Plan(('/c',), '/m', '/c')) == {
        '/c': ('/c/caption', '/c/captions', '/c/detections')}
    again = Recording(bags.write(tmp_path / 'two', [
        (name, 5, kind) for name, kind in (('/c', bags.image(RGB, 5)), ('/caption', bags.text('')),
                                           ('/c/captions', bags.text('')))]))
    with pytest.raises(RecordingError, match='has /c/captions already'):
        output_topics(again, Plan(('/c',)))
