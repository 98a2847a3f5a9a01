# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Full-text search in an index of captions.

A caption is a hit when it has all words of the query, in any order, in upper or lower case,
singular or plural. A camera sees the same thing for a while: hits of one topic that lie close
together are one passage, shown by its best caption.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caption_ros.errors import OptionError

_MOST_WORDS = 32
# RE2's \b knows ASCII only.
_BEFORE, _AFTER = r'(?:^|[^\pL\pN_])', r'(?:$|[^\pL\pN_])'
_WORD = r'[\pL\pN_]+'
_COLUMNS = ('text', 'score', 'bag', 'topic', 'stamp', 'received')
_SHOWN = ('bag', 'topic', 'stamp', 'received', 'text', 'score', 'match', 'focus', 'label', 'x0',
          'y0', 'x1', 'y1', 'area_px')


@dataclass(frozen=True)
class Passage:
    """Hits that belong together.

    Attributes:
        best: The best caption's row of the index, by column; times in nanoseconds.
        relevance: Of the best caption, 0 to 2; comparable within one search.
        begin_ns: Time of the first hit, nanoseconds.
        end_ns: Time of the last hit, nanoseconds.
        captions: How many hits it has.
    """

    best: dict[str, Any]
    relevance: float
    begin_ns: int
    end_ns: int
    captions: int


@dataclass(frozen=True, eq=False)
class _Hits:
    """Hits as arrays, each of shape (count,)."""

    row: npt.NDArray[np.int64]
    relevance: npt.NDArray[np.float32]
    place: npt.NDArray[np.int64]  # a number for each bag and topic
    time_ns: npt.NDArray[np.int64]


def search_index(index: pq.ParquetFile, query: str, top: int = 20, gap_s: float = 5.0,
                 ) -> tuple[list[Passage], int]:
    """Find the passages that fit a query best.

    A caption fits better with the words side by side in their order, with fewer other words,
    and with a higher score.

    Args:
        index: The index.
        query: Words.
        top: How many passages to return at most.
        gap_s: Hits of one topic no further apart than this are one passage; below 0 each hit is.

    Returns:
        The passages, best first, and how many captions fit in all.

    Raises:
        OptionError: If the query has no word or too many.
    """
    hits = _find(index, words_of(query))
    if not hits.row.size:
        return [], 0
    order = np.lexsort((hits.row, hits.time_ns, hits.place))
    place, time_ns, relevance = (hits.place[order], hits.time_ns[order], hits.relevance[order])
    is_new = np.ones(order.size, bool)
    is_new[1:] = (np.diff(place) != 0) | (np.diff(time_ns) > gap_s * 1e9)
    begins = np.flatnonzero(is_new)
    ends = np.append(begins[1:], order.size)
    highest = np.maximum.reduceat(relevance, begins)
    # The first among equals: earlier rows of the index go first.
    chosen = np.lexsort((np.minimum.reduceat(hits.row[order], begins), -highest))[:top]
    rows = []
    for one in chosen:
        inside = slice(begins[one], ends[one])
        rows.append(int(hits.row[order][inside][np.argmax(relevance[inside])]))
    table = _rows(index, rows)
    return [Passage(values, float(highest[one]), int(time_ns[begins[one]]),
                    int(time_ns[ends[one] - 1]), int(ends[one] - begins[one]))
            for one, values in zip(chosen, table)], int(hits.row.size)


def words_of(query: str) -> list[str]:
    """Return the words of a query.

    Raises:
        OptionError: If there is none, or more than 32.
    """
    words = re.findall(r'\w+', query.casefold())
    if not 1 <= len(words) <= _MOST_WORDS:
        raise OptionError(f'the query must have 1 to {_MOST_WORDS} words, got {query[:80]!r}')
    return words


def forms(word: str) -> list[str]:
    """Return a word with its likely singular and plural: mug, mugs; box, boxes; berry, berries."""
    stems = {word}
    if len(word) > 3 and word.endswith('ies'):
        stems.add(word[:-3] + 'y')
    if len(word) > 3 and re.search(r'(s|x|z|ch|sh|o)es$', word):
        stems.add(word[:-2])
    if len(word) > 2 and re.search(r'[^s]s$', word):
        stems.add(word[:-1])
    plurals = set()
    for stem in stems:
        if re.search(r'[^aeiou]y$', stem):
            plurals.add(stem[:-1] + 'ies')
        plurals.add(stem + ('es' if re.search(r'(s|x|z|ch|sh|o)$', stem) else 's'))
    return sorted(stems | plurals)


def _find(index: pq.ParquetFile, words: Sequence[str]) -> _Hits:
    patterns = [f'(?:{"|".join(forms(word))})' for word in words]
    places: dict[tuple[str, str], int] = {}
    found = []
    first_row = 0
    for batch in index.iter_batches(columns=list(_COLUMNS), use_threads=False):
        text = batch.column('text')
        keep = None
        for pattern in patterns:
            has = pc.match_substring_regex(text, f'{_BEFORE}{pattern}{_AFTER}', ignore_case=True)
            keep = has if keep is None else pc.and_(keep, has)
        rows = np.flatnonzero(np.asarray(keep.fill_null(False)))
        if rows.size:
            found.append(_hits(batch.take(pa.array(rows)), rows + first_row, patterns, places))
        first_row += batch.num_rows
    if not found:
        nothing = np.empty(0, np.int64)
        return _Hits(nothing, nothing.astype(np.float32), nothing, nothing)
    return _Hits(*(np.concatenate([getattr(one, name) for one in found])
                   for name in ('row', 'relevance', 'place', 'time_ns')))


def _hits(batch: pa.RecordBatch, rows: npt.NDArray[np.int64], patterns: Sequence[str],
          places: dict[tuple[str, str], int]) -> _Hits:
    text = batch.column('text')
    phrase = _BEFORE + r'[^\pL\pN_]+'.join(patterns) + _AFTER
    is_phrase = np.asarray(pc.match_substring_regex(text, phrase, ignore_case=True))
    count = np.asarray(pc.count_substring_regex(text, _WORD))
    score = np.nan_to_num(batch.column('score').to_numpy(zero_copy_only=False))
    share = np.minimum(len(patterns) / np.maximum(count, 1), 1.0)
    place = [places.setdefault(both, len(places)) for both in zip(
        batch.column('bag').to_pylist(), batch.column('topic').to_pylist())]
    stamp, received = (batch.column(name).cast(pa.int64()).to_numpy(zero_copy_only=False)
                       for name in ('stamp', 'received'))
    return _Hits(rows, (is_phrase + share * score).astype(np.float32),
                 np.array(place, np.int64), np.where(stamp > 0, stamp, received))


def _rows(index: pq.ParquetFile, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Read rows by their numbers; only the row groups that they lie in."""
    out: dict[int, dict[str, Any]] = {}
    first = 0
    for group in range(index.num_row_groups):
        count = index.metadata.row_group(group).num_rows
        inside = [row for row in rows if first <= row < first + count]
        if inside:
            table = index.read_row_group(group, columns=list(_SHOWN), use_threads=False).take(
                [row - first for row in inside])
            for name in ('stamp', 'received'):
                at = table.schema.get_field_index(name)
                table = table.set_column(at, name, table.column(name).cast(pa.int64()))
            out.update(zip(inside, table.to_pylist()))
        first += count
    return [out[row] for row in rows]
