# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bench``: the package beside the code that tutorials publish."""

from __future__ import annotations

import json as json_module
import tempfile
from contextlib import ExitStack
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table


def bench(
    model: str = typer.Argument('tabletop', help='Model name or checkpoint folder.'),
    random: str = typer.Option('', help='Random weights of full size instead: vit-gpt2 or '
                               'blip-base.'),
    regions: list[int] = typer.Option([1, 8], min=0, max=64, help='Regions of a frame; 0 is '
                                      'the whole scene. May be given several times.'),
    rounds: int = typer.Option(5, min=1, help='Rounds; the two ways take turns.'),
    max_new_tokens: int = typer.Option(16, min=1, max=512, help='Tokens of a caption.'),
    device: str = typer.Option('auto', help='auto, rocm, cuda or cpu.'),
    dtype: str = typer.Option('auto', help='auto, bfloat16, float16 or float32.'),
    focus: str = typer.Option('', help='Focus mode; attention where the model has it.'),
    json: Path | None = typer.Option(None, help='Write the figures to this file.'),
) -> None:
    """Time a model beside plain published code: float32, one picture at a time, crops."""
    from caption_ros.benchmark.captions import measure
    from caption_ros.benchmark.random_weights import write_random
    from caption_ros.captioners import checkpoint_folder

    with ExitStack() as stack:
        if random:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            typer.echo(f'writing random {random} ...', err=True)
            write_random(random, folder)
        else:
            folder = checkpoint_folder(model)
        figures = measure(folder, random or model, counts=regions, rounds=rounds,
                          max_new_tokens=max_new_tokens, device=device, dtype=dtype,
                          focus=focus)
    table = Table(title=f'{figures["model"]}: {figures["dtype"]} on {figures["device"]}, '
                        f'{max_new_tokens} tokens, {figures["threads"]} threads')
    for name in ('work', 'published', 'package', 'times as fast', 'least', 'most'):
        table.add_column(name, justify='left' if name == 'work' else 'right')
    for row in figures['ratios']:
        table.add_row(row['what'], f'{1000 * row["published_s"]:.0f} ms',
                      f'{1000 * row["package_s"]:.0f} ms', f'{row["ratio"]:.2f}',
                      f'{row["low"]:.2f}', f'{row["high"]:.2f}')
    Console().print(table)
    if json is not None:
        json.write_text(json_module.dumps(figures, indent=1) + '\n', 'utf-8')
