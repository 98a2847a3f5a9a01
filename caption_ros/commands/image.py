# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros image``: caption picture files."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caption_ros.commands.options import (
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
from caption_ros.errors import CaptionError, ImageFormatError, OptionError, RegionError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from caption_ros.caption import Caption
    from caption_ros.captioner import Captioner, CaptionOptions
    from caption_ros.region import Region

_TABLETOP_NOTE = ('note: tabletop knows only its simulated tabletops; for photographs choose '
                  '--model vit-gpt2 or blip')


def _captions(path: Path, masks: Sequence[npt.NDArray[np.integer]],
              box: tuple[int, int, int, int] | None, captioner: Captioner,
              options: CaptionOptions) -> list[Caption]:
    from caption_ros.picture import read_picture
    from caption_ros.pipeline import caption_frame, caption_regions
    from caption_ros.region import region_from_box

    rgb = read_picture(path)
    if box is not None:
        region = region_from_box(box, (rgb.shape[0], rgb.shape[1]))
        targets: list[Region | None] = [None] if options.describe in ('scene', 'both') else []
        if options.describe != 'scene':
            targets.append(region)
        return caption_regions(rgb, targets, captioner, options)
    captions = caption_frame(rgb, masks[0] if masks else None, captioner, options)
    if options.describe != 'scene':
        for labels in masks[1:]:  # the scene is said once
            captions += [caption for caption in caption_frame(rgb, labels, captioner, options)
                         if caption.region is not None]
    return captions


def _line(caption: Caption) -> str:
    where = ''
    if caption.region is not None:
        label = '' if caption.region.label is None else f' {caption.region.label}'
        where = f'region{label} {list(caption.region.box)}: '
    match = '' if caption.match is None else f', match {caption.match:.2f}'
    text = f'(held back: {caption.text})' if caption.held_back else caption.text
    return f'{where}{text} ({caption.score:.2f}{match})'


def _held_back(captions: list[Caption]) -> dict[str, object]:
    held = [caption.to_dict() for caption in captions if caption.held_back]
    return {'held_back': held} if held else {}


def _tell_what_is_left_out(paths: Sequence[Path], masks: Sequence[npt.NDArray[np.integer]],
                           options: CaptionOptions) -> None:
    from caption_ros.region import count_regions

    for path, labels in zip(paths, masks):
        count = count_regions(labels, min_area_px=options.min_region_area_px)
        if options.describe != 'scene' and count > options.max_regions:
            typer.echo(f'note: {path} marks {count} regions, described are the largest '
                       f'{options.max_regions}; raise --max-regions', err=True)


def image(
    files: list[Path] = typer.Argument(help='Picture files.'),
    mask: list[Path] = typer.Option([], help='Mask or label image; may be repeated, each goes '
                                    'with every picture.'),
    box: tuple[int, int, int, int] = typer.Option(
        None, metavar='X0 Y0 X1 Y1', help='A region as a box in pixels, end exclusive.'),
    model: Model = 'tabletop',
    focus: Focus = 'auto',
    describe: Describe = 'auto',
    device: Device = 'auto',
    dtype: Dtype = 'auto',
    num_beams: NumBeams = 1,
    max_regions: int = typer.Option(16, help='Regions of a mask at most; the largest stay.'),
    max_new_tokens: MaxNewTokens = 48,
    prompt: Prompt = '',
    filter_model: FilterModel = '',
    candidates: Candidates = 1,
    filter_threshold: FilterThreshold = 0.5,
    json: bool = typer.Option(False, '--json', help='Print one JSON object a picture.'),
) -> None:
    """Caption pictures: the whole of them, or the regions of masks or a box."""
    from caption_ros.captioner import CaptionOptions
    from caption_ros.picture import read_labels

    if mask and box:
        raise OptionError('--mask and --box were both given; choose one')
    if describe in ('regions', 'both') and not mask and not box:
        raise OptionError(f'describe {describe!r} needs a region; give --mask or --box')
    options = CaptionOptions(focus=focus, describe=describe, num_beams=num_beams,
                             max_regions=max_regions, max_new_tokens=max_new_tokens,
                             prompt=prompt,
                             candidates=candidates, filter_threshold=filter_threshold)
    check_candidates(candidates, filter_model)
    labels = [read_labels(path) for path in mask]  # a broken mask shows before the model loads
    captioner = load_with_focus(model, device, dtype, filter_model, focus)
    failed = []
    is_counted = False
    is_noted = json or model != 'tabletop'
    for path in files:
        try:
            captions = _captions(path, labels, box, captioner, options)
        except (CaptionError, ImageFormatError, RegionError) as error:
            if len(files) == 1:
                raise
            failed.append(path)
            where = '' if str(path) in str(error) else f'{path}: '
            typer.echo(f'caption-ros: {where}{error}', err=True)
            continue
        if not is_counted:
            _tell_what_is_left_out(mask, labels, options)
            is_counted = True
        if not is_noted:  # beside captions only: an error stays one line
            typer.echo(_TABLETOP_NOTE, err=True)
            is_noted = True
        if json:
            typer.echo(json_module.dumps(
                {'file': str(path), 'model': captioner.name,
                 'captions': [caption.to_dict() for caption in captions if not caption.held_back],
                 **_held_back(captions)}, ensure_ascii=False))
        for caption in captions if not json else ():
            typer.echo(f'{path}: {_line(caption)}')
    if failed:
        typer.echo(f'caption-ros: {len(failed)} of {len(files)} pictures failed', err=True)
        raise typer.Exit(1)
