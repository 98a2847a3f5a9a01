# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros convert``: checkpoints of other layouts into folders of transformers."""

from __future__ import annotations

from pathlib import Path

import typer

convert = typer.Typer(no_args_is_help=True,
                      help='Convert a checkpoint of another layout to a folder of transformers.')


@convert.callback()
def _convert() -> None:  # with a callback, one command alone keeps its name
    pass


@convert.command('alpha-clip')
def alpha_clip(
    source: Path = typer.Argument(metavar='IN', help="Alpha-CLIP's .pth file."),
    out: Path = typer.Argument(metavar='OUT', help='Folder to make.'),
    force: bool = typer.Option(False, '--force', help='Replace what was converted before.'),
) -> None:
    """Convert Alpha-CLIP's vision tower to a CLIPVisionModel with four input channels."""
    from caption_ros.captioners.alpha_clip import LICENCE, convert_alpha_clip

    config = convert_alpha_clip(source.expanduser(), out, force=force)
    typer.echo(f'{out}: CLIPVisionModel of {config.num_channels} channels (RGB and alpha), width '
               f'{config.hidden_size}, {config.num_hidden_layers} layers, {config.image_size} px '
               f'in patches of {config.patch_size} px')
    typer.echo(f"licence of Alpha-CLIP's released weights: {LICENCE}")
