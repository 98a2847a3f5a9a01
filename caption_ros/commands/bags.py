# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bags``: caption many recordings on Ray."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import TYPE_CHECKING

import typer

from caption_ros.commands.options import (
    Batch,
    Candidates,
    Describe,
    Device,
    Dtype,
    FilterModel,
    FilterThreshold,
    Focus,
    MaxNewTokens,
    Model,
    NumBeams,
    Prompt,
    check_candidates,
    load_with_focus,
)
from caption_ros.errors import OptionError

if TYPE_CHECKING:
    from caption_ros.fleet.run import FleetSummary


def bags(
    source: str = typer.Argument(metavar='FOLDER|LIST', help='Folder with recordings, or a text '
                                 'file with one a line; paths, or URLs that fsspec or pyarrow '
                                 'opens.'),
    out: str = typer.Option(help='Folder for the results and index.parquet; a path or a URL.'),
    ray: str = typer.Option(None, metavar='ADDRESS', help='Ray cluster, such as auto or '
                            'HOST:6379; Ray on this machine by default.'),
    workers: int = typer.Option(None, help='Workers, each with a captioner; as many as there is '
                                'room for by default.'),
    gpus_per_worker: float = typer.Option(0.0, help='GPUs of a worker, such as 1 or 0.25.'),
    cpus_per_worker: int = typer.Option(1, help='CPU cores of a worker.'),
    pin: bool = typer.Option(False, '--pin', help='Bind each worker to cores of its own.'),
    retries: int = typer.Option(2, help='How often a recording that failed is tried again.'),
    force: bool = typer.Option(False, '--force', help='Overwrite results, start over.'),
    whole: bool = typer.Option(False, '--whole', help='Write whole recordings with captions '
                               'added, not captions alone.'),
    topic: list[str] = typer.Option([], help='Image topic; may be repeated. All by default.'),
    mask: str = typer.Option(None, help='Mask topic; found by itself when there is one.'),
    every: float = typer.Option(0.0, metavar='SECONDS', help='Caption one frame in so many '
                                'seconds; 0 is every frame.'),
    on_change: bool = typer.Option(False, '--on-change', help='Caption only frames that differ '
                                   'from the one captioned last.'),
    batch: Batch = 8,
    model: Model = 'tabletop',
    focus: Focus = 'auto',
    describe: Describe = 'auto',
    device: Device = 'auto',
    dtype: Dtype = 'auto',
    max_regions: int = typer.Option(16, help='Regions of a frame at most.'),
    min_region_area_px: int = typer.Option(64, help='Smaller regions are left out, in pixels.'),
    num_beams: NumBeams = 1,
    max_new_tokens: MaxNewTokens = 48,
    prompt: Prompt = '',
    filter_model: FilterModel = '',
    candidates: Candidates = 1,
    filter_threshold: FilterThreshold = 0.5,
) -> None:
    """Caption many recordings on Ray, and index the captions for ``caption-ros search``.

    Finished recordings are skipped when the same is run again.
    """
    check_packages('ray', 'pyarrow', 'fsspec', 'rosbags')
    if device in ('cuda', 'rocm') and not gpus_per_worker:
        raise OptionError(f'device {device} needs GPUs and Ray hides them from workers that have '
                          'none; give --gpus-per-worker')
    check_candidates(candidates, filter_model)
    from caption_ros.bags.frames import Sampling
    from caption_ros.bags.job import BagOptions
    from caption_ros.captioner import CaptionOptions
    from caption_ros.commands.progress import progress_bar
    from caption_ros.fleet.run import FleetOptions, caption_fleet

    options = BagOptions(
        topics=tuple(topic), mask=mask, model=f'{model} {filter_model}'.strip(), device=device,
        dtype=dtype, captions_only=not whole, report=False, batch=batch,
        sampling=Sampling(every_s=every, on_change=on_change),
        captions=CaptionOptions(
            focus=focus, describe=describe, max_regions=max_regions, num_beams=num_beams,
            min_region_area_px=min_region_area_px, max_new_tokens=max_new_tokens, prompt=prompt,
            candidates=candidates, filter_threshold=filter_threshold))
    fleet = FleetOptions(ray=ray, workers=workers, cpus_per_worker=cpus_per_worker,
                         gpus_per_worker=gpus_per_worker, pin=pin, retries=retries, force=force)
    load = partial(load_with_focus, model, device, dtype, filter_model, focus)
    summary = caption_fleet(source, out, load, options, fleet,
                            lambda text: typer.echo(f'caption-ros: {text}', err=True),
                            progress_bar)
    typer.echo(_text(summary))
    if summary.failed or any(outcome.skipped for outcome in summary.done.values()):
        raise typer.Exit(1)


def check_packages(*names: str) -> None:
    """Refuse to begin without the packages of the extra ``fleet``.

    Raises:
        OptionError: If one is missing.
    """
    # Looked for, not imported: Ray reads its environment when it is imported.
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(f'this needs {", ".join(missing)}, which is not installed; run '
                          '"pip install caption_ros[fleet]"')


def _text(summary: FleetSummary) -> str:
    done = summary.done.values()
    skipped = sum(outcome.skipped for outcome in done)
    parts = [f'{summary.found} recordings: {len(done)} captioned '
             f'({sum(outcome.frames for outcome in done)} frames)',
             f'{summary.finished_before} finished before', f'{len(summary.failed)} failed']
    if skipped:
        parts.append(f'{skipped} messages or files skipped')
    if summary.deaths:
        parts.append(f'{summary.deaths} workers died')
    return f'{", ".join(parts)}; {summary.indexed} captions in {summary.index}'
