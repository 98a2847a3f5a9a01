# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the inference of a node has done so far, and how well it is; times are passed in."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping

from caption_ros.health import Counters, Level, Status, Trouble

FAILURES_FOR_ERROR = 3
_FIRST_BATCH_S = 30.0  # may compile, or look for the fastest kernels
_HANG, _LEAST_HANG_S = 10, 20.0  # times the usual batch, and no less
_RECENT = 30  # frames
_COUNTS = ('frames captioned', 'captions published', 'captions held back', 'model failures',
           'results dropped after deactivation', 'prompts refused')


class InferenceHealth:
    """Keeps count of what became of frames, and tells how well the model does.

    Counts may be raised by several threads; all else is for one thread at a time.
    """

    def __init__(self) -> None:
        self._counters = Counters()
        for name in _COUNTS:
            self._counters.add(name, 0)
        self._trouble = Trouble()
        self._failures_in_a_row = 0
        self._latencies_s: deque[float] = deque(maxlen=_RECENT)
        self._ages_s: deque[float] = deque(maxlen=_RECENT)

    def published(self, captions: int, latency_s: float, age_s: float) -> None:
        """Take note of captions of one frame that went out.

        Args:
            captions: How many.
            latency_s: From taking the frame to the captions of its batch, seconds.
            age_s: From the stamp of the image to now, without a stamp from its arrival, seconds.
        """
        self._counters.add('frames captioned')
        self._counters.add('captions published', captions)
        self._latencies_s.append(latency_s)
        self._ages_s.append(age_s)

    def held_back(self, captions: int) -> None:
        """Count captions that the filter holds back."""
        self._counters.add('captions held back', captions)

    def dropped(self) -> None:
        """Count a result that came after the activation that it belongs to."""
        self._counters.add('results dropped after deactivation')

    def prompt_refused(self) -> None:
        """Count a prompt that cannot be used."""
        self._counters.add('prompts refused')

    def works(self) -> None:
        """Forget failures in a row: the model has answered, or is a new one."""
        self._failures_in_a_row = 0

    def failed(self, text: str, now_s: float) -> None:
        """Take note that the model has failed."""
        self._failures_in_a_row += 1
        self.lost(text, now_s)

    def lost(self, text: str, now_s: float) -> None:
        """Take note of results that could not be handed over; no failure in a row."""
        self._counters.add('model failures')
        self._trouble.note(text, now_s)

    def hang(self, in_work_s: float) -> str:
        """Say that a batch takes far longer than those before; empty while it does not.

        Args:
            in_work_s: For how long it has been in work, seconds.
        """
        usual_s = statistics.median(self._latencies_s) if self._latencies_s else _FIRST_BATCH_S
        if in_work_s <= max(_LEAST_HANG_S, _HANG * usual_s):
            return ''
        return (f'one batch of captions has been in work for {in_work_s:.0f} s: the model or its '
                'device hangs, or the machine is busy with something else; look there, or start '
                'the node anew')

    def status(self, *, active: bool, now_s: float, in_work_s: float,
               told: Mapping[str, int]) -> Status:
        """Return the status of the inference; several failures in a row are an error.

        Args:
            active: Whether frames are captioned.
            now_s: Steady time, seconds.
            in_work_s: For how long a batch has been in work, seconds.
            told: More counts to show.
        """
        counts = self._counters.all()
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
        if hang := self.hang(in_work_s):
            return Level.ERROR, hang
        if self._failures_in_a_row >= FAILURES_FOR_ERROR:
            return Level.ERROR, (f'{self._failures_in_a_row} failures in a row: '
                                 f'{self._trouble.text}')
        if self._trouble.is_recent(now_s):
            return Level.WARN, self._trouble.text
        if counts['frames captioned']:
            return Level.OK, 'captions are published'
        if counts['captions held back']:
            return Level.WARN, (
                'the filter has held back all captions so far, '
                f'{counts["captions held back"]}: lower filter_threshold, or choose a model that '
                'knows what the camera sees')
        return Level.OK, 'waiting for the first frame'
