# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captions of regions as vision_msgs/Detection2DArray, with or without vision_msgs installed.

The definitions are those of vision_msgs 4, of all ROS 2 since Humble.
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from caption_ros.caption import Caption
from caption_ros.region import Region
from caption_ros.region_message import detections_msg

DETECTIONS = 'vision_msgs/msg/Detection2DArray'
_DEFINITIONS = {
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose': 'vision_msgs/ObjectHypothesis hypothesis\n'
                                'geometry_msgs/PoseWithCovariance pose',
    'Detection2D': 'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
                   'vision_msgs/BoundingBox2D bbox\nstring id',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
}
_NO_MASK = np.ones((1, 1), np.bool_)  # a detection has a box only


@lru_cache(maxsize=1)
def vision_types() -> Any:
    """Return the types of the newest ROS 2 with those of vision_msgs that detections need."""
    types = get_typestore(Stores.LATEST)
    for name, definition in _DEFINITIONS.items():
        types.register(get_types_from_msg(definition, f'vision_msgs/msg/{name}'))
    return types


def detections_bytes(record: dict[str, Any]) -> bytes:
    """Return the CDR bytes of a Detection2DArray of the record of a frame.

    Args:
        record: JSON values of the ``captions`` topic; the header has their stamp and frame.
    """
    types = vision_types()
    stamp = types.types['builtin_interfaces/msg/Time'](**record['stamp'])
    header = types.types['std_msgs/msg/Header'](stamp, record['frame_id'])
    captions = [_caption(values) for values in record['captions'] if values['region'] is not None]
    message = detections_msg(captions, header, _module())
    return bytes(types.serialize_cdr(message, DETECTIONS))


def _caption(values: dict[str, Any]) -> Caption:
    said = values['region']
    region = Region(said['label'], tuple(said['box']), _NO_MASK, said['area_px'], (0, 0),
                    id=said.get('id', ''), name=said.get('name', ''))
    return Caption(values['text'], values['score'], values['focus'], region)


@lru_cache(maxsize=1)
def _module() -> Any:
    """Return rosbags' types as rclpy's module: fields that are not given have their defaults."""
    return SimpleNamespace(**{name: _maker(f'vision_msgs/msg/{name}') for name in _DEFINITIONS})


def _maker(typename: str) -> Any:
    def make(**fields: Any) -> Any:
        types = vision_types()
        defaults = {name: _default(*kind) for name, kind in types.fielddefs[typename][1]
                    if name not in fields}
        if typename == 'geometry_msgs/msg/Quaternion':
            defaults['w'] = 1.0  # its definition says so, which rosbags does not keep
        return types.types[typename](**defaults, **fields)
    return make


def _default(node: Nodetype, what: Any) -> Any:
    if node == Nodetype.NAME:
        return _maker(what)()
    if node == Nodetype.BASE:
        return '' if what[0] == 'string' else 0.0 if what[0].startswith('float') else 0
    if node == Nodetype.SEQUENCE:
        return []
    (_, (base, _)), length = what  # the only array is that of a covariance: numbers
    return np.zeros(length, base)
