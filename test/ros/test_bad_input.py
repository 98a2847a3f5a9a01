# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bad input is counted and named, dropped, and the next good frame is captioned."""

from __future__ import annotations

import array
import struct
import zlib

import numpy as np
import pytest
from nodebench import (
    LEFT,
    RIGHT,
    compressed_msg,
    halves,
    image_msg,
    picture,
    text_of,
    wait_for,
)

OK, WARN, ERROR, STALE = range(4)


def wrong_encoding():
    return image_msg(picture(), (1, 0), 'rgb9')


def data_too_short():
    message = image_msg(picture(), (1, 0))
    message.data = message.data[:-1]
    return message


def step_too_small():
    message = image_msg(picture(), (1, 0))
    message.step = 10
    return message


def no_pixels():
    message = image_msg(picture(), (1, 0))
    message.height = message.width = message.step = 0
    message.data = array.array('B')
    return message


def depth_with_nan():
    return image_msg(np.full((48, 64), np.nan, np.float32), (1, 0), '32FC1')


def huge_header():
    message = image_msg(picture(), (1, 0))
    message.height = message.width = 20000
    message.step = 60000
    return message


@pytest.mark.parametrize(('make', 'named'), [
    pytest.param(wrong_encoding, 'rgb9', id='wrong encoding'),
    pytest.param(data_too_short, '9215', id='size that does not match the data'),
    pytest.param(step_too_small, '10', id='step smaller than a row'),
    pytest.param(no_pixels, '0', id='no pixels'),
    pytest.param(depth_with_nan, '32FC1', id='float depth with NaN'),
    pytest.param(huge_header, '20000', id='20000x20000 header'),
])
def test_bad_image_is_dropped_and_named(make_bench, make, named):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.publish('image', make())
    status = bench.wait_for_status('input', WARN, 'bad frame dropped')
    assert named in status.message
    assert bench.value('input', 'bad frames') == '1'
    assert bench.captions == []
    bench.send((2, 0))
    bench.caption_of((2, 0))
    assert len(bench.captions) == len(bench.texts) == 1


def broken_jpeg():
    message = compressed_msg(picture(), (1, 0))
    message.data = message.data[:len(message.data) // 2]
    return message


def huge_png():
    def chunk(kind, body):
        return (struct.pack('>I', len(body)) + kind + body
                + struct.pack('>I', zlib.crc32(kind + body)))
    header = struct.pack('>IIBBBBB', 20000, 20000, 8, 2, 0, 0, 0)
    message = compressed_msg(picture(), (1, 0), 'png')
    message.data = array.array('B', b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
                               + chunk(b'IDAT', zlib.compress(b'\0')) + chunk(b'IEND', b''))
    return message


def no_jpeg():
    message = compressed_msg(picture(), (1, 0))
    message.data = array.array('B', b'hello')
    return message


@pytest.mark.parametrize('make', [broken_jpeg, huge_png, no_jpeg])
def test_bad_compressed_image_is_dropped(make_bench, make):
    bench = make_bench(describe='scene', image_transport='compressed').start()
    bench.advertise('image/compressed')
    bench.publish('image/compressed', make())
    bench.wait_for_status('input', WARN, 'bad frame dropped')
    assert bench.captions == []
    bench.publish('image/compressed', compressed_msg(picture(), (2, 0)))
    bench.caption_of((2, 0))


@pytest.mark.parametrize('labels', [
    pytest.param(np.zeros((48, 64), np.uint8), id='all background'),
    pytest.param(np.zeros((48, 64), np.float32), id='float mask'),
    pytest.param(np.pad(np.ones((2, 2), np.uint8), 20), id='region too small'),
])
def test_bad_mask_drops_the_frame_and_never_gives_an_empty_caption(make_bench, labels):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    bench.publish('image', image_msg(picture(), (1, 0)))
    bench.publish('mask', image_msg(labels, (1, 0),
                                    '32FC1' if labels.dtype == np.float32 else 'mono8'))
    text = bench.wait_for_status('input', WARN, 'bad frame dropped').message
    assert ('the mask, not the image: ' in text) == (labels.dtype == np.float32)
    assert bench.captions == bench.texts == []
    bench.send((2, 0), halves())
    bench.caption_of((2, 0))


def test_mask_of_another_size_is_scaled_and_counted(make_bench):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves(24, 32))
    assert [c['text'] for c in bench.caption_of((1, 0))['captions']] == [
        text_of(LEFT), text_of(RIGHT)]
    wait_for(lambda: bench.value('input', 'masks scaled') == '1')


def test_stamp_0_is_dropped_and_counted(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.send((0, 0))
    bench.wait_for_status('input', WARN, 'stamp 0')
    assert bench.value('input', 'images with stamp 0') == '1'
    assert bench.captions == []


def test_stamp_0_is_captioned_when_accepted(make_bench):
    bench = make_bench(describe='regions', accept_zero_stamp=True).start()
    bench.advertise('image', 'mask')
    bench.send((0, 0), halves())
    record = bench.caption_of((0, 0))
    assert len(record['captions']) == 2
    assert 0 <= record['age_s'] < 10


def test_topic_without_publisher_is_named(make_bench):
    bench = make_bench(describe='scene').start()
    bench.wait_for_status('input', WARN, 'no publisher on /image')


def test_silent_publisher_is_stale_and_the_profile_is_named(make_bench):
    bench = make_bench(describe='scene', stale_after_s=2.0).start()
    bench.advertise('image')
    status = bench.wait_for_status('input', STALE, 'FASTDDS_DEFAULT_PROFILES_FILE=')
    assert 'config/fastdds.xml' in status.message
    assert 'for the process that publishes the images' in status.message
    bench.send((1, 0))
    bench.wait_for_status('input', OK)
    bench.wait_for_status('input', STALE, 'no image for')


def test_images_that_wait_for_masks_in_vain_are_counted(make_bench):
    bench = make_bench(describe='regions', mask_timeout_s=0.2, stale_after_s=60.0).start()
    bench.advertise('image')
    bench.send((1, 0))
    wait_for(lambda: bench.value('input', 'images without mask') == '1')
    bench.wait_for_status('input', WARN, 'no publisher on /mask')
    bench.advertise('mask')
    bench.wait_for_status('input', WARN, 'no mask arrives on /mask')
    assert bench.captions == []


def test_masks_of_other_stamps_are_named(make_bench):
    bench = make_bench(describe='regions', stale_after_s=60.0).start()
    bench.advertise('image', 'mask')
    bench.send((1, 0))
    bench.publish('mask', image_msg(halves(), (900, 0)))
    bench.wait_for_status('input', WARN, 'none has the stamp of an image')


def test_model_failures_are_counted_and_three_in_a_row_are_an_error(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.captioner.error = RuntimeError('out of memory\nand more')
    for second in (1, 2, 3):
        bench.send((second, 0))
        wait_for(lambda n=second: len(bench.captioner.calls) == n)
    bench.wait_for_status('inference', ERROR, 'RuntimeError: out of memory')
    assert bench.captions == []
    bench.captioner.error = None
    bench.send((4, 0))
    bench.caption_of((4, 0))
    bench.wait_for_status('inference', WARN)  # the failures are recent
    assert bench.value('inference', 'model failures') == '3'
    assert bench.value('inference', 'failures in a row') == '0'
