# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a frame costs outside the model, step by step: from its messages to those of its captions.

Preparing the picture for the encoder is the model's: a model decides how it looks at a region. It
is shown and does not count.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from caption_ros.caption import Caption
from caption_ros.mailbox import Mailbox
from caption_ros.message import image_from_msg, labels_from_msg, stamp_to_ns
from caption_ros.narration import Narrator
from caption_ros.pairing import Pairer
from caption_ros.record import caption_record, caption_text
from caption_ros.region import regions_from_labels
from caption_ros.scenes import scene_frame

LIMITS_MS = {(640, 480): 5.0, (1920, 1080): 15.0}  # of a total, by width and height
ENCODINGS = ('rgb8', 'bgr8', 'jpeg')
PREPROCESSING = "preprocessing (the model's)"
_SEED = 6  # of a tabletop with four objects
_JPEG_QUALITY = 95
_WARM_UP = 3
_STAMP = SimpleNamespace(sec=1, nanosec=0)


class Middleware(Protocol):
    """What receives and publishes messages."""

    def packed(self, message: Any) -> Any:
        """Return an image message as it comes over the wire."""

    def receive(self, packed: Any) -> Any:
        """Return what a subscription gets of it."""

    def publish(self, text: str, record: str, captions: list[Caption]) -> None:
        """Publish what is said of a frame."""


def split(prepare: Callable[[npt.NDArray[np.uint8]], object] | None = None,
          middleware: Middleware | None = None, frames: int = 30) -> list[dict[str, Any]]:
    """Time the steps for a frame with four regions, in each size and encoding.

    Args:
        prepare: Makes the model's input of an image (H, W, 3), uint8; None leaves that out.
        middleware: Receives and publishes; None leaves that out.
        frames: Frames of each encoding to time; the encodings take turns.

    Returns:
        For each size: ``size``, ``limit_ms`` of a total, ``steps_ms``, the median milliseconds
        by encoding and step, and ``total_ms``, by encoding the median of what a frame takes in
        all but the model's step.
    """
    return [_of_size(width, height, limit_ms, prepare, middleware, frames)
            for (width, height), limit_ms in LIMITS_MS.items()]


def _of_size(width: int, height: int, limit_ms: float,
             prepare: Callable[[npt.NDArray[np.uint8]], object] | None,
             middleware: Middleware | None, frames: int) -> dict[str, Any]:
    scene = scene_frame(_SEED, width, height)
    messages = dict(zip(ENCODINGS, (_raw(scene.rgb, 'rgb8'), _raw(scene.rgb[..., ::-1], 'bgr8'),
                                    _jpeg(scene.rgb))))
    mask = _raw(scene.labels, 'mono8')
    if middleware is not None:
        messages = {encoding: middleware.packed(image) for encoding, image in messages.items()}
        mask = middleware.packed(mask)
    narrator = Narrator()
    spent: dict[str, list[dict[str, float]]] = {encoding: [] for encoding in ENCODINGS}
    for _ in range(frames + _WARM_UP):
        for encoding, image in messages.items():
            spent[encoding].append(_once(image, mask, scene.region_captions, narrator, prepare,
                                         middleware))
    kept = {encoding: times[_WARM_UP:] for encoding, times in spent.items()}
    return {
        'size': f'{width}x{height}', 'limit_ms': limit_ms,
        'steps_ms': {encoding: {step: 1000 * statistics.median(each[step] for each in times)
                                for step in times[0]} for encoding, times in kept.items()},
        'total_ms': {encoding: 1000 * statistics.median(
            sum(each.values()) - each.get(PREPROCESSING, 0.0) for each in times)
            for encoding, times in kept.items()}}


def _once(image: Any, mask: Any, texts: dict[int, str], narrator: Narrator,
          prepare: Callable[[npt.NDArray[np.uint8]], object] | None,
          middleware: Middleware | None) -> dict[str, float]:
    """Do all that is done for a frame; return the seconds of each step."""
    spent: dict[str, float] = {}
    last_s = time.perf_counter()

    def done(step: str) -> None:
        nonlocal last_s
        now_s = time.perf_counter()
        spent[step], last_s = now_s - last_s, now_s

    if middleware is not None:
        image, mask = middleware.receive(image), middleware.receive(mask)
        done('receiving')
    pairer, mailbox = Pairer(0.02, 1.0), Mailbox[Any]()
    stamp_ns, now_s = stamp_to_ns(image.header.stamp), time.monotonic()
    pairer.add_image(stamp_ns, image, now_s, len(image.data))
    mailbox.put(pairer.add_mask(stamp_ns, mask, now_s, len(mask.data)))
    (pair,) = mailbox.take_all()
    done('pairing and mailbox')
    rgb = image_from_msg(pair.image)
    done('decoding')
    regions = regions_from_labels(labels_from_msg(pair.mask), min_area_px=64, max_regions=16)
    done('mask to regions')
    if prepare is not None:
        prepare(rgb)
        done(PREPROCESSING)
    # The model speaks here; what it says is made up, at no cost.
    captions = [Caption(texts[region.label or 0], 0.9, 'alpha', region) for region in regions]
    last_s = time.perf_counter()
    record = json.dumps(caption_record(
        captions, stamp_ns=pair.stamp_ns, frame_id=pair.image.header.frame_id, model='tabletop',
        latency_s=0.03, age_s=0.05), ensure_ascii=False)
    text = caption_text(captions)
    narrator.update(captions, now_s, masked=True)
    done('captions to text, JSON and narration')
    if middleware is not None:
        middleware.publish(text, record, captions)
        done('publishing')
    return spent


def _raw(pixels: npt.NDArray[np.uint8], encoding: str) -> SimpleNamespace:
    """Return pixels (H, W) or (H, W, 3) with the fields of a sensor_msgs/Image."""
    height, width = pixels.shape[:2]
    return SimpleNamespace(
        header=SimpleNamespace(stamp=_STAMP, frame_id='camera'), height=height, width=width,
        encoding=encoding, is_bigendian=0, step=pixels.size // height, data=pixels.tobytes())


def _jpeg(rgb: npt.NDArray[np.uint8]) -> SimpleNamespace:
    """Return an image (H, W, 3) with the fields of a sensor_msgs/CompressedImage."""
    _, jpeg = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return SimpleNamespace(header=SimpleNamespace(stamp=_STAMP, frame_id='camera'),
                           format='rgb8; jpeg compressed bgr8', data=jpeg.tobytes())
