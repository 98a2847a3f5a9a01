# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captioning of recordings: rosbag2 and ROS 1 bags in, the recording with captions out."""
