# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import numpy as np

from caption_ros.caption import Caption
from caption_ros.region import Region, region_from_box


def test_a_region_becomes_plain_json_values():
    mask = np.ones((2, 3), bool)
    region = Region(np.int32(7), tuple(np.array([1, 2, 4, 4])), mask, np.int64(6), (9, 9))
    caption = Caption('a cup', np.float32(0.51239), 'alpha', region)
    assert json.loads(json.dumps(caption.to_dict())) == {
        'text': 'a cup', 'score': 0.5124, 'focus': 'alpha',
        'region': {'label': 7, 'box': [1, 2, 4, 4], 'area_px': 6}}


def test_the_whole_scene_has_no_region():
    assert Caption('a table', 1.0, 'none', None).to_dict() == {
        'text': 'a table', 'score': 1.0, 'focus': 'none', 'region': None}


def test_a_box_has_no_label():
    caption = Caption('a cup', 0.5, 'crop', region_from_box((0, 0, 2, 2), (4, 4)))
    assert caption.to_dict()['region'] == {'label': None, 'box': [0, 0, 2, 2], 'area_px': 4}


def test_what_others_call_a_region_is_told():
    region = replace(region_from_box((0, 0, 2, 2), (4, 4), 3), id='track_7', name='mug')
    assert Caption('a cup', 0.5, 'crop', region).to_dict()['region'] == {
        'label': 3, 'box': [0, 0, 2, 2], 'area_px': 4, 'id': 'track_7', 'name': 'mug'}
