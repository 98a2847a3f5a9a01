# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The one thread that captions frames and hands captions over; never a subscription callback.

It loads the model, too: torch computes fastest where it computes on one thread alone. OpenMP has
a team of threads for each that asks it to compute, and as soon as all of them are more than the
cores, each step of a model begins with a sleeping team to wake.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from caption_ros.caption import Caption
from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.change import ChangeDetector
from caption_ros.mailbox import Mailbox
from caption_ros.pipeline import caption_batch
from caption_ros.ros.ahead import LookAhead
from caption_ros.ros.intake import Frame
from caption_ros.ros.look import Look, Outcome
from caption_ros.ros.parameters import NodeParameters

_LOOK_UP_S = 0.1


@dataclass
class _Shown:
    """What a camera showed when it was captioned last, and what was said of it."""

    detector: ChangeDetector
    outcome: Outcome | None = None
    captioned_s: float = 0.0


class CaptionWorker:
    """Captions the frames of a mailbox, those of all cameras as one batch.

    Args:
        load: Loads the model; called on this thread, and what it returns used on it alone.
        mailbox: Where frames come from, each camera's from its slot; closed by ``close``.
        options: Returns the options for the next frames.
        settings: Returns the parameters of the node.
        deliver: Takes the outcomes of each batch, on this thread.
        failed: Takes what anything but the model raises, on this thread.

    Attributes:
        since_s: When the batch in work was begun, by a steady clock; None when there is none.
    """

    def __init__(self, load: Callable[[], Captioner], mailbox: Mailbox[Frame],
                 options: Callable[[], CaptionOptions], settings: Callable[[], NodeParameters],
                 deliver: Callable[[Sequence[Outcome]], None],
                 failed: Callable[[Exception], None]) -> None:
        self._load = load
        self._loaded: Future[Captioner] = Future()
        self._mailbox = mailbox
        self._options = options
        self._settings = settings
        self._deliver = deliver
        self._failed = failed
        self._shown: dict[str, _Shown] = {}  # by camera
        self._hurry = threading.Event()
        self.since_s: float | None = None
        self._thread = threading.Thread(target=self._run, name='captioner', daemon=True)
        self._thread.start()

    def captioner(self) -> Captioner:
        """Wait for the model and return it, or raise what loading it raised."""
        return self._loaded.result()

    def hurry(self) -> None:
        """Take the next frames now whatever max_rate_hz says."""
        self._hurry.set()

    def close(self, timeout_s: float | None = None) -> bool:
        """Stop after the batch in work; return False when that takes longer than the timeout."""
        self._mailbox.close()
        self._hurry.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def free(self) -> None:
        """Free the model, if it was loaded; after close()."""
        if self._loaded.exception() is None:
            self._loaded.result().close()

    def _run(self) -> None:
        try:
            captioner = self._load()
        except Exception as error:  # whatever it is, who waits for the model gets it
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(captioner)
        ahead = LookAhead(self._mailbox, self._options, captioner)
        try:
            self._work(captioner, ahead)
        finally:
            ahead.close()

    def _work(self, captioner: Captioner, ahead: LookAhead) -> None:
        started_s = float('-inf')
        while not self._mailbox.is_closed:
            rate_hz = self._settings().max_rate_hz
            wait_s = started_s + 1 / rate_hz - time.monotonic() if rate_hz > 0 else 0.0
            # Before the frames are taken, so that newer ones can still replace them; in short
            # waits, as the rate may be changed meanwhile.
            if wait_s > 0 and not self._hurry.wait(min(wait_s, _LOOK_UP_S)):
                continue
            frames = self._mailbox.take_all()
            self._hurry.clear()
            if frames:
                self.since_s = started_s = time.monotonic()
                try:
                    self._deliver(self._caption(frames, started_s, captioner, ahead))
                except Exception as error:  # a thread that ends would leave the node mute
                    self._failed(error)
                self.since_s = None
            del frames  # or they would be kept until the next ones are there

    def _caption(self, frames: Sequence[Frame], started_s: float, captioner: Captioner,
                 ahead: LookAhead) -> list[Outcome]:
        options, settings = self._options(), self._settings()
        looks = ahead.looks(frames, options)
        if settings.skip_static:
            for look in looks:
                if look.error is None:
                    look.same_as = self._last_of(look, options, started_s,
                                                 settings.skip_static_max_silence_s)
        else:
            self._shown.clear()  # what was shown since is not known
        new = [look for look in looks if look.error is None and look.same_as is None]
        if new:
            with ahead.while_working():
                _answer(new, captioner, options)
        outcomes = [look.outcome(time.monotonic() - started_s) for look in looks]
        for outcome in outcomes:
            if not outcome.unchanged and outcome.frame.camera in self._shown:
                self._shown[outcome.frame.camera].outcome = outcome.without_pixels()
        return outcomes

    def _last_of(self, look: Look, options: CaptionOptions, now_s: float,
                 max_silence_s: float) -> Outcome | None:
        """Return what was said of a camera's last frame, if this one shows nothing new."""
        shown = self._shown.setdefault(look.frame.camera, _Shown(ChangeDetector()))
        changed = shown.detector.has_changed(look.rgb, look.regions or ())
        last = shown.outcome
        if (changed or last is None or last.error is not None or last.options != options
                or last.frame.session != look.frame.session
                or now_s - shown.captioned_s >= max_silence_s):
            shown.captioned_s = now_s
            return None
        return last


def _answer(looks: Sequence[Look], captioner: Captioner, options: CaptionOptions) -> None:
    """Let the model say what it says of each, or why it does not."""
    answers: Sequence[Sequence[Caption] | Exception]
    try:
        answers = caption_batch([(look.rgb, look.wanted) for look in looks], captioner, options)
    except Exception as error:  # whatever a model raises, the node lives on
        answers = [error] * len(looks)
    for look, answer in zip(looks, answers):
        look.answer(answer)
