# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Scene graph of a simulated tabletop: what stands where, how it is lit and filmed.

A layout follows from its seed alone. Objects keep their order from left to right while they
move, so that the scene sentence has exactly one right form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from caption_ros.scenes.meshes import mesh
from caption_ros.scenes.vocabulary import (
    COLOURS,
    SHAPES,
    SIZES,
    TABLES,
    object_phrase,
    scene_sentence,
)

BASE_WIDTH, BASE_HEIGHT = 640, 480  # pixels; other sizes show the same view
MAX_OBJECTS = 5
_MARGIN_PX = 6.0
_MIN_ORDER_GAP_PX = 58.0
_MAX_OCCLUSION = 0.38
_MAX_TRAVEL_M = 0.012


def cross(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the cross product along the last axis; numpy's own costs ten times as much here."""
    return np.stack([a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
                     a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
                     a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]], axis=-1)


@dataclass(frozen=True)
class Camera:
    """Pinhole camera above the front edge of the table.

    Attributes:
        position: x, y, z in metres; x right, y away from the camera, z up.
        target: Point in the middle of the picture, metres.
        focal_px: Focal length for a picture 640 pixels wide.
        roll_rad: Turn about the optical axis.
    """

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    focal_px: float
    roll_rad: float

    @cached_property
    def rotation(self) -> npt.NDArray[np.float64]:
        """Return the world-to-optical rotation, (3, 3): x right, y down, z forward."""
        forward = np.subtract(self.target, self.position)
        forward = forward / np.linalg.norm(forward)
        right = cross(forward, np.array([0.0, 0.0, 1.0]))
        right /= np.linalg.norm(right)
        down = cross(forward, right)
        c, s = np.cos(self.roll_rad), np.sin(self.roll_rad)
        return np.stack([c * right + s * down, c * down - s * right, forward])

    def project(
        self, points: npt.NDArray[np.float64], width: int = BASE_WIDTH, height: int = BASE_HEIGHT,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Project world points (..., 3), metres, to pixels (..., 2) and depth (...), metres."""
        optical = (points - np.asarray(self.position)) @ self.rotation.T
        depth = optical[..., 2]
        scale = np.array([width / BASE_WIDTH, height / BASE_HEIGHT])
        pixels = self.focal_px * optical[..., :2] / depth[..., None]
        return (pixels + (BASE_WIDTH / 2, BASE_HEIGHT / 2)) * scale, depth


@dataclass(frozen=True)
class TableObject:
    """One object: what it is, where it stands and how it moves."""

    shape: str
    colour: str
    size: str
    home: tuple[float, float]  # x, y on the table, metres
    yaw_rad: float
    stretch: tuple[float, float]  # radial and vertical factor, near 1
    tone: tuple[float, float, float]  # RGB offset of this very object's paint, 8-bit levels
    travel_m: tuple[float, float]
    period_s: float
    phase_rad: float

    @property
    def phrase(self) -> str:
        """Reference caption of the object."""
        return object_phrase(self.size, self.colour, self.shape)

    @property
    def radius_m(self) -> float:
        """Radius of the footprint."""
        return mesh(self.shape).radius * SIZES[self.size] * self.stretch[0]

    @property
    def height_m(self) -> float:
        """Height above the table."""
        return mesh(self.shape).height * SIZES[self.size] * self.stretch[1]

    def pose(self, time_s: float) -> tuple[float, float, float]:
        """Return x, y in metres and yaw in radians at a time."""
        swing = 2 * np.pi * time_s / self.period_s + self.phase_rad
        return (self.home[0] + self.travel_m[0] * float(np.sin(swing)),
                self.home[1] + self.travel_m[1] * float(np.cos(swing)),
                self.yaw_rad + 0.15 * float(np.sin(swing)))


@dataclass(frozen=True)
class Layout:
    """A whole scene: camera, light, table and objects from left to right."""

    seed: int
    camera: Camera
    table: str
    table_variant: int
    table_turn_rad: float
    table_shift: tuple[float, float]
    wall: tuple[float, float, float]
    light: tuple[float, float, float]  # unit vector towards the light
    ambient: float
    exposure: float
    white_balance: tuple[float, float, float]
    blur_px: float
    noise: float  # standard deviation in 8-bit levels at mid grey
    objects: tuple[TableObject, ...]

    @property
    def sentence(self) -> str:
        """Reference caption of the scene."""
        return scene_sentence([item.phrase for item in self.objects], self.table)


def _bounds_px(camera: Camera, item: TableObject) -> tuple[float, float, float, float]:
    """Return the projected bounding box of an object at home, without the view's clipping."""
    reach = item.radius_m
    if item.shape in ('box', 'mug', 'cone'):  # far corners and handles are not all around
        reach *= 0.88
    x, y = item.home
    angle = np.linspace(0.0, 2 * np.pi, 13)[:-1]
    ring = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=-1)
    points = np.concatenate([
        np.column_stack([ring, np.zeros(len(ring))]),
        np.column_stack([ring, np.full(len(ring), item.height_m)]),
    ])
    pixels, _ = camera.project(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _occlusion(box: tuple[float, ...], others: list[tuple[float, ...]]) -> float:
    """Return the share of a box that lies under others, counted twice where they overlap."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    hidden = 0.0
    for other in others:
        wide = min(box[2], other[2]) - max(box[0], other[0])
        high = min(box[3], other[3]) - max(box[1], other[1])
        hidden += max(wide, 0.0) * max(high, 0.0)
    return hidden / area


def _sample_object(rng: np.random.Generator) -> TableObject:
    shape = SHAPES[rng.integers(len(SHAPES))]
    # A mug is told from a can by its handle, so the handle stays on one side, in sight.
    yaw = rng.uniform(-0.75, 0.45) if shape == 'mug' else rng.uniform(-np.pi, np.pi)
    if shape == 'mug' and rng.random() < 0.5:
        yaw = np.pi - yaw
    return TableObject(
        shape=shape,
        colour=list(COLOURS)[rng.integers(len(COLOURS))],
        size=list(SIZES)[rng.integers(len(SIZES))],
        home=(float(rng.uniform(-0.32, 0.32)), float(rng.uniform(-0.02, 0.30))),
        yaw_rad=float(yaw),
        stretch=(float(rng.uniform(0.95, 1.05)), float(rng.uniform(0.95, 1.05))),
        tone=tuple(float(v) for v in rng.uniform(-10, 10, 3)),  # type: ignore[arg-type]
        travel_m=(float(rng.uniform(0.003, _MAX_TRAVEL_M)),
                  float(rng.uniform(0.003, _MAX_TRAVEL_M))),
        period_s=float(rng.uniform(2.5, 6.0)),
        phase_rad=float(rng.uniform(0, 2 * np.pi)),
    )


def _fits(camera: Camera, item: TableObject, placed: list[TableObject]) -> bool:
    box = _bounds_px(camera, item)
    sway = _MAX_TRAVEL_M * 1100  # pixels of travel at the table's front
    if (box[0] < _MARGIN_PX + sway or box[2] > BASE_WIDTH - _MARGIN_PX - sway
            or box[1] < _MARGIN_PX + sway or box[3] > BASE_HEIGHT - _MARGIN_PX - sway):
        return False
    near_first = sorted([*placed, item], key=lambda other: other.home[1])
    boxes = [_bounds_px(camera, other) for other in near_first]
    centres = sorted((box[0] + box[2]) / 2 for box in boxes)
    if any(b - a < _MIN_ORDER_GAP_PX for a, b in zip(centres, centres[1:])):
        return False
    for other in placed:
        gap = np.hypot(item.home[0] - other.home[0], item.home[1] - other.home[1])
        if gap < item.radius_m + other.radius_m + 2 * _MAX_TRAVEL_M:
            return False
        if other.phrase == item.phrase:
            return False
    return all(_occlusion(box, list(boxes[:i])) <= _MAX_OCCLUSION for i, box in enumerate(boxes))


def _place(rng: np.random.Generator, camera: Camera, count: int) -> list[TableObject]:
    while True:
        placed: list[TableObject] = []
        for _ in range(60 * count):
            item = _sample_object(rng)
            if _fits(camera, item, placed):
                placed.append(item)
                if len(placed) == count:
                    return placed


def sample_layout(seed: int) -> Layout:
    """Draw a layout with 1 to 5 objects from a seed, 0 or greater."""
    rng = np.random.default_rng([seed, 0])
    camera = Camera(
        position=(float(rng.uniform(-0.03, 0.03)), -0.75, float(rng.uniform(0.51, 0.6))),
        target=(float(rng.uniform(-0.015, 0.015)), float(rng.uniform(0.15, 0.18)),
                float(rng.uniform(0.03, 0.05))),
        focal_px=float(rng.uniform(930, 990)),
        roll_rad=float(rng.uniform(-0.02, 0.02)),
    )
    objects = _place(rng, camera, int(rng.integers(1, MAX_OBJECTS + 1)))
    objects.sort(key=lambda item: sum(_bounds_px(camera, item)[::2]))
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.25)
    light = (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth),
             np.sin(elevation))
    warm = rng.uniform(-0.07, 0.07)
    return Layout(
        seed=seed, camera=camera,
        table=list(TABLES)[rng.integers(len(TABLES))],
        table_variant=int(rng.integers(3)),
        table_turn_rad=float(rng.normal(0.0, 0.12)),
        table_shift=(float(rng.random()), float(rng.random())),
        wall=tuple(float(v) for v in rng.uniform(120, 225) + rng.uniform(-22, 22, 3)),  # type: ignore[arg-type]
        light=tuple(float(v) for v in light),  # type: ignore[arg-type]
        ambient=float(rng.uniform(0.5, 0.68)),
        exposure=float(rng.uniform(0.86, 1.1)),
        white_balance=(1 + float(warm), 1 + float(rng.uniform(-0.02, 0.02)), 1 - float(warm)),
        blur_px=float(rng.uniform(0.0, 0.9)),
        noise=float(rng.uniform(1.0, 5.0)),
        objects=tuple(objects),
    )
