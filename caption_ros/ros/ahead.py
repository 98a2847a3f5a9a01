# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames are looked at while the model still works on those before them.

A frame that has been looked at stays in the mailbox, where a newer one replaces it. So looking
begins late, when the model is about to end: a newer frame would have to be looked at again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.mailbox import Mailbox
from caption_ros.ros.intake import Frame
from caption_ros.ros.look import Look

_SPARE = 1.2  # times what looking took last


class LookAhead:
    """Looks at the frames of a mailbox on a thread of its own, just before they are wanted.

    Args:
        mailbox: Where frames lie; nothing is taken from it.
        options: Returns the options for the next frames.
        captioner: The model, which may prepare itself for them.
    """

    def __init__(self, mailbox: Mailbox[Frame], options: Callable[[], CaptionOptions],
                 captioner: Captioner) -> None:
        self._mailbox = mailbox
        self._options = options
        self._captioner = captioner
        self._changed = threading.Condition()
        self._looks: dict[str, Look] = {}  # by camera
        self._expected_end_s: float | None = None  # of the work that goes on
        self._worked_s: float | None = None  # the last time
        self._looked_s = 0.0
        self._closed = False
        threading.Thread(target=self._run, name='looker', daemon=True).start()

    def looks(self, frames: Sequence[Frame], options: CaptionOptions) -> list[Look]:
        """Return what is seen in frames; those not looked at before are looked at now."""
        looks = []
        for frame in frames:
            with self._changed:
                look = self._looks.pop(frame.camera, None)
            if look is None or look.frame is not frame or look.options != options:
                look = Look(frame, options)
            look.see()
            looks.append(look)
        return looks

    @contextmanager
    def while_working(self) -> Iterator[None]:
        """Look at the next frames shortly before the end of the work in this block.

        The work is expected to take as long as it took last.
        """
        began_s = time.monotonic()
        with self._changed:
            if self._worked_s is not None:
                self._expected_end_s = began_s + self._worked_s
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._worked_s = time.monotonic() - began_s
                self._expected_end_s = None

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._looks.clear()
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._look()

    def _look(self) -> None:
        # Not in the loop: its variables would keep the last image while it waits.
        began_s = time.monotonic()
        options = self._options()
        for frame in self._mailbox.peek_all():
            look = Look(frame, options)
            with self._changed:
                self._looks[frame.camera] = look
            look.see(self._prepare)
            self._looked_s = time.monotonic() - began_s

    def _prepare(self, look: Look) -> None:
        # A captioner of the user's own may have none; what is wrong shows when it captions.
        with suppress(Exception):
            self._captioner.prepare(look.rgb, look.wanted, look.options)  # type: ignore[attr-defined]

    def _wait(self) -> bool:
        """Wait until the work is about to end; return False when closed."""
        with self._changed:
            while not self._closed:
                if self._expected_end_s is None:
                    self._changed.wait()
                    continue
                left_s = (self._expected_end_s - _SPARE * self._looked_s) - time.monotonic()
                if left_s <= 0:
                    self._expected_end_s = None  # once for each work
                    return True
                self._changed.wait(left_s)
            return False
