# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What keeps the memory of a process small that is there for one model and its images."""

from __future__ import annotations

import gc
import os
from typing import Any

from caption_ros.captioner import Captioner
from caption_ros.resources import PROFILE_VARIABLES


def load_to_stay(*args: Any, **options: Any) -> Captioner:
    """Load a captioner as load_captioner does, and keep the garbage collector from what is there.

    A model is hundreds of thousands of objects. To look for cycles among them takes 0.2 s, in
    which no image is read. For a process that is there for one model: all its objects count.
    """
    from caption_ros.captioners import load_captioner
    gc.unfreeze()  # what is left of the model before
    captioner = load_captioner(*args, **options)
    gc.collect()
    gc.freeze()
    return captioner


def heed_profile() -> None:
    """Let a Fast DDS profile, where one is named, say what becomes of the memory of images.

    ROS 2 sets that by itself, unless told otherwise before it starts: what as many images took as
    have ever waited to be read is then kept for as long as the node runs.
    """
    if any(os.environ.get(name) for name in PROFILE_VARIABLES):
        os.environ.setdefault('RMW_FASTRTPS_USE_QOS_FROM_XML', '1')


def let_go() -> None:
    """Let the garbage collector have what load_to_stay kept from it, before the process ends.

    Else rclpy's context outlives the process, and Fast DDS's shared memory with it.
    """
    gc.unfreeze()
