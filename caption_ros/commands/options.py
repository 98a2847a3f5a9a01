# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, and what is checked and loaded by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from caption_ros.errors import OptionError

if TYPE_CHECKING:
    from caption_ros.captioner import Captioner

Model = Annotated[str, typer.Option(help='Model name, path or hub id.')]
Focus = Annotated[str, typer.Option(help='auto, alpha, attention or crop.')]
Describe = Annotated[str, typer.Option(help='auto, scene, regions or both.')]
Device = Annotated[str, typer.Option(help='auto, rocm, cuda or cpu.')]
Dtype = Annotated[str, typer.Option(help='auto, bfloat16, float16, float32 or int8 (CPU).')]
Attention = Annotated[str, typer.Option(help='auto, flash, efficient or math.')]
Compile = Annotated[str, typer.Option(
    help='Compile the encoder: none, default, reduce-overhead or max-autotune.')]
TunableOp = Annotated[str, typer.Option(help='ROCm: none, use or tune.')]
NumBeams = Annotated[int, typer.Option(help='Beams; 1 is greedy.')]
MaxNewTokens = Annotated[int, typer.Option(help='Longest caption in tokens.')]
Batch = Annotated[int, typer.Option(help='Frames captioned at once, 1 to 256.')]
Prompt = Annotated[str, typer.Option(help='The beginning of the caption, or the question.')]
FilterModel = Annotated[str, typer.Option(
    '--filter', help='Filter for the captions: blip-itm, a path or a hub id.')]
Candidates = Annotated[int, typer.Option(
    help='With a filter: captions sampled, the best is kept.')]
FilterThreshold = Annotated[float, typer.Option(
    help='With a filter: least match of a caption, 0 to 1.')]


def check_candidates(candidates: int, filter_model: str) -> None:
    """Refuse several candidates without a filter that chooses among them.

    Raises:
        OptionError: If there is none.
    """
    if candidates > 1 and not filter_model:
        raise OptionError(f'candidates is {candidates} and there is no filter to choose among '
                          'them; give --filter or leave candidates at 1')


def load_with_focus(model: str, device: str, dtype: str, filter_model: str,
                    focus: str) -> Captioner:
    """Load a captioner that has a focus mode and tell of problems; see load_captioner."""
    from caption_ros.captioner import check_focus
    from caption_ros.captioners import load_captioner

    captioner = load_captioner(model, device=device, dtype=dtype, filter_model=filter_model)
    check_focus(captioner, focus)
    tell_problems(captioner)
    return captioner


def tell_problems(captioner: Captioner) -> None:
    """Say on stderr what is not as it was asked for; the node has diagnostics for it."""
    for problem in captioner.problems():
        typer.echo(f'caption-ros: {problem}', err=True)
