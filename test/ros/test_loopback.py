# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the bench times of ROS goes over DDS."""

from __future__ import annotations

import os

import rclpy
from nodebench import wait_for
from std_msgs.msg import String

from caption_ros.caption import Caption
from caption_ros.ros.loopback import loopback


def test_captions_are_published_to_whoever_listens(ros):
    listener, got = rclpy.create_node('listener'), {}
    for topic in ('caption', 'captions'):
        listener.create_subscription(String, f'/caption_ros_bench_{os.getpid()}/{topic}',
                                     lambda message, topic=topic: got.update({topic: message}), 10)
    with loopback() as made:
        wait_for(lambda: made._publishers['captions'].get_subscription_count() == 2)
        wait_for(lambda: made.publish('a mug', '[]', [Caption('a mug', 0.9, 'none', None)])
                 or rclpy.spin_once(listener, timeout_sec=0.05) or len(got) == 2)
    listener.destroy_node()
    assert (got['caption'].data, got['captions'].data) == ('a mug', '[]')
