# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Narration, pictures and detections of captions, over DDS."""

from __future__ import annotations

import numpy as np
import pytest
import rclpy
from nodebench import wait_for
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String

from caption_ros.annotate import label_colour
from caption_ros.caption import Caption
from caption_ros.message import image_from_msg
from caption_ros.region import region_from_box
from caption_ros.ros import telling
from caption_ros.ros.telling import Telling

RGB = np.full((240, 320, 3), 128, np.uint8)
MUG = Caption('a red mug', 0.9, 'alpha', region_from_box((40, 60, 120, 160), (240, 320), 1))
HEADER = Header(frame_id='left_eye')


@pytest.fixture
def node(ros):
    made = rclpy.create_node('teller')
    yield made
    made.destroy_node()


def tell(made, captions, now_s, masked=True, gap_s=0.0):
    made.narrate(captions, masked=masked, source='mask', now_s=now_s, min_gap_s=gap_s,
                 max_silence_s=0.0)
    made.show(HEADER, RGB, captions)


def test_narration_is_told_once_and_counted(node):
    told, made = [], Telling(node, str)
    node.create_subscription(String, 'narration', lambda m: told.append(m.data), 10)
    wait_for(lambda: made._narrations.get_subscription_count() == 1)
    for i in range(30):
        tell(made, [MUG], i / 10)
    wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.05) or told)
    assert told == ['a red mug'] and made.counts()['narrations'] == 1
    made.start()  # another activation knows nothing of the last one
    for i in range(30):
        tell(made, [MUG], 3 + i / 10)
    assert made.counts()['narrations'] == 1


def test_pictures_are_drawn_only_for_somebody(node, monkeypatch):
    drawn, got, made = [], [], Telling(node, lambda name: f'left/{name}')
    draw = telling.annotate
    monkeypatch.setattr(telling, 'annotate', lambda *a: drawn.append(a) or draw(*a))
    tell(made, [MUG], 0.0)
    assert drawn == []
    subscription = node.create_subscription(Image, 'left/annotated', got.append, 10)
    wait_for(lambda: made._pictures.get_subscription_count() == 1)
    other = region_from_box((200, 9, 300, 99), (240, 320), 2)
    held_back = Caption('nonsense', 0.1, 'alpha', other, held_back=True)
    tell(made, [MUG, held_back], 1.0)
    wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.05) or got)
    assert (got[0].encoding, got[0].header) == ('rgb8', HEADER)
    picture = image_from_msg(got[0])
    assert picture.shape == RGB.shape
    assert (picture == label_colour(1)).all(2).any()
    assert not (picture == label_colour(2)).all(2).any()
    node.destroy_subscription(subscription)
    wait_for(lambda: made._pictures.get_subscription_count() == 0)
    tell(made, [MUG], 2.0)
    assert len(drawn) == 1


def test_detections_are_told_where_their_package_is(node, more_msgs):
    from vision_msgs.msg import Detection2DArray
    got, made = [], Telling(node, str)
    node.create_subscription(Detection2DArray, 'detections', got.append, 10)
    wait_for(lambda: made._detections.get_subscription_count() == 1)
    tell(made, [Caption('a table', 0.9, 'none', None), MUG], 0.0)
    wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.05) or got)
    detection, = got[0].detections
    assert (got[0].header, detection.id) == (HEADER, '1')
    assert detection.results[0].hypothesis.class_id == 'a red mug'


def test_without_the_package_there_are_no_detections(node, no_more_msgs):
    made = Telling(node, str)
    tell(made, [MUG], 0.0)
    assert 'detections' not in ' '.join(
        publisher.topic_name for publisher in node.publishers)
