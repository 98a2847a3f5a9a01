# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros search``: find captions in the index of a fleet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from caption_ros.commands.bags import check_packages

if TYPE_CHECKING:
    from caption_ros.fleet.search import Passage

_SECOND_NS = 10 ** 9


def search(
    query: str = typer.Argument(metavar='WORDS', help='What to look for, such as "red mug".'),
    index: str = typer.Option('index.parquet', help='Index, or folder with index.parquet; a path '
                              'or a URL.'),
    top: int = typer.Option(20, min=1, max=1_000_000, help='Passages to show at most.'),
    gap: float = typer.Option(5.0, metavar='SECONDS', help='Hits of one topic no further apart '
                              'are one passage; 0 joins only those of one image, -1 shows each.'),
    as_json: bool = typer.Option(False, '--json', help='One JSON object a line.'),
) -> None:
    """Find captions that have all WORDS. Exit 0 when there are some, 1 when there are none."""
    check_packages('pyarrow', 'fsspec')
    from caption_ros.fleet.index import open_index
    from caption_ros.fleet.search import search_index

    with open_index(index) as opened:
        passages, captions = search_index(opened, query, top, gap)
    for passage in passages:
        typer.echo(json.dumps(_record(passage), ensure_ascii=False) if as_json else
                   _line(passage))
    if not passages:
        typer.echo(f'caption-ros: no caption has all words of {query!r}', err=True)
        raise typer.Exit(1)
    if not as_json:
        shown = sum(passage.captions for passage in passages)
        typer.echo(f'{captions} captions fit, {shown} of them in the {len(passages)} passages '
                   'shown', err=True)


def _line(passage: Passage) -> str:
    best = passage.best
    until = ''
    if passage.captions > 1:
        length_s = (passage.end_ns - passage.begin_ns) / _SECOND_NS
        until = f' +{length_s:.1f}s {passage.captions}x'
    score = '-' if best['score'] is None else f'{best["score"]:.2f}'
    return (f'{best["bag"]} {best["topic"]} {_seconds(passage.begin_ns)}{until} {score} '
            f'{best["text"]}')


def _record(passage: Passage) -> dict[str, Any]:
    best = passage.best
    region = None if best['x0'] is None else {
        'label': best['label'], 'box': [best[edge] for edge in ('x0', 'y0', 'x1', 'y1')],
        'area_px': best['area_px']}
    return {
        'bag': best['bag'], 'topic': best['topic'], 'stamp': _stamp(best['stamp']),
        'received_ns': best['received'], 'text': best['text'], 'score': _rounded(best['score']),
        'match': _rounded(best['match']), 'focus': best['focus'], 'region': region,
        'begin': _stamp(passage.begin_ns), 'end': _stamp(passage.end_ns),
        'captions': passage.captions, 'relevance': _rounded(passage.relevance),
    }


def _stamp(time_ns: int) -> dict[str, int]:
    return {'sec': time_ns // _SECOND_NS, 'nanosec': time_ns % _SECOND_NS}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _seconds(time_ns: int) -> str:
    return f'{time_ns // _SECOND_NS}.{time_ns % _SECOND_NS:09d}'
