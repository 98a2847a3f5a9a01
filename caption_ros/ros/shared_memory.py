# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether Fast DDS has cut this process off from what others write into shared memory."""

from __future__ import annotations

from pathlib import Path

_LISTENER = 'dds.shm.'  # and the port, as Fast DDS calls the thread that listens at it


def is_cut_off(process: Path = Path('/proc/self')) -> bool:
    """Tell whether this process listens at a port that nobody writes to any more.

    Fast DDS takes a process that stands still for longer than healthy_check_timeout_ms for dead
    and makes its port anew. A listener that misses this waits for ever at the old one, whose
    file is gone. False where it cannot be told, as without /proc.

    Args:
        process: Folder of a process of Linux.
    """
    try:
        names = [path.read_text().strip() for path in (process / 'task').glob('*/comm')]
        maps = (process / 'maps').read_text()
    except OSError:
        return False
    return any(f'/fastdds_port{name.removeprefix(_LISTENER)} (deleted)\n' in maps
               for name in names if name.startswith(_LISTENER))
