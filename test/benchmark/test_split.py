# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from caption_ros.benchmark import split as module
from caption_ros.benchmark.split import ENCODINGS, PREPROCESSING, split
from caption_ros.message import image_from_msg

STEPS = ['pairing and mailbox', 'decoding', 'mask to regions', PREPROCESSING,
         'captions to text, JSON and narration']


class Wire:
    """Hands on what it is given, and keeps what is published."""

    def __init__(self):
        self.received, self.published = [], []

    def packed(self, message):
        return [message]

    def receive(self, packed):
        self.received.append(packed[0])
        return packed[0]

    def publish(self, text, record, captions):
        self.published.append((text, record, captions))


def test_every_step_is_timed_and_the_models_own_is_no_part_of_the_total(monkeypatch):
    monkeypatch.setattr(module, 'LIMITS_MS', {(320, 240): 5.0})
    # A second from each look at the clock to the next.
    monkeypatch.setattr(module, 'time', SimpleNamespace(
        perf_counter=itertools.count().__next__, monotonic=time.monotonic))
    seen = []
    (size,) = split(seen.append, frames=3)
    assert (size['size'], size['limit_ms']) == ('320x240', 5.0)
    for encoding in ENCODINGS:
        assert [*size['steps_ms'][encoding].items()] == [(step, 1000.0) for step in STEPS]
        assert size['total_ms'][encoding] == 4000.0
    # The same picture in each encoding, the JPEG nearly so.
    rgb, bgr, jpeg = seen[:3]
    assert rgb.shape == (240, 320, 3) and np.array_equal(rgb, bgr)
    assert 0 < np.abs(rgb.astype(int) - jpeg).mean() < 10


def test_a_middleware_receives_both_messages_and_publishes_four_captions(monkeypatch):
    monkeypatch.setattr(module, 'LIMITS_MS', {(320, 240): 5.0})
    wire = Wire()
    (size,) = split(None, wire, frames=1)
    steps = [*size['steps_ms']['rgb8']]
    assert (steps[0], steps[-1]) == ('receiving', 'publishing') and PREPROCESSING not in steps
    assert len(wire.received) == 2 * len(wire.published)
    text, record, captions = wire.published[0]
    assert len({caption.region.label for caption in captions}) == 4 == text.count(';') + 1
    assert [each['text'] for each in json.loads(record)['captions']] == text.split('; ')


def test_sizes_have_the_limits_that_are_asked_for():
    assert module.LIMITS_MS == {(640, 480): 5.0, (1920, 1080): 15.0}
    # A scene of four objects; the figures are for four regions.
    assert len(module.scene_frame(module._SEED).region_captions) == 4


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_rclpy_makes_the_same_picture_of_its_bytes(encoding):
    pytest.importorskip('rclpy')
    from caption_ros.ros.loopback import Loopback

    rgb = module.scene_frame(module._SEED, 64, 48).rgb
    plain = (module._jpeg(rgb) if encoding == 'jpeg' else
             module._raw(rgb if encoding == 'rgb8' else rgb[..., ::-1], encoding))
    made = object.__new__(Loopback)
    message = made.receive(made.packed(plain))
    assert (message.header.stamp.sec, message.header.frame_id) == (1, 'camera')
    assert np.array_equal(image_from_msg(message), image_from_msg(plain))
