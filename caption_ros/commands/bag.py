# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros bag``: caption a recording."""

from __future__ import annotations

from functools import partial
from pathlib import Path
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
    from caption_ros.bags.job import Summary

_MOST_SHOWN = 50


def bag(
    source: Path = typer.Argument(metavar='IN', readable=False, help='Recording: a rosbag2 '
                                  'folder, .mcap, .db3 or a ROS 1 .bag. It is only read.'),
    out: Path = typer.Argument(metavar='OUT', help='Captioned recording to be made: .mcap, .db3, '
                               'else a rosbag2 folder.'),
    topic: list[str] = typer.Option([], help='Image topic; may be repeated. All by default.'),
    mask: str = typer.Option(None, help='Mask topic; found by itself when there is one.'),
    every: float = typer.Option(0.0, metavar='SECONDS', help='Caption one frame in so many '
                                'seconds; 0 is every frame.'),
    on_change: bool = typer.Option(False, '--on-change', help='Caption only frames that differ '
                                   'from the one captioned last.'),
    start: float = typer.Option(0.0, metavar='SECONDS', help='Caption from this second of the '
                                'recording on.'),
    end: float = typer.Option(None, metavar='SECONDS', help='Caption up to this second.'),
    captions_only: bool = typer.Option(False, '--captions-only', help='Leave the messages of IN '
                                       'out of OUT.'),
    no_report: bool = typer.Option(False, '--no-report', help='Leave report.html out.'),
    batch: Batch = 8,
    resume: bool = typer.Option(False, '--resume', help='Go on with an unfinished run.'),
    force: bool = typer.Option(False, '--force', help='Overwrite results, start over.'),
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
    """Caption a recording: IN with captions added to OUT; subtitles and a page beside it."""
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise OptionError('recordings need the package rosbags, which is not installed; run '
                          '"pip install rosbags"') from error
    from caption_ros.bags.frames import Sampling
    from caption_ros.bags.job import BagOptions, caption_bag
    from caption_ros.captioner import CaptionOptions
    from caption_ros.commands.progress import progress_bar

    options = BagOptions(
        topics=tuple(topic), mask=mask, model=f'{model} {filter_model}'.strip(), device=device,
        dtype=dtype, force=force, resume=resume, captions_only=captions_only,
        report=not no_report, batch=batch,
        sampling=Sampling(every_s=every, on_change=on_change, start_s=start, end_s=end),
        captions=CaptionOptions(
            focus=focus, describe=describe, max_regions=max_regions, num_beams=num_beams,
            min_region_area_px=min_region_area_px, max_new_tokens=max_new_tokens, prompt=prompt,
            candidates=candidates, filter_threshold=filter_threshold))
    check_candidates(candidates, filter_model)

    load = partial(load_with_focus, model, device, dtype, filter_model, focus)
    summary = caption_bag(source, out, load, options, progress_bar)
    if summary is None:
        typer.echo(f'{out} is there and no run of it is unfinished: nothing to do (--force starts '
                   'over)')
        return
    _print(summary)
    if summary.out is None or summary.skipped_count:
        raise typer.Exit(1)


def _print(summary: Summary) -> None:
    from caption_ros.bags.files import printable
    for skipped in list(summary.skipped)[:_MOST_SHOWN]:
        where = [skipped.topic] if skipped.topic else []
        if skipped.received_ns is not None:
            where.append(f'received {_seconds(skipped.received_ns)}')
        if skipped.stamp_ns is not None:
            where.append(f'stamp {_seconds(skipped.stamp_ns)}')
        text = f'{", ".join(where)}: {skipped.reason}' if where else skipped.reason
        typer.echo(f'caption-ros: skipped: {printable(text)}', err=True)
    if summary.skipped_count > _MOST_SHOWN:
        more = summary.skipped_count - _MOST_SHOWN
        typer.echo(f'caption-ros: {more} more were skipped', err=True)
    masks = f' with masks of {summary.plan.mask}' if summary.plan.mask else ''
    left_out = ''.join(f', {count} {why}' for why, count in sorted(summary.counts.items())
                       if count and why not in ('captioned', 'skipped'))
    resumed = f' ({summary.resumed} by an earlier run)' if summary.resumed else ''
    text = (f'{summary.frames} frames of {", ".join(summary.plan.images)}{masks} '
            f'captioned{resumed}{left_out}, {summary.skipped_count} skipped')
    text = printable(text)
    if summary.out is None:
        typer.echo(f'caption-ros: {text}: nothing was captioned, so OUT was not made', err=True)
    else:
        typer.echo(f'{text}: {summary.out}')


def _seconds(time_ns: int) -> str:
    return f'{time_ns // 10 ** 9}.{time_ns % 10 ** 9:09d}'
