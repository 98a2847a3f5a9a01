# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Meshes of the tabletop's objects: quads with a normal and a tint each.

Lengths are metres for a large object; z is up and 0 is the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

_SEGMENTS = 44


@dataclass(frozen=True, eq=False)
class Mesh:
    """Quads of one object at the origin.

    Attributes:
        quads: Corners, shape (faces, 4, 3), float64, metres, counter-clockwise from outside.
        tints: Grey level of a face that does not take the object's colour, shape (faces,),
            float64, 0 to 255; NaN where the face takes it.
        gloss: Strength of the highlight, 0 to 1.
    """

    quads: npt.NDArray[np.float64]
    tints: npt.NDArray[np.float64]
    gloss: float

    @property
    def radius(self) -> float:
        """Largest distance from the vertical axis, metres."""
        return float(np.hypot(self.quads[..., 0], self.quads[..., 1]).max())

    @property
    def height(self) -> float:
        """Height above the table, metres."""
        return float(self.quads[..., 2].max())


def _revolve(profile: Sequence[tuple[float, float]]) -> npt.NDArray[np.float64]:
    """Turn (radius, z) points, bottom first, about the vertical axis into quads."""
    points = np.asarray(profile)
    angle = np.linspace(0.0, 2 * np.pi, _SEGMENTS + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # (segments + 1, 2)
    grid = np.concatenate([  # (points, segments + 1, 3)
        points[:, None, :1] * ring[None],
        np.broadcast_to(points[:, None, 1:], (len(points), _SEGMENTS + 1, 1)),
    ], axis=-1)
    corners = (grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1])
    return np.stack(corners, axis=2).reshape(-1, 4, 3)


def _subdivide(profile: Sequence[tuple[float, float]], steps: int) -> list[tuple[float, float]]:
    """Insert points on the profile's straight parts so that painter's sorting holds."""
    out = [profile[0]]
    for (r0, z0), (r1, z1) in zip(profile, profile[1:]):
        out += [(r0 + (r1 - r0) * k / steps, z0 + (z1 - z0) * k / steps)
                for k in range(1, steps + 1)]
    return out


def _cuboid(half_x: float, half_y: float, z0: float, z1: float) -> npt.NDArray[np.float64]:
    x, y = half_x, half_y
    return np.array([
        [(-x, -y, z0), (x, -y, z0), (x, -y, z1), (-x, -y, z1)],
        [(x, -y, z0), (x, y, z0), (x, y, z1), (x, -y, z1)],
        [(x, y, z0), (-x, y, z0), (-x, y, z1), (x, y, z1)],
        [(-x, y, z0), (-x, -y, z0), (-x, -y, z1), (-x, y, z1)],
        [(-x, -y, z1), (x, -y, z1), (x, y, z1), (-x, y, z1)],
    ])


def _handle(reach: float, z: float, arc: float, tube: float) -> npt.NDArray[np.float64]:
    """Return half a torus in the x-z plane that starts and ends at x = reach."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 13)
    around = np.linspace(0.0, 2 * np.pi, 9)
    out = np.stack([np.cos(turn), np.zeros_like(turn), np.sin(turn)], axis=-1)  # (13, 3)
    centre = np.array([reach, 0.0, z]) + arc * out
    grid = (centre[:, None] + tube * np.cos(around)[None, :, None] * out[:, None]
            + tube * np.sin(around)[None, :, None] * np.array([0.0, 1.0, 0.0]))
    corners = (grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:])
    return np.stack(corners, axis=2).reshape(-1, 4, 3)


def _mesh(parts: Sequence[tuple[npt.NDArray[np.float64], float]], gloss: float) -> Mesh:
    quads = np.concatenate([part for part, _ in parts])
    tints = np.concatenate([np.full(len(part), tint) for part, tint in parts])
    return Mesh(quads, tints, gloss)


_OWN = float('nan')


def _ball() -> Mesh:
    radius = 0.058
    polar = np.linspace(-np.pi / 2, np.pi / 2, 27)
    profile = [(radius * float(np.cos(a)), radius * (1 + float(np.sin(a)))) for a in polar]
    return _mesh([(_revolve(profile), _OWN)], 0.55)


def _box() -> Mesh:
    return _mesh([(_cuboid(0.05, 0.05, 0.0, 0.092), _OWN)], 0.0)


def _mug() -> Mesh:
    wall = _subdivide([(0.0, 0.0), (0.043, 0.0), (0.044, 0.098)], 3)
    rim = [(0.044, 0.098), (0.041, 0.1), (0.038, 0.098)]
    return _mesh([(_revolve(wall), _OWN), (_revolve(rim), _OWN),
                  (_handle(0.043, 0.05, 0.031, 0.0075), _OWN)], 0.3)


def _bottle() -> Mesh:
    body = [(0.036, 0.0), (0.037, 0.05), (0.037, 0.105), (0.034, 0.122), (0.025, 0.138),
            (0.0155, 0.15), (0.0135, 0.16), (0.0135, 0.178)]
    cap = [(0.0165, 0.178), (0.0165, 0.2), (0.0, 0.2)]
    return _mesh([(_revolve(body), _OWN), (_revolve(cap), 92.0)], 0.45)


def _bowl() -> Mesh:
    polar = np.linspace(0.0, 1.0, 9)
    profile = [(0.03 + 0.05 * float(np.sin(a * np.pi / 2)),
                0.056 * float(1 - np.cos(a * np.pi / 2))) for a in polar]
    floor = [(0.0, 0.001), (0.03, 0.0)]
    rim = [(0.08, 0.056), (0.077, 0.0575), (0.074, 0.056)]
    return _mesh([(_revolve(floor), _OWN), (_revolve(profile), _OWN), (_revolve(rim), _OWN)], 0.3)


def _cone() -> Mesh:
    side = _subdivide([(0.05, 0.008), (0.004, 0.146), (0.0, 0.148)], 6)
    return _mesh([(_cuboid(0.06, 0.06, 0.0, 0.008), _OWN), (_revolve(side), _OWN)], 0.1)


def _can() -> Mesh:
    base = [(0.034, 0.0), (0.038, 0.006)]
    side = _subdivide([(0.038, 0.006), (0.038, 0.112)], 4)
    shoulder = [(0.038, 0.112), (0.033, 0.12)]
    lid = [(0.033, 0.12), (0.031, 0.117), (0.0, 0.117)]
    return _mesh([(_revolve(base), 176.0), (_revolve(side), _OWN), (_revolve(shoulder), 190.0),
                  (_revolve(lid), 205.0)], 0.35)


_MAKERS: dict[str, Callable[[], Mesh]] = {
    'ball': _ball, 'box': _box, 'mug': _mug, 'bottle': _bottle, 'bowl': _bowl, 'cone': _cone,
    'can': _can,
}


@cache
def mesh(shape: str) -> Mesh:
    """Return the mesh of a shape named in ``vocabulary.SHAPES``."""
    return _MAKERS[shape]()
