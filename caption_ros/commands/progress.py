# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A progress bar on a terminal and none in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text('' if speed is None else f'{speed:,.1f}/s')


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[..., None]]:
    """Show progress on stderr; yields a function of the count done and a note."""
    console = Console(stderr=True)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               _RateColumn(), TimeRemainingColumn(), TextColumn('{task.fields[note]}'))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, note='')
        yield lambda done, note='': bar.update(task, completed=done, note=note)
