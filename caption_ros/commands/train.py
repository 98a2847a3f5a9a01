# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros train``: fine-tune an encoder-decoder on images, masks and captions."""

from __future__ import annotations

from pathlib import Path

import typer

_LOG_EVERY = 50  # lines in a pipe, where no bar is shown
_PASSES = 3  # looks at each simulated frame


def _shares(batch_size: int) -> dict[str, int]:
    """Split a batch; frames are a multiple of the passes, so that it has the size asked for."""
    passes = min(_PASSES, batch_size)
    # More sentences than phrases: they are the harder part, phrases soon come by themselves.
    frames = max(1, batch_size * 2 // 3 // passes) * passes
    return {'frames': frames, 'phrases': batch_size - frames, 'passes': passes}


def train(
    out: Path = typer.Argument(help='Folder for the checkpoint and the resumable state.'),
    data: str = typer.Option('tabletop', help='tabletop (the simulator) or a JSONL file with '
                             'image, caption and mask or box on each line.'),
    init: str = typer.Option('scratch', help='scratch, or a VisionEncoderDecoderModel checkpoint '
                             'to fine-tune: a known name such as tabletop, or a folder.'),
    steps: int = typer.Option(1000, min=1, help='Optimiser steps in all.'),
    batch_size: int = typer.Option(64, min=1, help='Samples a step.'),
    learning_rate: float = typer.Option(1e-3, help='Peak rate; 5e-5 suits fine-tuning.'),
    alpha: bool = typer.Option(True, help='Without: no alpha channel from scratch, and the one '
                               'of --init is folded away; regions are then shown as crops.'),
    save_every: int = typer.Option(200, min=1, help='Steps between resumable states.'),
    seed: int = typer.Option(0, min=0, max=2**31 - 1, help='Seed of weights and order.'),
    device: str = typer.Option('cpu', help='Where to train: cpu, rocm, cuda or auto.'),
    compile: bool = typer.Option(False, help='Use torch.compile.'),
    half: bool = typer.Option(True, help='Store float16 weights; float32 otherwise.'),
    resume: bool = typer.Option(False, help='Go on from the state in OUT.'),
) -> None:
    """Train encoder and decoder jointly; the result loads with load_captioner(OUT)."""
    from caption_ros.captioners import checkpoint_folder
    from caption_ros.captioners.devices import resolve_device
    from caption_ros.commands.progress import progress_bar
    from caption_ros.errors import OptionError
    from caption_ros.training.model import (
        check_captions,
        load_trainee,
        new_trainee,
        without_alpha,
    )
    from caption_ros.training.samples import JsonlSamples, TabletopSamples, tabletop_captions
    from caption_ros.training.train import TrainOptions, has_state, patch_grid
    from caption_ros.training.train import train as run

    options = TrainOptions(steps=steps, learning_rate=learning_rate, save_every=save_every,
                           warmup_steps=min(200, max(steps // 10, 1)), seed=seed,
                           device=resolve_device(device),
                           compile=compile, half=half)
    if resume and not has_state(out):
        raise OptionError(f'{out} holds no state to resume from; run without --resume')
    if not resume and has_state(out):
        raise OptionError(f'{out} holds the state of a former run; pass --resume to go on with '
                          'it, or choose another folder')
    if not resume and out.is_dir() and any(out.iterdir()):
        raise OptionError(f'{out} is not empty; choose another folder, or empty it')
    jsonl = None if data == 'tabletop' else JsonlSamples(Path(data), batch_size, seed)
    texts = tabletop_captions() if jsonl is None else jsonl.captions()
    trainee = new_trainee(texts, alpha=alpha, seed=seed) if init == 'scratch' \
        else load_trainee(checkpoint_folder(init))
    if jsonl is not None:
        check_captions(trainee, texts)
    if not alpha:
        trainee = without_alpha(trainee)
    samples = jsonl or TabletopSamples(grid=patch_grid(trainee), seed=seed, **_shares(batch_size))
    with progress_bar('steps', steps) as advance:
        def show(step: int, figures: dict[str, float]) -> None:
            note = f'loss {figures["loss"]:.3f} exact {figures["exact"]:.2f}'
            advance(step, note)
            if step % _LOG_EVERY == 0:
                typer.echo(f'step {step}: {note} {figures["seconds_per_step"]:.2f} s a step',
                           err=True)
        try:
            scores = run(trainee, samples, out, options, resume=resume, progress=show)
        except KeyboardInterrupt:
            if has_state(out):
                typer.echo(f'{out} holds the state; --resume goes on from it', err=True)
            raise
    typer.echo('held out: ' + ', '.join(f'{k} {v:.4f}' for k, v in scores.items()))
