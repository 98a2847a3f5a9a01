# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that waits for the step in work: half a step is no state to resume from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Hold the first Ctrl-C back, and let a second one through.

    Yields a function that tells whether there was one. On other threads than the main one, where
    Python hands no signals out, it never tells of any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    seen: list[int] = []
    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler

    def note(number: int, _frame: Any) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
