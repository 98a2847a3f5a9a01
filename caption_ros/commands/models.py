# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros models``: what is known and what is here."""

from __future__ import annotations

import json as json_module

import typer
from rich.console import Console
from rich.table import Table


def models(json: bool = typer.Option(False, '--json', help='Print JSON.')) -> None:
    """List known models with family, focus modes, checkpoint, licence, memory and presence."""
    from caption_ros.captioners import FILTERS, KNOWN, ready_checkpoint

    rows = [{
        'name': card.name, 'aliases': list(card.aliases), 'family': card.family,
        'focus': list(card.focus_modes),
        'checkpoint': card.checkpoint.replace('packaged:', 'packaged: '),
        'licence': card.licence, 'memory_mb_float32': round(card.memory_bytes / 1e6),
        'local': str(ready_checkpoint(card) or ''), 'notes': card.notes,
    } for card in (*KNOWN.values(), *FILTERS.values())]
    if json:
        typer.echo(json_module.dumps(rows))
        return
    console = Console()
    if not console.is_terminal:  # a pipe has no width to fit: nothing is cut there
        console = Console(width=240)
    table = Table('name', 'family', 'focus', 'checkpoint', 'licence', 'float32', 'here', 'notes')
    for row in rows:
        table.add_row(', '.join([str(row['name']), *row['aliases']]), str(row['family']),
                      ', '.join(row['focus']) or '-', str(row['checkpoint']), str(row['licence']),
                      f'{row["memory_mb_float32"]} MB', str(row['local']) or 'no',
                      str(row['notes']))
    console.print(table)
