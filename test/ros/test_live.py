# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ROS side of the web page."""

import subprocess
import sys
import threading

import pytest

from caption_ros.web.live import Live


def test_a_topic_that_is_none_leaves_nothing_behind(ros):
    begun = set(threading.enumerate())
    with pytest.raises(Exception, match='topic name must not contain'):
        Live('bad topic!')
    assert set(threading.enumerate()) <= begun


def test_ros_may_end_before_the_page():
    code = ('import time, rclpy; from caption_ros.web.live import Live; live = Live("image"); '
            'time.sleep(0.3); rclpy.shutdown(); time.sleep(0.3); live.close(); print("closed")')
    ended = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                           timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, 'closed\n', '')
