# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The index of captions: one row a caption, as Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caption_ros.bags.files import one_line
from caption_ros.bags.places import sync
from caption_ros.errors import RecordingError

INDEX, PART = 'index.parquet', 'captions.parquet'
_ROWS = 100_000  # of a row group, and of a step
_TIME = pa.timestamp('ns', tz='UTC')
SCHEMA = pa.schema([
    ('bag', pa.string()),           # path or URL of the recording
    ('topic', pa.string()),         # image topic
    ('stamp', _TIME),               # of the image; 1970 where the camera gave none
    ('received', _TIME),            # when the image was recorded
    ('frame_id', pa.string()),
    ('model', pa.string()),
    ('text', pa.string()),
    ('score', pa.float32()),        # 0 to 1, comparable within one model
    ('match', pa.float32()),        # by a filter, 0 to 1; null without
    ('focus', pa.string()),
    ('label', pa.int64()),          # of the region; null for the whole scene and boxes
    ('x0', pa.int32()),             # box of the region in pixels, end exclusive; null for the
    ('y0', pa.int32()),             # whole scene
    ('x1', pa.int32()),
    ('y1', pa.int32()),
    ('area_px', pa.int64()),
])


def write_part(jsonl: Path, bag: str, path: Path) -> int:
    """Write the captions of one recording; the file appears whole or not at all.

    Args:
        jsonl: Its captions, one JSON object a frame; none where it does not exist.
        bag: What the recording is called.
        path: The file to make.

    Returns:
        How many captions it holds.
    """
    unfinished = path.with_name(f'.{path.name}.unfinished')
    count = 0
    with pq.ParquetWriter(unfinished, SCHEMA, compression='zstd') as writer:
        rows: list[dict[str, Any]] = []
        with jsonl.open(encoding='utf-8') as lines:
            for line in lines:
                rows += _rows(json.loads(line), bag)
                if len(rows) >= _ROWS:
                    count += _flush(writer, rows)
        count += _flush(writer, rows)
    sync(unfinished)
    unfinished.replace(path)
    return count


def merge_parts(parts: Iterable[Any], out: Any) -> int:
    """Write an index of all parts, in their order; memory stays flat.

    Args:
        parts: Open binary files.
        out: Open binary file to write.

    Returns:
        How many captions it holds.
    """
    count, waiting, waiting_rows = 0, [], 0
    with pq.ParquetWriter(out, SCHEMA, compression='zstd') as writer:
        for part in parts:
            for batch in open_parquet(part).iter_batches(_ROWS, use_threads=False):
                waiting.append(batch)
                waiting_rows += batch.num_rows
                if waiting_rows >= _ROWS:
                    writer.write_table(pa.Table.from_batches(waiting, SCHEMA))
                    count, waiting, waiting_rows = count + waiting_rows, [], 0
        writer.write_table(pa.Table.from_batches(waiting, SCHEMA))
    return count + waiting_rows


def open_parquet(file: Any) -> pq.ParquetFile:
    """Open a Parquet file that Python reads; pass use_threads=False to what reads from it.

    A thread of Arrow that lets go of Python's file while the interpreter ends kills the process.
    """
    return pq.ParquetFile(file, pre_buffer=False)


@contextmanager
def open_index(place: str) -> Iterator[pq.ParquetFile]:
    """Open an index: a Parquet file, or a folder with index.parquet; a path or a URL.

    Raises:
        RecordingError: If there is none or it is no index.
    """
    from caption_ros.fleet.storage import open_place, shown
    system, path = open_place(place)
    if system.isdir(path):
        path = f'{path.rstrip("/")}/{INDEX}'
    try:
        with system.open(path, 'rb') as file:
            index = open_parquet(file)
            missing = [name for name in SCHEMA.names if name not in index.schema_arrow.names]
            if missing:
                raise RecordingError(f'{shown(place)} is no index of captions: it has no column '
                                     f'{missing[0]!r}; make one with caption-ros bags')
            yield index
    except FileNotFoundError as error:
        raise RecordingError(f'{shown(path)} does not exist; make an index with caption-ros bags '
                             'or name one with --index') from error
    except pa.ArrowInvalid as error:
        raise RecordingError(f'{shown(place)} is no index of captions: {one_line(error)}; make '
                             'one with caption-ros bags') from error


def _rows(record: dict[str, Any], bag: str) -> Iterator[dict[str, Any]]:
    stamp = record['stamp']
    for caption in record['captions']:
        region = caption['region'] or {}
        x0, y0, x1, y1 = region.get('box') or (None,) * 4
        yield {
            'bag': bag, 'topic': record['topic'],
            'stamp': stamp['sec'] * 10 ** 9 + stamp['nanosec'],
            'received': record['received_ns'], 'frame_id': record['frame_id'],
            'model': record['model'], 'text': caption['text'], 'score': caption['score'],
            'match': caption.get('match'), 'focus': caption['focus'],
            'label': region.get('label'), 'x0': x0, 'y0': y0, 'x1': x1, 'y1': y1,
            'area_px': region.get('area_px'),
        }


def _flush(writer: pq.ParquetWriter, rows: list[dict[str, Any]]) -> int:
    count = len(rows)
    writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    rows.clear()
    return count
