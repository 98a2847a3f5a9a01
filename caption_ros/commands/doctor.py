# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros doctor``: what this machine can do, what is wrong and how to mend it."""

from __future__ import annotations

import json as json_module

import typer
from rich.console import Console
from rich.text import Text

_MARKS = {'ok': ('ok', 'green'), 'warning': ('warning', 'yellow'), 'problem': ('PROBLEM', 'red')}


def doctor(json: bool = typer.Option(False, '--json', help='Print JSON.')) -> None:
    """Say what this machine can do and what is wrong; exit 1 when something is broken."""
    from caption_ros.doctor import examine, is_healthy

    progress = Console(stderr=True)
    with progress.status('') as status:
        findings = examine(lambda what: status.update(f'looking at {what}'))
    healthy = is_healthy(findings)
    if json:
        typer.echo(json_module.dumps({'healthy': healthy,
                                      'findings': [item.to_dict() for item in findings]}))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for item in findings:
            mark, colour = _MARKS[item.level]
            console.print(Text(f'{mark:>8}  ', style=colour), Text(f'{item.name}: {item.text}'),
                          sep='')
            if item.fix:
                label = 'get it' if item.level == 'ok' else 'fix'
                console.print(Text(f'          {label}: {item.fix}'))
        broken = sum(item.level == 'problem' for item in findings)
        console.print('nothing is broken' if healthy else f'{broken} problem(s), see the fixes')
    if not healthy:
        raise typer.Exit(1)
