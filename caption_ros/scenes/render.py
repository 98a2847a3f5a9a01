# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Layout and time to camera image and label image: a small software rasteriser.

Painter's algorithm over quads, objects far to near, each drawn at twice the resolution into a
patch of its own; shadows are the objects' silhouettes cast onto the table.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.scenes.layout import BASE_HEIGHT, BASE_WIDTH, Layout, TableObject, cross
from caption_ros.scenes.meshes import mesh
from caption_ros.scenes.textures import TILE_M, table_texture
from caption_ros.scenes.vocabulary import COLOURS, SIZES

Array = npt.NDArray[np.float64]
_TABLE_FAR_M = 0.52
_SHIFT = 3  # fractional bits of OpenCV's polygon corners
_SUPERSAMPLING = 2


def _world_quads(item: TableObject, time_s: float) -> Array:
    """Return an object's quads on the table, (faces, 4, 3), metres."""
    x, y, yaw = item.pose(time_s)
    scale = SIZES[item.size]
    quads = mesh(item.shape).quads * (scale * item.stretch[0], scale * item.stretch[0],
                                      scale * item.stretch[1])
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray(quads @ turn + (x, y, 0.0))


def _shade(quads: Array, item: TableObject, layout: Layout) -> npt.NDArray[np.float64]:
    """Return each face's RGB as seen by the camera, (faces, 3), 0 to 255."""
    centre = quads.mean(axis=1)
    normal = cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    view = np.asarray(layout.camera.position) - centre
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    inside = (normal * view).sum(axis=1) < 0  # the far wall of an open vessel
    normal[inside] *= -1
    light = np.asarray(layout.light)
    lambert = np.clip(normal @ light, 0, None)
    sky = 0.5 + 0.5 * normal[:, 2]
    level = layout.ambient * (0.65 + 0.35 * sky) + 0.62 * lambert
    level[inside] *= 0.72
    half = light + view
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = np.clip((normal * half).sum(axis=1), 0, 1) ** 40 * 150 * mesh(item.shape).gloss
    paint = np.asarray(COLOURS[item.colour], float) + item.tone
    tints = mesh(item.shape).tints
    albedo = np.where(np.isnan(tints)[:, None], paint, np.nan_to_num(tints)[:, None])
    return np.clip(albedo * level[:, None] + shine[:, None], 0, 255)


def _fill(canvas: npt.NDArray[np.uint8], corners: Array, colour: tuple[float, ...]) -> None:
    points = np.round(corners * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(canvas, points, colour, cv2.LINE_8, _SHIFT)


def _draw_object(
    picture: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], label: int, quads: Array,
    item: TableObject, layout: Layout,
) -> None:
    height, width = labels.shape
    pixels, depth = layout.camera.project(quads, width, height)
    low = np.clip(np.floor(pixels.min(axis=(0, 1))).astype(int) - 1, 0, (width, height))
    high = np.clip(np.ceil(pixels.max(axis=(0, 1))).astype(int) + 2, 0, (width, height))
    wide, tall = (high - low).tolist()
    if wide <= 0 or tall <= 0:
        return
    # RGB and coverage in one canvas, so that both shrink alike.
    canvas = np.zeros((tall * _SUPERSAMPLING, wide * _SUPERSAMPLING, 4), np.uint8)
    corners = np.round((pixels - low) * _SUPERSAMPLING * (1 << _SHIFT)).astype(np.int32)
    shades = _shade(quads, item, layout)
    for face in np.argsort(-depth.mean(axis=1)):
        colour = (*shades[face].tolist(), 255.0)
        cv2.fillConvexPoly(canvas, corners[face], colour, cv2.LINE_8, _SHIFT)
    patch = cv2.resize(canvas, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
    window = np.s_[low[1]:high[1], low[0]:high[0]]
    cover = patch[..., 3:] / 255
    picture[window] = picture[window] * (1 - cover) + patch[..., :3]
    labels[window][patch[..., 3] > 127] = label


def _shadow(layout: Layout, all_quads: list[Array], width: int, height: int,
            ) -> npt.NDArray[np.float32]:
    """Return the light that reaches the table, (height, width) float32, 0 to 1."""
    small = (max(width // 2, 1), max(height // 2, 1))
    cast = np.full(small[::-1], 255, np.uint8)
    contact = np.full(small[::-1], 255, np.uint8)
    light = np.asarray(layout.light)
    for quads, item in zip(all_quads, layout.objects):
        points = quads.reshape(-1, 3)
        ground = points - light * (points[:, 2:] / light[2])
        pixels, _ = layout.camera.project(ground, *small)
        _fill(cast, cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(float), (128,))
        middle = points[:, :2].mean(axis=0)
        foot = points[points[:, 2] < item.height_m * 0.2][:, :2]
        rim = np.column_stack([middle + (foot - middle) * 1.12, np.zeros(len(foot))])
        pixels, _ = layout.camera.project(rim, *small)
        _fill(contact, cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(float), (96,))
    sigma = width / BASE_WIDTH * 2.2
    lit = cv2.GaussianBlur(cast, (0, 0), sigma).astype(np.float32) / 255
    lit *= cv2.GaussianBlur(contact, (0, 0), 1.6 * sigma).astype(np.float32) / 255
    return np.asarray(cv2.resize(lit, (width, height), interpolation=cv2.INTER_LINEAR))


def _background(layout: Layout, width: int, height: int) -> npt.NDArray[np.float32]:
    """Return table and wall without shadows, (height, width, 3) float32, 0 to 255."""
    texture = table_texture(layout.table, layout.table_variant)
    side = texture.shape[0]
    corners = np.array([(-0.5, -0.1), (0.5, -0.1), (0.5, 0.5), (-0.5, 0.5)])
    pixels, _ = layout.camera.project(np.column_stack([corners, np.zeros(4)]), width, height)
    c, s = np.cos(layout.table_turn_rad), np.sin(layout.table_turn_rad)
    turned = corners @ np.array([[c, s], [-s, c]]) / TILE_M + layout.table_shift
    homography = cv2.getPerspectiveTransform(
        (turned * side).astype(np.float32), pixels.astype(np.float32))
    table = cv2.warpPerspective(texture, homography, (width, height), flags=cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_WRAP)
    edge = np.array([(-3.0, _TABLE_FAR_M, 0.0), (3.0, _TABLE_FAR_M, 0.0)])
    line, _ = layout.camera.project(edge, width, height)
    wall_polygon = np.concatenate([line, [(width * 3.0, -9.0), (-width * 2.0, -9.0)]])
    shade = np.asarray(layout.wall) * (0.72 + 0.28 * layout.ambient)
    _fill(table, wall_polygon, tuple(shade.tolist()))
    drop = np.array([(0, 0), (0, 3.0 * height / BASE_HEIGHT)])
    _fill(table, np.concatenate([line, line[::-1] + drop[1]]), tuple((shade * 0.55).tolist()))
    return table.astype(np.float32)


_NOISE_SLACK_PX = 256


@lru_cache(maxsize=2)
def _noise_bank(width: int, height: int) -> npt.NDArray[np.float32]:
    """Return unit noise to cut windows from: drawing it anew costs more than the scene."""
    shape = (height + _NOISE_SLACK_PX, width + _NOISE_SLACK_PX, 3)
    return np.random.default_rng(11).standard_normal(shape, dtype=np.float32)


def _sensor(picture: npt.NDArray[np.float32], layout: Layout, rng: np.random.Generator,
            ) -> npt.NDArray[np.uint8]:
    """Apply exposure, white balance, blur and noise: RGB float32 to uint8."""
    height, width = picture.shape[:2]
    gains = np.asarray(layout.white_balance, np.float32) * np.float32(layout.exposure)
    picture = picture * gains
    if layout.blur_px > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), layout.blur_px * width / BASE_WIDTH)
    y, x = rng.integers(0, _NOISE_SLACK_PX, 2)
    noise = _noise_bank(width, height)[y:y + height, x:x + width]
    return cv2.convertScaleAbs(cv2.max(cv2.scaleAdd(noise, layout.noise, picture), 0.0))


def render(
    layout: Layout, time_s: float, width: int, height: int, rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Render a layout.

    Args:
        layout: What to show.
        time_s: Time since the scene began, seconds.
        width: Picture width, pixels.
        height: Picture height, pixels.
        rng: Source of the sensor noise.

    Returns:
        RGB image (height, width, 3) uint8, and exact label image (height, width) uint8 with
        0 for the background and i + 1 for ``layout.objects[i]``.
    """
    all_quads = [_world_quads(item, time_s) for item in layout.objects]
    picture = _background(layout, width, height)
    picture *= _shadow(layout, all_quads, width, height)[..., None]
    picture *= 0.6 + 0.45 * layout.ambient
    labels = np.zeros((height, width), np.uint8)
    far_first = sorted(range(len(layout.objects)),
                       key=lambda i: -layout.objects[i].pose(time_s)[1])
    for i in far_first:
        _draw_object(picture, labels, i + 1, all_quads[i], layout.objects[i], layout)
    return _sensor(picture, layout, rng), labels
