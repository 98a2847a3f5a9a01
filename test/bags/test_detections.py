# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The regions in OUT as vision_msgs/Detection2DArray, read by a decoder that is not ours."""

import json

import numpy as np
import pytest

from caption_ros.bags.detections import DETECTIONS, detections_bytes, vision_types
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.captioner import CaptionOptions


def test_detections_say_what_the_captions_of_regions_say(tmp_path, bags, pixels):
    reader = pytest.importorskip('mcap.reader')
    decoder = pytest.importorskip('mcap_ros2.decoder')
    source = bags.write(tmp_path / 'in', bags.camera(3, masks=True))
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels,
                BagOptions(captions=CaptionOptions(describe='both')))
    with (tmp_path / 'r/o.mcap').open('rb') as file:
        made = reader.make_reader(file, decoder_factories=[decoder.DecoderFactory()])
        messages = {topic: [(message.log_time, values) for _, _, message, values
                            in made.iter_decoded_messages(topics=[topic])]
                    for topic in ('/detections', '/captions', '/cam/image')}
        schema = made.get_summary().schemas
    assert DETECTIONS in {one.name for one in schema.values()}
    assert [t for t, _ in messages['/detections']] == [t for t, _ in messages['/cam/image']]
    for (_, found), (_, said), (_, image) in zip(*messages.values()):
        captions = [c for c in json.loads(said.data)['captions'] if c['region']]
        assert len(found.detections) == len(captions) > 1
        for header in (found.header, *(one.header for one in found.detections)):
            assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (
                image.header.stamp.sec, image.header.stamp.nanosec, 'camera')
        for one, caption in zip(found.detections, captions):
            (result,) = one.results
            assert (result.hypothesis.class_id, result.hypothesis.score) == (
                caption['text'], caption['score'])
            x0, y0, x1, y1 = caption['region']['box']
            centre = one.bbox.center.position
            assert (centre.x, centre.y) == ((x0 + x1) / 2, (y0 + y1) / 2)
            assert (one.bbox.size_x, one.bbox.size_y, one.bbox.center.theta) == (
                x1 - x0, y1 - y0, 0)
            assert one.id == str(caption['region']['label'])
            assert result.pose.pose.orientation.w == 1


def test_fields_that_nobody_fills_are_as_ros_leaves_them():
    record = {'stamp': {'sec': 1, 'nanosec': 2}, 'frame_id': 'f', 'captions': [
        {'text': 'all', 'score': 1.0, 'focus': 'none', 'region': None},
        {'text': 'a mug', 'score': 0.25, 'focus': 'alpha', 'region': {
            'label': None, 'box': [0, 2, 10, 5], 'area_px': 9, 'id': 'face_7'}}]}
    types = vision_types()
    message = types.deserialize_cdr(detections_bytes(record), DETECTIONS)
    (one,) = message.detections
    pose = one.results[0].pose
    assert one.id == 'face_7' and one.results[0].hypothesis.score == 0.25
    assert pose.covariance.dtype == np.float64 and pose.covariance.tolist() == [0.0] * 36
    assert (pose.pose.position.x, pose.pose.orientation.w) == (0, 1)


def test_without_masks_there_is_no_topic_for_regions(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(1, masks=True))
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels,
                BagOptions(captions=CaptionOptions(describe='scene')))
    assert '/detections' not in {m[0] for m in bags.read(tmp_path / 'r/o.mcap')}
