# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros doctor``: what this machine can do, what is wrong and how to mend it."""

from __future__ import annotations

import json as json_module

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_COLOURS = {'ok': 'green', 'info': 'cyan', 'warn': 'yellow', 'error': 'red'}


def doctor(json: bool = typer.Option(False, '--json', help='Print JSON.')) -> None:
    """Say what this machine can do and what is wrong; exit 1 when something is broken."""
    from caption_ros.doctor import examine, is_healthy

    with Console(stderr=True).status('') as status:
        findings = examine(lambda what: status.update(f'looking at {what}'))
    healthy = is_healthy(findings)
    console = Console(highlight=False)
    if json:
        typer.echo(json_module.dumps([item.to_dict() for item in findings]))
    elif console.is_terminal:
        table = Table('level', 'what', 'found')
        for item in findings:
            found = Text(item.text)
            if item.fix:  # folded, so that nothing of a command is cut off
                found.append(f'\n{_label(item.level)}: {item.fix}', style='bold')
            table.add_row(Text(item.level, style=_COLOURS[item.level]), Text(item.name), found)
        console.print(table)
    else:
        for item in findings:
            typer.echo(f'{item.level:>5}  {item.name}: {item.text}')
            if item.fix:
                typer.echo(f'       {_label(item.level)}: {item.fix}')
    if not json:
        broken = sum(item.level == 'error' for item in findings)
        console.print('nothing is broken' if healthy else f'{broken} problem(s), see the fixes')
    if not healthy:
        raise typer.Exit(1)


def _label(level: str) -> str:
    return 'if you want it' if level == 'info' else 'fix'
