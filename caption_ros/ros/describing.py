# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Answers of the service describe: what the newest frames show, asked for at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from caption_ros.captioner import CaptionOptions
from caption_ros.errors import OptionError, first_line
from caption_ros.ros.camera import Camera
from caption_ros.ros.intake import Frame
from caption_ros.ros.look import Outcome
from caption_ros.ros.messages import caption_text
from caption_ros.ros.worker import CaptionWorker

_LOOK_UP_S = 0.1
_PATIENCE_S = 2.0  # for a frame, when there is none or only an old one
_DEACTIVATED = 'the node was deactivated meanwhile'


class Describing:
    """Answers for all cameras that are not silent, by the options of now.

    Args:
        cameras: The cameras by name.
        changed: Notified of each outcome; held by whoever calls, and let go of while it waits.
        options: Returns the options for the next frames.
        stale_after_s: Returns the age in seconds at which a frame is no answer.
        hang: Says that a batch takes far too long; empty while it does not.
    """

    def __init__(self, cameras: Mapping[str, Camera], changed: threading.Condition,
                 options: Callable[[], CaptionOptions], stale_after_s: Callable[[], float],
                 hang: Callable[[], str]) -> None:
        self._cameras = cameras
        self._changed = changed
        self._options = options
        self._stale_after_s = stale_after_s
        self._hang = hang

    def answer(self, worker: CaptionWorker, is_over: Callable[[], bool]) -> tuple[bool, str]:
        """Wait until the newest frames are captioned.

        Args:
            worker: Who captions them.
            is_over: Tells whether the activation has ended.

        Returns:
            Whether there are captions, and them or one sentence why there are none.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while not (wanted := self._newest()) and time.monotonic() < deadline_s:
            self._changed.wait(_LOOK_UP_S)
            if is_over():
                return False, _DEACTIVATED
        if not wanted:
            return False, f'no frame within {_PATIENCE_S:.0f} s: ' + '; '.join(
                camera.status(time.monotonic(), active=True).message
                for camera in self._cameras.values())
        asked: dict[str, CaptionOptions] = {}

        def are_answered() -> bool:
            return all([self._is_answered(self._cameras[name], frame, asked, worker)
                        for name, frame in wanted.items()])
        if not are_answered():
            worker.hurry()
        while not are_answered():
            self._changed.wait(_LOOK_UP_S)
            if is_over():
                return False, _DEACTIVATED
            if problem := self._hang():
                return False, problem
        return _answer({name: outcome for name in wanted
                        if (outcome := self._cameras[name].outcome) is not None})

    def _newest(self) -> dict[str, Frame]:
        """Return the newest frame of each camera that is not silent."""
        oldest_s = time.monotonic() - self._stale_after_s()
        return {name: frame for name, camera in self._cameras.items()
                if camera.intake.newest_s >= oldest_s
                and (frame := camera.intake.renew()) is not None}

    def _is_answered(self, camera: Camera, frame: Frame, asked: dict[str, CaptionOptions],
                     worker: CaptionWorker) -> bool:
        """Tell whether a frame, or a newer one, was captioned as is wanted now.

        The newest one, if that was with older options, is captioned again.

        Args:
            camera: Whose frame it is.
            frame: The frame.
            asked: The options that each camera's frame was left to the worker again for.
            worker: Who captions it.
        """
        outcome, options = camera.outcome, self._options()
        if outcome is None or not (outcome.frame.is_same(frame)
                                   or outcome.frame.arrived_s > frame.arrived_s):
            return False
        if outcome.options == options or isinstance(outcome.error, OptionError):
            return True
        if asked.get(camera.name) != options:
            asked[camera.name] = options
            camera.intake.again(outcome.frame)
            worker.hurry()
        return False


def _answer(outcomes: Mapping[str, Outcome]) -> tuple[bool, str]:
    """Return whether there are captions, and them or why there are none."""
    said = {name: caption_text(outcome.said) for name, outcome in outcomes.items()
            if outcome.error is None and outcome.said}
    if not said:
        return False, '; '.join(dict.fromkeys(map(_why_nothing, outcomes.values())))
    return True, '; '.join(f'{name}: {text}' if name else text for name, text in said.items())


def _why_nothing(outcome: Outcome) -> str:
    if outcome.error is not None:
        return first_line(outcome.error)
    best = max(caption.match or 0.0 for caption in outcome.captions)
    return (f'the filter held back all {len(outcome.captions)} captions: the best match is '
            f'{best:.2f}, wanted {outcome.options.filter_threshold:.2f}')
