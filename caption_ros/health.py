# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Facts about a running node to the statuses that diagnostics show; times are passed in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

RECENT_S = 10.0  # how long a bad frame or a failure stays a warning


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Status:
    """One diagnostic status.

    Attributes:
        name: Part of the node it is about.
        level: How well it is.
        message: One sentence.
        values: Figures to show with it.
    """

    name: str
    level: Level
    message: str
    values: dict[str, str] = field(default_factory=dict)


class Counters:
    """Named counts that several threads may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> int:
        """Raise a count and return it."""
        with self._lock:
            self._counts[name] += count
            return self._counts[name]

    def get(self, name: str) -> int:
        """Return a count, 0 if it was never raised."""
        with self._lock:
            return self._counts[name]

    def all(self) -> dict[str, int]:
        """Return a copy of all counts."""
        with self._lock:
            return dict(self._counts)


@dataclass
class Trouble:
    """The last thing that went wrong and when, by a steady clock."""

    text: str = ''
    at_s: float = float('-inf')

    def note(self, text: str, now_s: float) -> None:
        """Remember what went wrong."""
        self.text, self.at_s = text, now_s

    def is_recent(self, now_s: float) -> bool:
        """True within RECENT_S of the last trouble."""
        return now_s - self.at_s < RECENT_S


def model_status(state: str, model: str, details: dict[str, str], problem: str = '',
                 shortcomings: Sequence[str] = ()) -> Status:
    """Describe the model: loaded, not loaded, or why it could not be.

    Args:
        state: State of the node.
        model: Name of the model.
        details: What to show of a loaded model; empty while there is none.
        problem: Why configuring failed; empty when it did not.
        shortcomings: What of a loaded model is not as it was asked for, one sentence each.
    """
    values = {'model': model, 'state': state, **details}
    if problem:
        return Status('model', Level.ERROR, problem, values)
    if not details:
        return Status('model', Level.OK, f'not loaded: the node is {state}', values)
    if shortcomings:
        return Status('model', Level.WARN, f'{model} is loaded; {"; ".join(shortcomings)}', values)
    return Status('model', Level.OK, f'{model} is loaded', values)


def input_status(
    *, active: bool, topic: str, publishers: int, since_image_s: float | None,
    stale_after_s: float, lost: int, transport_hint: str, trouble: Trouble, now_s: float,
    values: dict[str, str], other_types: Sequence[str] = (), wanted_type: str = '',
    lost_of: str = '',
) -> Status:
    """Describe the input.

    Args:
        active: Whether the node listens.
        topic: Resolved topic of the images.
        publishers: Publishers on that topic.
        since_image_s: Time since the last image or, before the first, None.
        stale_after_s: Silence that is called stale.
        lost: Messages lost in transport of late.
        lost_of: Topic of most of them.
        transport_hint: What to do about frames that do not arrive; empty if nothing is known.
        trouble: Last frame that was dropped.
        now_s: Steady time.
        values: Figures to show.
        other_types: Types that are published there and are not the one that is listened to.
        wanted_type: The one that is.
    """
    if not active:
        return Status('input', Level.OK, 'not listening: the node is not active', values)
    if publishers == 0 and other_types:
        return Status('input', Level.WARN, f'{wrong_type(topic, other_types, wanted_type)} or set '
                      'image_transport to what the camera publishes', values)
    if publishers == 0:
        return Status('input', Level.WARN if since_image_s is None else Level.STALE,
                      f'no publisher on {topic}; start the camera or remap the topic', values)
    if is_silent(since_image_s, stale_after_s):
        silence = ('no image yet' if since_image_s is None
                   else f'no image for {since_image_s:.1f} s')
        hint = f'; {transport_hint}' if transport_hint else ''
        return Status('input', Level.STALE, f'{silence} on {topic} from {publishers} '
                      f'publisher(s){hint}', values)
    if trouble.is_recent(now_s):
        return Status('input', Level.WARN, trouble.text, values)
    if lost:
        hint = f'; {transport_hint}' if transport_hint else ''
        return Status('input', Level.WARN, f'{lost} frame(s) of {lost_of or topic} were lost on '
                      f'the way{hint}', values)
    return Status('input', Level.OK, f'images arrive on {topic}', values)


def is_silent(since_image_s: float | None, stale_after_s: float) -> bool:
    """Tell whether no image has come for too long; None is before the first."""
    return since_image_s is None or since_image_s > stale_after_s


def wrong_type(topic: str, types: Sequence[str], wanted: str) -> str:
    """Say that a topic has publishers, and none of the type that is listened to."""
    return f'{topic} is published as {", ".join(types)}, wanted {wanted}; remap the topic'
