# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros demo``: the main job on a simulated camera, as real processes over real DDS."""

from __future__ import annotations

from pathlib import Path

import typer


def demo(
    seconds: float = typer.Option(12.0, min=3.0, help='How long to caption.'),
    out: Path = typer.Option(Path('demo_output'), help='Folder for annotated PNGs.'),
    model: str = typer.Option('tabletop', help='Model name, path or hub id.'),
    seed: int = typer.Option(3, min=0, help='Seed of the first simulated scene.'),
) -> None:
    """Caption a simulated tabletop and check each caption against the scene that was shown."""
    from caption_ros.demo import run_demo

    summary = run_demo(seconds=seconds, out=out, model=model, seed=seed, say=typer.echo)
    typer.echo('')
    for line in summary.lines():
        typer.echo(line)
    if not summary.succeeded:
        typer.echo(f'caption-ros: {summary.reason()}', err=True)
        raise typer.Exit(1)
