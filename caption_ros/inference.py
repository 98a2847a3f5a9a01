# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the inference of a node has done so far, and how well it is; times are passed in."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from caption_ros.health import Counters, Level, Status, Trouble

_FIRST_BATCH_S = 30.0  # may compile, or look for the fastest kernels
_HANG, _LEAST_HANG_S = 10, 20.0  # times the usual batch, and no less
FAILURES_FOR_ERROR = 3
_RECENT = 30  # frames
_COUNTS = ('frames captioned', 'captions published', 'captions held back', 'model failures',
           'results dropped after deactivation', 'prompts refused')


class InferenceHealth:
    """Keeps count of what became of frames that reached the model.

    The caller sees to it that one thread at a time calls it.

    Attributes:
        counters: How often what happened.
        trouble: The last failure.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        for name in _COUNTS:
            self.counters.add(name, 0)
        self.trouble = Trouble()
        self._failures_in_a_row = 0
        self._latencies_s: deque[float] = deque(maxlen=_RECENT)
        self._ages_s: deque[float] = deque(maxlen=_RECENT)

    def published(self, captions: int, latency_s: float, age_s: float) -> None:
        """Take note of captions of one frame that went out.

        Args:
            captions: How many.
            latency_s: From taking the frame to the captions of its batch, seconds.
            age_s: From the stamp of the image to now, seconds.
        """
        self.counters.add('frames captioned')
        self.counters.add('captions published', captions)
        self._latencies_s.append(latency_s)
        self._ages_s.append(age_s)

    def works(self) -> None:
        """Take note that the model has answered."""
        self._failures_in_a_row = 0

    def failed(self, text: str, now_s: float) -> None:
        """Take note that the model has failed."""
        self._failures_in_a_row += 1
        self.lost(text, now_s)

    def lost(self, text: str, now_s: float) -> None:
        """Take note of a frame without captions that is not for certain the model's fault."""
        self.counters.add('model failures')
        self.trouble.note(text, now_s)

    def hangs(self, in_work_s: float) -> bool:
        """Tell whether a batch that has been in work for so long takes far longer than others."""
        usual_s = statistics.median(self._latencies_s) if self._latencies_s else _FIRST_BATCH_S
        return in_work_s > max(_LEAST_HANG_S, _HANG * usual_s)

    def status(self, *, active: bool, now_s: float, in_work_s: float,
               told: Mapping[str, int]) -> Status:
        """Return the status of the inference; several failures in a row are an error.

        Args:
            active: Whether frames are captioned.
            now_s: Steady time, seconds.
            in_work_s: For how long a batch has been in work, seconds.
            told: More counts to show.
        """
        counts = self.counters.all()
        values = {name: str(count) for name, count in (counts | dict(told)).items()}
        if self._latencies_s:
            values['median latency s'] = f'{statistics.median(self._latencies_s):.3f}'
            values['median age s'] = f'{statistics.median(self._ages_s):.3f}'
        values['failures in a row'] = str(self._failures_in_a_row)
        level, message = (self._condition(counts, now_s, in_work_s) if active
                          else (Level.OK, 'idle: the node is not active'))
        return Status('inference', level, message, values)

    def _condition(self, counts: Mapping[str, int], now_s: float, in_work_s: float,
                   ) -> tuple[Level, str]:
        """Return how well it is while frames are captioned, and one sentence on it."""
        if self.hangs(in_work_s):
            return Level.ERROR, (
                f'one batch of captions has been in work for {in_work_s:.0f} s: the model or its '
                'device hangs, or the machine is busy with something else; look there, or start '
                'the node anew')
        if self._failures_in_a_row >= FAILURES_FOR_ERROR:
            return Level.ERROR, f'{self._failures_in_a_row} failures in a row: {self.trouble.text}'
        if self.trouble.is_recent(now_s):
            return Level.WARN, self.trouble.text
        if counts['frames captioned']:
            return Level.OK, 'captions are published'
        if counts['captions held back']:
            return Level.WARN, (
                'the filter has held back all captions so far, '
                f'{counts["captions held back"]}: lower filter_threshold, or choose a model that '
                'knows what the camera sees')
        return Level.OK, 'waiting for the first frame'
