# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Regions and detections as real messages of vision_msgs and hri_msgs, over DDS."""

from __future__ import annotations

from dataclasses import replace

import rclpy
from nodebench import wait_for
from std_msgs.msg import Header

from caption_ros.caption import Caption
from caption_ros.region import region_from_box
from caption_ros.region_message import (
    detections_msg,
    names_from_label_info,
    region_from_normalised,
    regions_from_detections,
)

SIZE = (48, 64)


def sent(message):
    """Return a message as another node gets it."""
    node, got = rclpy.create_node('post'), []
    publisher = node.create_publisher(type(message), 'post', 10)
    node.create_subscription(type(message), 'post', got.append, 10)
    try:
        wait_for(lambda: publisher.get_subscription_count() == 1)
        publisher.publish(message)
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.05) or got)
    finally:
        node.destroy_node()
    return got[0]


def test_captions_become_detections_that_become_the_same_regions(ros, more_msgs):
    import vision_msgs.msg
    regions = [replace(region_from_box((3, 4, 20, 31), SIZE, 7), id='track_7'),
               region_from_box((30, 0, 64, 48), SIZE, 9)]
    captions = [Caption('a scene', 0.9, 'none', None)] + [
        Caption(f'thing {region.label}', 0.25, 'alpha', region) for region in regions]
    header = Header(frame_id='left_eye')
    header.stamp.sec = 12
    message = sent(detections_msg(captions, header, vision_msgs.msg))
    assert (message.header.stamp.sec, message.header.frame_id) == (12, 'left_eye')
    assert [detection.header for detection in message.detections] == [header, header]
    assert message.detections[0].results[0].hypothesis.score == 0.25
    back = regions_from_detections(message, SIZE)
    assert [region.box for region in back] == [region.box for region in regions]
    assert [(region.id, region.name) for region in back] == [
        ('track_7', 'thing 7'), ('9', 'thing 9')]


def test_names_and_faces_come_as_their_messages_have_them(ros, more_msgs):
    from hri_msgs.msg import NormalizedRegionOfInterest2D
    from vision_msgs.msg import LabelInfo, VisionClass
    info = sent(LabelInfo(class_map=[VisionClass(class_id=3, class_name='mug')], threshold=0.5))
    assert names_from_label_info(info) == {3: 'mug'}
    face = sent(NormalizedRegionOfInterest2D(xmin=0.25, ymin=0.5, xmax=0.5, ymax=1.0, c=0.9))
    assert region_from_normalised(face, SIZE, 'face_1').box == (16, 24, 32, 48)
