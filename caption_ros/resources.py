# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the files that ship beside the code lie: in an install, a workspace or a clone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from caption_ros.errors import CaptionRosError

# Either names a file of Fast DDS profiles; the second is its older name.
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def config_path(name: str) -> Path:
    """Return the path of a shipped file of ``config/``.

    Raises:
        CaptionRosError: If it is nowhere to be found.
    """
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    places = [Path(__file__).resolve().parents[1] / 'config']  # a clone is what it says it is
    places += [Path(prefix) / 'share/caption_ros/config' for prefix in prefixes if prefix]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise CaptionRosError(f'config/{name} was not found in {", ".join(map(str, places))}; '
                          'install caption_ros again')
