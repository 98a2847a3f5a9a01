# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training samples, from the simulated tabletop or from a JSONL file.

Step number to batch is a pure function, so a resumed run sees what an unbroken one would.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from caption_ros.errors import CaptionRosError, OptionError, RegionError
from caption_ros.region import region_from_box, scale_labels
from caption_ros.scenes import FIRST_TRAINING_SEED, Frame, TabletopStream
from caption_ros.scenes.layout import MAX_OBJECTS
from caption_ros.scenes.vocabulary import COLOURS, SHAPES, SIZES, TABLES

# What the patch labels of one cell say: colour, shape, size and place from the left; 0 is the
# table in all four. The place teaches the encoder to count, so that no object is skipped.
PATCH_CLASSES: tuple[int, ...] = (len(COLOURS) + 1, len(SHAPES) + 1, len(SIZES) + 1,
                                  MAX_OBJECTS + 1)
_FAR_PX = 1e9  # no image is that large, and NaN and infinity are not below it
_MAX_FRAME = 100_000  # a stream's time is drawn from its first hour
# Scenes of one or two objects are soon learnt: most that are shown have more.
_CROWDED, _ATTEMPTS, _SEEDS_APART = 3, 3, 10**12
_PASS_GAP = 20  # steps until a frame comes again
# The model sees 240x192 pixels: most scenes can be drawn at half size, at a third of the cost.
_SIZES = ((320, 240), (320, 240), (320, 240), (640, 480))


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture, what to look at, and what to say.

    Attributes:
        rgb: Image, shape (H, W, 3), uint8.
        mask: Region to describe, shape (H, W), bool, or None for the whole image.
        caption: Reference text.
        cells: Patch labels, shape (rows, cols, 4), int64, see PATCH_CLASSES; None without.
    """

    rgb: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    caption: str
    cells: npt.NDArray[np.int64] | None = None


class Samples(Protocol):
    """A source of batches."""

    def batch(self, step: int) -> list[Sample]:
        """Return the batch of a training step, the same each time."""

    def held_out(self) -> Iterable[Sample]:
        """Return samples that no batch contains."""

    def identity(self) -> dict[str, object]:
        """Return what makes its batches others, by name, as plain values."""


def cell_labels(frame: Frame, rows: int, cols: int) -> npt.NDArray[np.int64]:
    """Label a grid of cells with what the object at their centre is and where it stands.

    Returns:
        Class indices, shape (rows, cols, 4), int64, see PATCH_CLASSES.
    """
    height, width = frame.exact_labels.shape
    y = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = ((np.arange(cols) + 0.5) * width / cols).astype(int)
    table = np.zeros((len(frame.layout.objects) + 1, len(PATCH_CLASSES)), np.int64)
    for i, item in enumerate(frame.layout.objects):
        table[i + 1] = (list(COLOURS).index(item.colour) + 1, SHAPES.index(item.shape) + 1,
                        list(SIZES).index(item.size) + 1, i + 1)
    return np.asarray(table[frame.exact_labels[np.ix_(y, x)]])


class TabletopSamples:
    """Simulated scenes: the sentence of every frame, and the phrases of some of its objects.

    Args:
        frames: Frames in a batch, a multiple of ``passes``.
        phrases: Object phrases in a batch, spread over its frames.
        grid: Rows and columns of the patch labels; None without.
        seed: Moves the run to other scenes, 0 or greater.
        passes: Batches that a frame appears in. Drawing costs as much as training on what is
            drawn, and a second look at a frame teaches nearly what a new frame would.
    """

    def __init__(self, frames: int, phrases: int, grid: tuple[int, int] | None,
                 seed: int = 0, passes: int = 1) -> None:
        self.phrases = phrases
        self.grid = grid
        self.seed = seed
        self._fresh = max(1, frames // passes)
        self._passes = passes
        self._frame = lru_cache(self._fresh * (_PASS_GAP * (passes - 1) + 1))(self._draw)

    def _draw(self, scene_seed: int) -> tuple[Frame, npt.NDArray[np.int64] | None]:
        rng = np.random.default_rng([self.seed, scene_seed])
        size = _SIZES[rng.integers(len(_SIZES))]
        for attempt in range(_ATTEMPTS):
            stream = TabletopStream(scene_seed + attempt * _SEEDS_APART, *size)
            if len(stream.layout.objects) >= _CROWDED:
                break
        frame = stream.frame(int(rng.integers(_MAX_FRAME)))
        return frame, None if self.grid is None else cell_labels(frame, *self.grid)

    def _samples(self, scene_seeds: list[int], rng: np.random.Generator) -> list[Sample]:
        out = []
        for i, scene_seed in enumerate(scene_seeds):
            frame, cells = self._frame(scene_seed)
            out.append(Sample(frame.rgb, None, frame.scene_caption, cells))
            count = len(range(i, self.phrases, len(scene_seeds)))
            for label in rng.permutation(list(frame.region_captions))[:count]:
                out.append(Sample(frame.rgb, frame.labels == label,
                                  frame.region_captions[int(label)], cells))
        return out

    def batch(self, step: int) -> list[Sample]:
        """Return the batch of a step; its fresh frames come again in ``passes - 1`` later ones."""
        first = FIRST_TRAINING_SEED + self.seed * 1_000_000_000
        steps = [step + _PASS_GAP * past for past in reversed(range(self._passes))]
        seeds = [first + source * self._fresh + i for source in steps for i in range(self._fresh)]
        return self._samples(seeds, np.random.default_rng([self.seed, step]))

    def held_out(self) -> list[Sample]:
        """Return sentence and one phrase of 64 evaluation scenes."""
        seeds = list(range(50_000, 50_064))
        return TabletopSamples(64, 64, self.grid)._samples(seeds, np.random.default_rng(0))

    def identity(self) -> dict[str, object]:
        """Return what makes its batches others."""
        return {'data': 'tabletop', 'frames and phrases of a batch':
                f'{self._fresh * self._passes} and {self.phrases}'}


def tabletop_captions() -> list[str]:
    """Return texts that hold every word the tabletop's captions use."""
    words = [*SIZES, *COLOURS, *SHAPES]
    return [f'a {word}, a {word} and a {word} on {table}'
            for word in words for table in TABLES.values()]


class JsonlSamples:
    """Samples of a user's file: a JSON object a line with image, caption and mask or box.

    ``image`` and ``mask`` are paths relative to the file; ``box`` is [x0, y0, x1, y1] in
    pixels; neither means the whole image. A mask of another size is scaled, nearest. Every
    twentieth line, the first among them, is held out.

    Raises:
        OptionError: If a line is not of that form, names files that are not there, or the file
            has fewer than two.
    """

    def __init__(self, path: Path, batch_size: int, seed: int = 0) -> None:
        try:
            # Not splitlines: JSON's strings may hold U+2028 and others that it would cut at.
            lines = path.read_text('utf-8-sig').split('\n')
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f'{path} cannot be read ({error}); wanted a file of JSON lines in '
                              'UTF-8') from error
        self._path = path
        rows = [self._row(path, number, line) for number, line in enumerate(lines, 1)
                if line.strip()]
        if len(rows) < 2:
            raise OptionError(f'{path} holds {len(rows)} sample(s), wanted 2 or more')
        self._held_out = rows[::20]
        self._rows = [row for i, row in enumerate(rows) if i % 20]
        self._batch_size = batch_size
        self._seed = seed

    @staticmethod
    def _row(path: Path, number: int, line: str) -> dict[str, Any]:
        where = f'{path}, line {number}'
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise OptionError(
                f'{where}: not JSON ({error}); write one object a line') from None
        if not isinstance(row, dict) or not isinstance(row.get('image'), str) \
                or not isinstance(row.get('caption'), str) or not row['caption'].strip():
            raise OptionError(
                f'{where}: wanted an object with "image" and a non-empty "caption", '
                f'got {line[:80]}')
        if any('\ud800' <= letter <= '\udfff' for letter in row['caption']):
            raise OptionError(f'{where}: the caption holds half a letter, a lone surrogate, in '
                              f'{line[:80]}; write it anew in UTF-8')
        unknown = set(row) - {'image', 'caption', 'mask', 'box'}
        if unknown or ('mask' in row and 'box' in row):
            raise OptionError(f'{where}: keys are image, caption and mask or box, '
                              f'got {", ".join(sorted(row))}')
        for kind in ('image', 'mask'):  # now, and not when it comes up after hours
            if kind in row and not _is_file(path.parent / str(row[kind])):
                raise OptionError(f'{where}: {kind} {str(row[kind])[:80]!r} is no file; paths are '
                                  'relative to the JSON lines')
        box = row.get('box', [0, 0, 1, 1])
        if not (isinstance(box, list) and len(box) == 4 and all(
                type(edge) in (int, float) and abs(edge) < _FAR_PX for edge in box)
                and round(box[0]) < round(box[2]) and round(box[1]) < round(box[3])):
            raise OptionError(f'{where}: wanted a box of four numbers, [x0, y0, x1, y1] with '
                              f'x0 < x1 and y0 < y1, got {str(box)[:80]}')
        return row | {'line': number}

    def _sample(self, row: dict[str, Any]) -> Sample:
        try:
            rgb, mask = self._picture(row)
        except CaptionRosError as error:
            raise OptionError(f'{self._path}, line {row["line"]}: {error}') from error
        return Sample(rgb, mask, str(row['caption']).strip())

    def _picture(self, row: dict[str, Any]) -> tuple[npt.NDArray[np.uint8],
                                                     npt.NDArray[np.bool_] | None]:
        from caption_ros.picture import read_labels, read_picture
        folder = self._path.parent
        rgb = read_picture(folder / row['image'])
        size = (rgb.shape[0], rgb.shape[1])
        if 'box' in row:
            return rgb, region_from_box([round(edge) for edge in row['box']], size).full_mask()
        if 'mask' not in row:
            return rgb, None
        mask = scale_labels(read_labels(folder / row['mask']), size) != 0
        if not mask.any():
            raise RegionError(f'mask {row["mask"]!r} marks nothing; wanted a pixel other than 0')
        return rgb, mask

    def batch(self, step: int) -> list[Sample]:
        """Return the batch of a step; each epoch has an order of its own."""
        picked = []
        for position in range(step * self._batch_size, (step + 1) * self._batch_size):
            epoch, place = divmod(position, len(self._rows))
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
            picked.append(self._rows[order[place]])
        return [self._sample(row) for row in picked]

    def held_out(self) -> Iterator[Sample]:
        """Give the held-out samples, at most 256, one by one: photographs fill the memory."""
        return (self._sample(row) for row in self._held_out[:256])

    def captions(self) -> list[str]:
        """Return every caption of the file."""
        return [str(row['caption']) for row in self._rows + self._held_out]

    def identity(self) -> dict[str, object]:
        """Return what makes its batches others; a mended image, mask or box does not."""
        captions = json.dumps(self.captions()).encode()
        return {'data': f'{len(self._rows) + len(self._held_out)} captions '
                        f'{hashlib.sha256(captions).hexdigest()[:12]}',
                'batch size': self._batch_size}


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, such as the picture itself in base64
        return False


class StepDataset:
    """Steps as a map-style dataset, so that a loader's worker can prepare batches ahead.

    An item is a batch, or the error that its samples raised.
    """

    def __init__(self, samples: Samples, collate: Callable[[list[Sample]], object],
                 start: int, stop: int) -> None:
        self._samples = samples
        self._collate = collate
        self._start = start
        self._stop = stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> object:
        if index >= len(self):
            raise IndexError(index)
        try:
            return self._collate(self._samples.batch(self._start + index))
        except CaptionRosError as error:
            return error  # raised in a worker it would come with the worker's traceback in it
