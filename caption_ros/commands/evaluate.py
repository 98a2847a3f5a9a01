# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros eval``: score a model on held-out tabletops."""

from __future__ import annotations

import json as json_module

import typer
from rich.console import Console
from rich.table import Table

from caption_ros.commands.options import (
    Device,
    Dtype,
    Focus,
    Model,
    tell_problems,
)


def evaluate(
    model: Model = 'tabletop',
    scenes: int = typer.Option(1000, min=1, help='Number of evaluation scenes.'),
    first_seed: int = typer.Option(0, min=0, help='Seed of the first scene.'),
    focus: Focus = 'auto',
    num_beams: int = typer.Option(1, min=1, help='Beams; 1 is greedy.'),
    device: Device = 'auto',
    dtype: Dtype = 'auto',
    json: bool = typer.Option(False, '--json', help='Print JSON.'),
) -> None:
    """Score a model against references on simulated tabletops that no training has seen."""
    from caption_ros.captioner import CaptionOptions
    from caption_ros.captioners import load_captioner
    from caption_ros.commands.progress import progress_bar
    from caption_ros.training.evaluate import evaluate_tabletop

    options = CaptionOptions(focus=focus, num_beams=num_beams)
    captioner = load_captioner(model, device=device, dtype=dtype)
    tell_problems(captioner)
    with progress_bar('scenes', scenes) as advance:
        scores = evaluate_tabletop(captioner, scenes, first_seed, options=options,
                                   progress=advance)
    if json:
        typer.echo(json_module.dumps({'model': captioner.name, 'dtype': captioner.dtype,
                                      **scores.to_dict()}))
        return
    table = Table(title=f'{captioner.name} in {captioner.dtype} on {scores.scenes} scenes, '
                        f'{scores.captions} captions')
    table.add_column('score')
    table.add_column('value', justify='right')
    for name in ('phrase_exact', 'scene_exact', 'absent_object', 'bleu4', 'cider'):
        table.add_row(name, f'{getattr(scores, name):.4f}')
    Console().print(table)
    for seed, said, truth in scores.worst[:5]:
        typer.echo(f'seed {seed}: said "{said}", reference "{truth}"')
