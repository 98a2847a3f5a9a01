# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Photographs with masks and a recorded camera, through the node with the shipped model."""

from __future__ import annotations

import array
from pathlib import Path

import pytest
from nodebench import image_msg, wait_for

from caption_ros.captioners import load_captioner
from caption_ros.picture import read_labels, read_picture

SHARED = Path(__file__).parents[3] / 'shared'
MASKS = {'coco_000000039769.png': (), 'llava-next_example1.png': (),
         'attn_image.png': ('attn_mountain_bike.png', 'attn_suit.png'),
         'dogs_image.png': ('dogs_Boston_bull.png', 'dogs_Rhodesian_ridgeback.png')}
PHOTOGRAPHS = [(name, mask) for name, masks in MASKS.items() for mask in masks or (None,)]

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason='no shared photographs')


@pytest.fixture
def tabletop():  # the node closes it
    return load_captioner('tabletop')


def _is_well(bench):
    assert bench.value('input', 'bad frames') == '0'
    assert bench.value('inference', 'model failures') == '0'


def test_every_photograph_and_mask_is_captioned(make_bench, tabletop):
    bench = make_bench()
    bench.real = tabletop
    bench.start().advertise('image', 'mask')
    for second, (name, mask) in enumerate(PHOTOGRAPHS, 1):
        assert bench.set(describe='regions' if mask else 'scene') == (True, '')
        if mask:
            bench.advertise('mask')
        stamp = (second, 5)
        bench.publish('image', image_msg(read_picture(SHARED / 'images' / name), stamp))
        if mask:
            labels = read_labels(SHARED / 'images' / mask).astype('uint8')
            bench.publish('mask', image_msg(labels, stamp))
        (caption,) = bench.caption_of(stamp)['captions']
        assert caption['text'] and (caption['region'] is not None) == bool(mask)
    wait_for(lambda: bench.value('input', 'images received') == str(len(PHOTOGRAPHS)))
    _is_well(bench)


def test_a_recorded_camera_is_captioned_at_its_stamps(make_bench, tabletop):
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore
    from sensor_msgs.msg import CompressedImage
    bench = make_bench(image_transport='compressed', describe='scene')
    bench.real = tabletop
    bench.start().advertise('image/compressed')
    stamps = []
    bags = sorted(path.parent for path in (SHARED / 'bags').glob('*/metadata.yaml'))
    with AnyReader(bags, default_typestore=get_typestore(Stores.LATEST)) as reader:
        connections = [c for c in reader.connections if c.msgtype.endswith('/CompressedImage')]
        for connection, _, raw in reader.messages(connections):
            recorded = reader.deserialize(raw, connection.msgtype)
            message = CompressedImage(format=recorded.format)
            message.header.frame_id = recorded.header.frame_id
            stamp = recorded.header.stamp
            message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
            message.data = array.array('B', recorded.data.tobytes())
            bench.publish('image/compressed', message)
            stamps.append((stamp.sec, stamp.nanosec))
            record = bench.caption_of(stamps[-1])
            assert record['frame_id'] == recorded.header.frame_id and record['captions'][0]['text']
    assert stamps
    wait_for(lambda: bench.value('input', 'images received') == str(len(stamps)))
    _is_well(bench)
