# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bench``: the package beside the code that tutorials publish."""

from __future__ import annotations

import json as json_module
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from caption_ros.commands.options import (
    Attention,
    Compile,
    Device,
    Dtype,
    TunableOp,
    tell_problems,
)
from caption_ros.errors import OptionError

if TYPE_CHECKING:
    from caption_ros.captioner import Captioner

_PLOTS = ('.png', '.svg', '.pdf')


def bench(
    model: str = typer.Argument('tabletop', help='Model name or checkpoint folder.'),
    random: str = typer.Option('', help='Random weights of full size instead: vit-gpt2 or '
                               'blip-base.'),
    regions: list[int] = typer.Option([1, 8], min=0, max=64, help='Regions of a frame; 0 is '
                                      'the whole scene. May be given several times.'),
    rounds: int = typer.Option(5, min=1, help='Rounds; the two ways take turns.'),
    max_new_tokens: int = typer.Option(16, min=1, max=512, help='Tokens of a caption.'),
    device: Device = 'auto',
    dtype: Dtype = 'auto',
    attention: Attention = 'auto',
    compile: Compile = 'none',
    tunable_op: TunableOp = 'none',
    focus: str = typer.Option('', help='Focus mode; attention where the model has it.'),
    growth: bool = typer.Option(False, help='Also time more regions, more cameras in a batch '
                                '(the whole scene of each; with --focus one region), larger '
                                'images and longer captions.'),
    split: bool = typer.Option(False, help='Also time what a frame with four regions costs '
                               'outside the model, step by step, at 640x480 and 1920x1080; with '
                               'rclpy installed receiving and publishing, too.'),
    scenes: int = typer.Option(32, min=0, max=100_000, help='Evaluation scenes whose captions '
                               'are compared with those of the published code in float32 and in '
                               'the same dtype; 0 compares none. Random weights say little '
                               'here.'),
    plot: Path | None = typer.Option(None, help='Draw the figures into this file (PNG, SVG).'),
    json: Path | None = typer.Option(None, help='Write the figures to this file.'),
) -> None:
    """Time a model beside plain published code: float32, one picture at a time, crops."""
    from caption_ros.benchmark.agreement import agreement
    from caption_ros.benchmark.captions import bench_options, measure
    from caption_ros.benchmark.curves import growth as grow
    from caption_ros.benchmark.curves import sharing
    from caption_ros.benchmark.plot import plot as draw
    from caption_ros.benchmark.published import Published
    from caption_ros.benchmark.random_weights import write_random
    from caption_ros.captioners import checkpoint_folder, load_captioner
    from caption_ros.captioners.acceleration import Acceleration
    from caption_ros.captioners.loading import quiet

    for path in (json, plot):  # now, and not when all has been measured
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise OptionError(f'{path} cannot be written; name a file in a folder that is there')
    if plot is not None and plot.suffix.lower() not in _PLOTS:
        raise OptionError(f'{plot} is no picture file; wanted one of {", ".join(_PLOTS)}')
    with ExitStack() as stack:
        if random:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            typer.echo(f'writing random {random} ...', err=True)
            with quiet():
                write_random(random, folder)
        else:
            folder = checkpoint_folder(model)
        captioner = load_captioner(folder, device=device, dtype=dtype, acceleration=Acceleration(
            attention=attention, compile=compile, tunable_op=tunable_op))
        options = bench_options(captioner, focus, max_new_tokens)
        with quiet():
            published = Published(folder)
        figures = measure(captioner, published, options, counts=regions, rounds=rounds)
        figures['model'] = f'random {random}' if random else model
        figures['settings'] = captioner.facts()
        tell_problems(captioner)
        if scenes:
            also = {captioner.dtype} & {'bfloat16', 'float16'}  # generate() has no other
            figures['agreement'] = agreement(
                captioner, [published, *(Published(folder, name) for name in also)], options,
                scenes)
        if split:
            figures['split'] = _split(captioner)
        if growth:
            each = bool(focus)
            figures['growth'] = grow(captioner, options, rounds, cameras_have_region=each)
            figures['sharing'] = sharing(captioner, options, rounds, cameras_have_region=each)
    table = Table(title=f'{figures["model"]}: {figures["dtype"]} on {figures["device"]}, '
                        f'{max_new_tokens} tokens, {figures["threads"]} threads')
    for name in ('work', 'published', 'package', 'times as fast', 'least', 'most'):
        table.add_column(name, justify='left' if name == 'work' else 'right')
    for row in figures['ratios']:
        table.add_row(row['what'], f'{1000 * row["published_s"]:.0f} ms',
                      f'{1000 * row["package_s"]:.0f} ms', f'{row["ratio"]:.2f}',
                      f'{row["low"]:.2f}', f'{row["high"]:.2f}')
    Console().print(table)
    for name in ('drafted tokens right', 'recalled tokens right'):
        if name in figures['settings']:
            typer.echo(f'{name}: {figures["settings"][name]}')
    for size in figures.get('split', ()):
        _print_split(size)
    for dtype, share in figures.get('agreement', {}).get('equal', {}).items():
        typer.echo(f'{100 * share:.1f} % of the captions of {scenes} scene(s) equal those '
                   f'of generate() in {dtype}')
    for what, points in figures.get('growth', {}).items():
        typer.echo(f'{what}: ' + (', '.join(f'{x} {ms:.0f} ms' for x, ms in points)
                                  if isinstance(points, list) else f'{points:.0f}'))
    for row in figures.get('sharing', ()):
        typer.echo(f'{row["what"]} take {row["ratio"]:.2f} ({row["low"]:.2f} to '
                   f'{row["high"]:.2f}) of the time of {row["of"]}, wanted at most '
                   f'{row["limit"]}')
    if json is not None:
        json.write_text(json_module.dumps(figures, indent=1) + '\n', 'utf-8')
    if plot is not None:
        draw(figures, plot)


def _split(captioner: Captioner) -> list[dict[str, Any]]:
    """Time what a frame costs outside the model, with ROS where it is installed."""
    from caption_ros.benchmark.split import split

    view = getattr(captioner, '_view', None)  # only models of one picture size have one
    prepare = None if view is None else view.pixels
    try:
        from caption_ros.ros.loopback import loopback
    except ImportError as error:
        typer.echo(f'the split lacks receiving and publishing: {error}', err=True)
        return split(prepare)
    with loopback() as middleware:
        return split(prepare, middleware)


def _print_split(size: dict[str, Any]) -> None:
    steps, totals = size['steps_ms'], size['total_ms']
    table = Table(title=f'outside the model, {size["size"]}, four regions: ms a frame, wanted '
                        f'at most {size["limit_ms"]:.0f} in all')
    table.add_column('step')
    for encoding in totals:
        table.add_column(encoding, justify='right')
    for step in next(iter(steps.values())):
        table.add_row(step, *(f'{steps[encoding][step]:.2f}' for encoding in totals),
                      end_section=step == list(next(iter(steps.values())))[-1])
    table.add_row("total, without the model's", *(f'{ms:.2f}' for ms in totals.values()))
    Console().print(table)
