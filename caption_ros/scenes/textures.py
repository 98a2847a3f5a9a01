# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Table tops, made from noise once per process; each tile repeats without a seam."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

_TILE_PX = 1024
TILE_M = 0.9  # a tile's side on the table


def _smooth_noise(rng: np.random.Generator, rows: int, cols: int) -> npt.NDArray[np.float32]:
    """Return tileable noise, (tile, tile) float32, about -1 to 1, with rows x cols cells."""
    cells = rng.standard_normal((rows, cols)).astype(np.float32)
    wrapped = np.pad(cells, 2, mode='wrap')
    step_y, step_x = _TILE_PX // rows, _TILE_PX // cols
    big = cv2.resize(wrapped, ((cols + 4) * step_x, (rows + 4) * step_y),
                     interpolation=cv2.INTER_CUBIC)
    return np.asarray(big[2 * step_y:2 * step_y + _TILE_PX, 2 * step_x:2 * step_x + _TILE_PX])


def _wood(rng: np.random.Generator, variant: int) -> npt.NDArray[np.float32]:
    base = np.array([(171, 122, 76), (140, 94, 58), (196, 154, 108)][variant], np.float32)
    grain = 0.5 * _smooth_noise(rng, 64, 2) + 0.35 * _smooth_noise(rng, 256, 4)
    grain += 0.2 * _smooth_noise(rng, 512, 16)
    plank = np.repeat(rng.normal(0, 0.35, 8), _TILE_PX // 8).astype(np.float32)
    level = 1 + 0.085 * (grain + plank[:, None])
    level[np.arange(_TILE_PX) % (_TILE_PX // 8) < 3] *= 0.72
    return base * level[..., None]


def _marble(rng: np.random.Generator, variant: int) -> npt.NDArray[np.float32]:
    base = np.array([(206, 205, 202), (178, 182, 186), (198, 190, 178)][variant], np.float32)
    veins = _smooth_noise(rng, 4, 4) + 0.5 * _smooth_noise(rng, 16, 16)
    veins += 0.25 * _smooth_noise(rng, 64, 64)
    level = 1 - 0.28 * np.exp(-np.abs(veins) * 14) - 0.03 * _smooth_noise(rng, 8, 8)
    return np.asarray(base * level[..., None], np.float32)


def _cloth(rng: np.random.Generator, variant: int) -> npt.NDArray[np.float32]:
    dark = np.array([(150, 58, 58), (58, 86, 138), (62, 112, 80)][variant], np.float32)
    light = np.array((224, 220, 210), np.float32)
    band = ((np.arange(_TILE_PX) // 32) % 2).astype(np.float32)
    share = (band[:, None] + band[None]) / 2
    weave = 1 + 0.035 * rng.standard_normal((_TILE_PX, _TILE_PX)).astype(np.float32)
    return (light + (dark - light) * share[..., None]) * weave[..., None]


_MAKERS = {'wood': _wood, 'marble': _marble, 'cloth': _cloth}


@cache
def table_texture(table: str, variant: int) -> npt.NDArray[np.uint8]:
    """Return a table's tile, shape (1024, 1024, 3) uint8 RGB, TILE_M metres a side."""
    rng = np.random.default_rng([7, variant, len(table)])
    tile = _MAKERS[table](rng, variant)
    return np.clip(tile, 0, 255).astype(np.uint8)
