# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys of a terminal, one by one."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_UP_S = 0.2
_MOST_BYTES = 8  # of one key: arrows send three
UP, DOWN = b'\x1b[A', b'\x1b[B'


@contextmanager
def keys(actions: dict[bytes, Callable[[], None]]) -> Iterator[bool]:
    """Run an action for each key that is pressed; yields False where there is no terminal.

    Args:
        actions: What to do, by the bytes of a key; called by a thread of its own.
    """
    try:
        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (OSError, ValueError, AttributeError, termios.error):
        yield False
        return
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            if select.select([terminal], [], [], _LOOK_UP_S)[0]:
                key = os.read(terminal, _MOST_BYTES)
                if not key:  # the terminal is gone
                    return
                actions.get(key, lambda: None)()

    thread = threading.Thread(target=run, name='keys', daemon=True)
    tty.setcbreak(terminal)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
