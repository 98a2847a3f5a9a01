# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a process holds of memory and how much its threads compute, from Linux' /proc."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One look at a process.

    Attributes:
        at_s: When, by the clock of the caller, seconds.
        rss_mib: Resident memory, that shared with other processes included, MiB.
        own_mib: Resident memory that is the process' own, MiB.
        held_mib: Resident memory, of shared memory all that is allocated instead of the pages that
            the process has looked at, MiB. A further page that it looks at takes none.
        cpu_s: Time that all its threads have computed, seconds; those that ended, too.
        thread_cpu_s: The same of the threads that live, by their name.
    """

    at_s: float
    rss_mib: float
    own_mib: float
    held_mib: float
    cpu_s: float
    thread_cpu_s: dict[str, float]


def sample(folder: Path, at_s: float) -> Sample:
    """Look at the process whose folder in /proc is given.

    Raises:
        FileNotFoundError: If it has ended.
    """
    status = (folder / 'status').read_text()
    threads: Counter[str] = Counter()
    for task in (folder / 'task').iterdir():
        try:
            name, cpu_s = _spent((task / 'stat').read_text())
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        threads[name] += cpu_s
    rss_mib = _mib(status, 'VmRSS')
    held_mib = rss_mib + _not_looked_at_mib(folder)
    return Sample(at_s, rss_mib, _mib(status, 'RssAnon'), held_mib,
                  _spent((folder / 'stat').read_text())[1], dict(threads))


def memory_growth(samples: Sequence[Sample], minute_s: float = 60.0,
                  of: str = 'rss_mib') -> float:
    """Return by what share memory has grown, from the second minute to the last.

    Args:
        samples: Looks at the process, from its first minute on; two minutes at least.
        minute_s: A minute; runs of less than four take a quarter of their time.
        of: Which memory: ``rss_mib``, ``own_mib`` or ``held_mib``.
    """
    start_s, end_s = samples[0].at_s, samples[-1].at_s
    minute_s = min(minute_s, (end_s - start_s) / 4)
    second = [getattr(one, of) for one in samples
              if minute_s <= one.at_s - start_s < 2 * minute_s]
    last = [getattr(one, of) for one in samples if one.at_s > end_s - minute_s]
    return statistics.median(last) / statistics.median(second) - 1


def _spent(stat: str) -> tuple[str, float]:
    """Return the name and the seconds computed of a line of /proc/.../stat."""
    # The name may hold blanks and brackets; what follows its last bracket does not.
    head, _, rest = stat.rpartition(')')
    fields = rest.split()
    ticks = int(fields[11]) + int(fields[12])  # in user mode and in the kernel
    return head.partition('(')[2], ticks / os.sysconf('SC_CLK_TCK')


def _not_looked_at_mib(folder: Path) -> float:
    """Return how much of the shared memory that it has mapped by name a process has left out."""
    sizes: dict[str, int] = {}
    name, seen_kib = None, 0
    for line in (folder / 'smaps').read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(':'):  # the next mapping, with its name at the end
            name = rest[-1] if rest and rest[-1].startswith('/dev/shm/') else None
            if name is not None and name not in sizes:
                sizes[name] = 0
                with suppress(FileNotFoundError):  # unlinked since
                    sizes[name] = os.stat(name).st_blocks
        elif field == 'Rss:' and name is not None and sizes[name]:
            seen_kib += int(rest[0])
    return sum(sizes.values()) * 512 / 2 ** 20 - seen_kib / 1024


def _mib(status: str, name: str) -> float:
    return int(status.partition(f'{name}:')[2].split()[0]) / 1024
