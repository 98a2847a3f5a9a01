# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ratios of two ways to do the same work, taken in turns, because machines drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times faster the second of two ways was, round by round.

    Attributes:
        what: What was done.
        published_s: Median seconds of the first.
        package_s: Median seconds of the second.
        ratio: Ratio of the two medians.
        low: Smallest ratio of a round.
        high: Largest ratio of a round.
        rounds: Rounds that were timed.
    """

    what: str
    published_s: float
    package_s: float
    ratio: float
    low: float
    high: float
    rounds: int

    def to_dict(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return asdict(self)


def compare(what: str, published: Callable[[], object], package: Callable[[], object],
            rounds: int, clock: Callable[[], float] = time.perf_counter) -> Ratio:
    """Time two ways to do the same, one after the other in each round.

    Args:
        what: What is done.
        published: The first way.
        package: The second way.
        rounds: Rounds to time, 1 or more; one before them warms up.
        clock: Seconds since whenever.
    """
    return compare_all(published, {what: package}, rounds, clock)[0]


def compare_all(published: Callable[[], object], package: dict[str, Callable[[], object]],
                rounds: int, clock: Callable[[], float] = time.perf_counter) -> list[Ratio]:
    """Time one way beside several others, one after the other in each round.

    Args:
        published: The first way.
        package: The others, by what they do.
        rounds: Rounds to time, 1 or more; one before them warms up.
        clock: Seconds since whenever.

    Returns:
        A ratio for each of the others.
    """
    def spent(work: Callable[[], object]) -> float:
        start_s = clock()
        work()
        return clock() - start_s

    times = [[spent(work) for work in (published, *package.values())]
             for _ in range(rounds + 1)][1:]
    slow, *others = zip(*times)
    slow_s = statistics.median(slow)
    found = []
    for what, quick in zip(package, others):
        ratios = [one / other for one, other in zip(slow, quick)]
        quick_s = statistics.median(quick)
        found.append(Ratio(what, slow_s, quick_s, slow_s / quick_s, min(ratios), max(ratios),
                           rounds))
    return found
