# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time of a recording that is being played, and its messages read ahead of that time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from caption_ros.bags.files import Message, OnDamage, Topic
from caption_ros.bags.recording import Recording
from caption_ros.errors import OptionError

SLOWEST, FASTEST = 0.01, 100.0
_AHEAD_BYTES = 64 << 20  # of messages in memory, one more than fits


def check_rate(rate: float) -> float:
    """Return a rate that is allowed.

    Raises:
        OptionError: If it is not within 0.01 to 100.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise OptionError(f'rate must be {SLOWEST} to {FASTEST:g}, got {rate!r}')
    return float(rate)


class PlaybackClock:
    """Time of the recording: runs at a rate, stops and jumps; safe to use from any thread.

    Args:
        rate: Seconds of the recording per second, 0.01 to 100.
        is_paused: Stand still until resume().
        steady_ns: A steady clock, nanoseconds.
    """

    def __init__(self, rate: float = 1.0, is_paused: bool = False,
                 steady_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._steady_ns = steady_ns
        self._changed = threading.Condition()
        self._time_ns, self._since_ns = 0, steady_ns()
        self._is_paused = is_paused
        self._rate = check_rate(rate)

    @property
    def rate(self) -> float:
        """Seconds of the recording per second."""
        return self._rate

    @property
    def is_paused(self) -> bool:
        """True while the time stands still."""
        return self._is_paused

    def now_ns(self) -> int:
        """Return the time of the recording, nanoseconds."""
        with self._changed:
            return self._now_ns()

    def jump(self, time_ns: int) -> None:
        """Go on from another time of the recording."""
        self._change(time_ns=time_ns)

    def pause(self, is_paused: bool = True) -> None:
        """Stand still, or go on with False."""
        self._change(is_paused=is_paused)

    def set_rate(self, rate: float) -> None:
        """Go on at another rate.

        Raises:
            OptionError: If it is not within 0.01 to 100.
        """
        self._change(rate=check_rate(rate))

    def wait_until(self, time_ns: int, at_most_s: float) -> bool:
        """Wait for a time of the recording or for so many seconds; True when it is there."""
        with self._changed:
            left_s = (time_ns - self._now_ns()) / 1e9 / self._rate
            wait_s = at_most_s if self._is_paused else min(left_s, at_most_s)
            if left_s > 0:
                self._changed.wait(wait_s)
            return self._now_ns() >= time_ns

    def _now_ns(self) -> int:
        if self._is_paused:
            return self._time_ns
        return self._time_ns + round((self._steady_ns() - self._since_ns) * self._rate)

    def _change(self, *, time_ns: int | None = None, is_paused: bool | None = None,
                rate: float | None = None) -> None:
        with self._changed:
            self._time_ns = self._now_ns() if time_ns is None else time_ns
            self._since_ns = self._steady_ns()
            self._is_paused = self._is_paused if is_paused is None else is_paused
            self._rate = rate or self._rate
            self._changed.notify_all()


def read_ahead(recording: Recording, wanted: list[Topic], on_damage: OnDamage,
               ) -> Iterator[Message]:
    """Yield messages that a thread reads ahead, 64 MiB of them at most.

    A player that has to decompress the next file when its first message is due comes late.

    Args:
        recording: The recording.
        wanted: Topics.
        on_damage: Takes what cannot be read, called by the reading thread.
    """
    ready: deque[Message | BaseException | None] = deque()
    state = threading.Condition()
    held = 0
    is_closed = False

    def put(item: Message | BaseException | None, nbytes: int) -> bool:
        nonlocal held
        with state:
            state.wait_for(lambda: is_closed or held < _AHEAD_BYTES)
            ready.append(item)
            held += nbytes
            state.notify_all()
            return not is_closed

    def run() -> None:
        try:
            for message in recording.messages(wanted, on_damage):
                if not put(message, len(message.data)):
                    return
            put(None, 0)
        except BaseException as error:  # noqa: BLE001 - raised again where messages are taken
            put(error, 0)

    thread = threading.Thread(target=run, name='read_ahead', daemon=True)
    thread.start()
    try:
        while True:
            with state:
                state.wait_for(lambda: ready)
                item = ready.popleft()
                held -= len(item.data) if isinstance(item, Message) else 0
                state.notify_all()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        with state:
            is_closed = True
            state.notify_all()
        thread.join()
