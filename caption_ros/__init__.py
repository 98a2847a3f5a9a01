# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Say what a camera sees, and what is at the thing a mask points at.

What users call is imported on first use: importing the package loads neither torch nor ROS.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caption_ros.caption import Caption as Caption
    from caption_ros.captioner import Captioner as Captioner
    from caption_ros.captioner import CaptionOptions as CaptionOptions
    from caption_ros.captioners import load_captioner as load_captioner
    from caption_ros.captioners.alpha_clip import (
        alpha_clip_vision_tower as alpha_clip_vision_tower,
    )
    from caption_ros.pipeline import caption_frame as caption_frame
    from caption_ros.region import Region as Region

__version__ = '0.1.0'
_EXPORTS = {
    'Caption': 'caption_ros.caption',
    'CaptionOptions': 'caption_ros.captioner',
    'Captioner': 'caption_ros.captioner',
    'Region': 'caption_ros.region',
    'alpha_clip_vision_tower': 'caption_ros.captioners.alpha_clip',
    'caption_frame': 'caption_ros.pipeline',
    'load_captioner': 'caption_ros.captioners',
}
__all__ = [*_EXPORTS, '__version__']


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(_EXPORTS[name]), name)
