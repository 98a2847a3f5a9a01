# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 shell: nodes, their topics, parameters, threads and diagnostics."""
