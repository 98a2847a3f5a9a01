# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A page to look through captions in a browser: one file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.annotate import label_colour

MOST_FRAMES = 50_000  # with their texts
MOST_PICTURES = 5_000
_PICTURES_BYTES = 24 << 20  # of all pictures; a third more as text
_MOST_PICTURE_BYTES = 48 << 10
_WIDTHS = (960, 640, 480, 320, 240, 160, 96)
_QUALITY = 80


class Report:
    """Writes the page while frames come; all pictures together have at most about 24 MiB.

    Args:
        path: The page.
        title: What it is about.
        topics: Image topics.
        start_ns: Time of receipt that is 0:00, nanoseconds.
        end_ns: Last time of receipt, nanoseconds.
        frames: How many frames will come.
    """

    def __init__(self, path: Path, title: str, topics: Sequence[str], start_ns: int, end_ns: int,
                 frames: int) -> None:
        self._topics = list(topics)
        self._start_ns = start_ns
        self._row_step = math.ceil(frames / MOST_FRAMES)
        self._picture_step = math.ceil(frames / MOST_PICTURES)
        self._most_bytes = min(_MOST_PICTURE_BYTES,
                               _PICTURES_BYTES // max(min(frames, MOST_PICTURES), 1))
        self._width = _WIDTHS[0]
        self._count = 0
        self._file = path.open('w', encoding='utf-8')
        self._script = _text('report.js')
        self._file.write(_head(title, self._note(frames), self._script))
        self._file.write(f'{{"topics": {_json(self._topics)}, '
                         f'"duration_s": {max(end_ns - start_ns, 0) / 1e9:.3f}, "frames": [')

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self._file.write(f']}}\n</script>\n<script>{self._script}</script>\n</body>\n</html>\n')
        self._file.close()

    def wants_picture(self) -> bool:
        """Tell whether the next frame is shown with its picture."""
        return self._count % self._picture_step == 0

    def add(self, topic: str, received_ns: int, record: dict[str, Any],
            outlines: Sequence[Sequence[Sequence[int]] | None],
            rgb: npt.NDArray[np.uint8] | None) -> None:
        """Add a frame; times do not go back.

        Args:
            topic: Its image topic.
            received_ns: Its time of receipt, nanoseconds.
            record: JSON values of the ``captions`` topic.
            outlines: Polygons of each caption's region, None for the scene.
            rgb: The image, shape (H, W, 3), uint8, when ``wants_picture``.
        """
        number, self._count = self._count, self._count + 1
        if number % self._row_step and rgb is None:
            return
        stamp = record['stamp']
        row: dict[str, Any] = {
            'topic': self._topics.index(topic),
            'time_s': round((received_ns - self._start_ns) / 1e9, 3),
            'stamp': f'{stamp["sec"]}.{stamp["nanosec"]:09d}',
            'captions': [_caption(caption, polygons if rgb is not None else None, order)
                         for order, (caption, polygons) in enumerate(
                             zip(record['captions'], outlines), 1)],
        }
        if rgb is not None:
            row |= {'size': [rgb.shape[1], rgb.shape[0]], 'picture': self._picture(rgb)}
        self._file.write((',\n' if number else '\n') + _json(row))

    def _picture(self, rgb: npt.NDArray[np.uint8]) -> str:
        """Return a data URI of the picture, as wide as its share of the page allows."""
        for width in _WIDTHS:
            if width > self._width and width != _WIDTHS[-1]:
                continue
            height = max(round(rgb.shape[0] * width / rgb.shape[1]), 1)
            small = rgb if width >= rgb.shape[1] else cv2.resize(
                rgb, (width, height), interpolation=cv2.INTER_AREA)
            bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)  # a view the other way round takes longer
            data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
            if len(data) <= self._most_bytes:
                break
        self._width = width
        return 'data:image/jpeg;base64,' + base64.b64encode(data.data).decode()

    def _note(self, frames: int) -> str:
        notes = []
        if self._picture_step > 1:
            notes.append(f'One frame in {self._picture_step} has its picture here.')
        if self._row_step > 1:
            notes.append(f'One frame in {self._row_step} of {frames:,} is here; captions.jsonl '
                         'has all.')
        return ' '.join(notes)


def _caption(caption: dict[str, Any], polygons: Sequence[Sequence[int]] | None,
             order: int) -> dict[str, Any]:
    shown = {'text': caption['text'], 'score': caption['score']}
    if caption['region'] is not None:
        label = caption['region']['label']
        red, green, blue = label_colour(order if label is None else label)
        shown['colour'] = f'#{red:02x}{green:02x}{blue:02x}'
    return {**shown, 'outlines': polygons} if polygons else shown


def _head(title: str, note: str, script: str) -> str:
    style = _text('report.css')
    parts = {
        'title': html.escape(title), 'note': html.escape(note), 'style': style,
        'policy': "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
                  f"style-src '{_digest(style)}'; script-src '{_digest(script)}'",
    }
    return re.sub(r'\{(\w+)\}', lambda found: parts[found[1]], _text('report.html'))


def _text(name: str) -> str:
    return (files('caption_ros.bags') / 'page' / name).read_text('utf-8')


def _digest(text: str) -> str:
    return f'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'


def _json(values: Any) -> str:
    """Return JSON that ends no script element."""
    return json.dumps(values, ensure_ascii=False, separators=(',', ':')).replace('<', '\\u003c')
