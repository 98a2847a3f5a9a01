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
    def spent(work: Callable[[], object]) -> float:
        start_s = clock()
        work()
        return clock() - start_s

    spent(published), spent(package)
    pairs = [(spent(published), spent(package)) for _ in range(rounds)]
    ratios = [slow / quick for slow, quick in pairs]
    slow_s, quick_s = (statistics.median(side) for side in zip(*pairs))
    return Ratio(what, slow_s, quick_s, slow_s / quick_s, min(ratios), max(ratios), rounds)
