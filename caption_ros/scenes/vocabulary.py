# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the simulated tabletop is made of, and the sentences that describe it."""

from __future__ import annotations

from collections.abc import Sequence

# 8-bit RGB, far enough apart that a tinted light does not turn one into another.
COLOURS: dict[str, tuple[int, int, int]] = {
    'red': (196, 28, 34),
    'orange': (243, 124, 18),
    'yellow': (250, 214, 36),
    'green': (34, 142, 58),
    'blue': (32, 78, 196),
    'purple': (116, 44, 156),
    'pink': (246, 142, 184),
    'white': (238, 238, 236),
    'black': (34, 34, 37),
}
SHAPES: tuple[str, ...] = ('ball', 'box', 'mug', 'bottle', 'bowl', 'cone', 'can')
SIZES: dict[str, float] = {'small': 0.6, 'large': 1.0}  # scale of the mesh
TABLES: dict[str, str] = {
    'wood': 'a wooden table',
    'marble': 'a marble table',
    'cloth': 'a checkered tablecloth',
}


def object_phrase(size: str, colour: str, shape: str) -> str:
    """Return the reference caption of one object, such as ``a small red mug``."""
    return f'a {size} {colour} {shape}'


def scene_sentence(phrases: Sequence[str], table: str) -> str:
    """Return the reference caption of a whole scene.

    Args:
        phrases: Object phrases from left to right, at least one.
        table: Key of TABLES.
    """
    listed = phrases[0] if len(phrases) == 1 else f'{", ".join(phrases[:-1])} and {phrases[-1]}'
    return f'{listed} on {TABLES[table]}'
