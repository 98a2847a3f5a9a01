# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node publishes: the right caption, of the right region, with the image's header."""

from __future__ import annotations

import time

import pytest
import rclpy
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


def said(record):
    return {(c['region'] or {}).get('label'): c['text'] for c in record['captions']}


def test_caption_keeps_stamp_and_frame_id(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.publish('image', image_msg(picture(LEFT, LEFT), (12, 345), frame_id='left_eye'))
    record = bench.caption_of((12, 345))
    assert record['frame_id'] == 'left_eye'
    assert record['model'] == 'tabletop'
    assert record['captions'] == [
        {'text': text_of(LEFT), 'score': 0.5, 'focus': 'none', 'region': None}]
    assert 0 <= record['latency_s'] < 5
    assert record['age_s'] > 1e9  # stamped in 1970


def test_each_region_gets_its_own_caption(make_bench):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    record = bench.caption_of((1, 0))
    assert said(record) == {1: text_of(LEFT), 2: text_of(RIGHT)}
    assert [c['region'] for c in record['captions']] == [
        {'label': 1, 'box': [0, 0, 32, 48], 'area_px': 1536},
        {'label': 2, 'box': [32, 0, 64, 48], 'area_px': 1536}]
    assert wait_for(lambda: bench.texts) == [f'{text_of(LEFT)}; {text_of(RIGHT)}']


def test_both_says_the_scene_first(make_bench):
    bench = make_bench(describe='both').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    assert [c['region'] is None for c in bench.caption_of((1, 0))['captions']] == [
        True, False, False]


def test_without_a_segmenter_auto_describes_the_scene(make_bench):
    bench = make_bench().start()
    bench.advertise('image')
    bench.send((1, 0))
    assert list(said(bench.caption_of((1, 0)))) == [None]


def test_when_masks_stop_auto_goes_back_to_the_scene(make_bench):
    bench = make_bench(mask_timeout_s=1.5).start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    assert set(said(bench.caption_of((1, 0)))) == {1, 2}
    bench.send((2, 0))  # waits in vain, and is the newest still
    assert set(said(bench.caption_of((2, 0)))) == {None}
    assert not bench.node.cameras[''].intake.masks_alive()
    bench.send((3, 0))
    assert set(said(bench.caption_of((3, 0)))) == {None}
    bench.send((4, 0), halves())  # the image may go before its mask is known of
    wait_for(bench.node.cameras[''].intake.masks_alive)
    bench.send((5, 0), halves())
    assert set(said(bench.caption_of((5, 0)))) == {1, 2}


def test_a_camera_slower_than_masks_may_be_gets_its_masks(make_bench):
    bench = make_bench(mask_timeout_s=0.5).start()
    bench.advertise('image', 'mask')
    for second in (1, 2):
        bench.send((second, 0))
        time.sleep(0.1)
        bench.publish('mask', image_msg(halves(), (second, 0)))
        assert set(said(bench.caption_of((second, 0)))) == {1, 2}
        time.sleep(1.5)


def test_both_without_a_mask_is_the_scene(make_bench):
    bench = make_bench(describe='both').start()
    bench.advertise('image')
    bench.send((1, 0))
    assert set(said(bench.caption_of((1, 0)))) == {None}
    assert bench.node.cameras[''].counters.all()['bad frames'] == 0


def test_masks_that_come_too_late_are_told_and_describe_says_so(make_bench):
    bench = make_bench(describe='regions', mask_timeout_s=0.3).start()
    bench.advertise('image', 'mask')
    for second in (1, 2, 3):
        bench.send((second, 0))
        time.sleep(1.0)
        bench.publish('mask', image_msg(halves(), (second, 0)))
    text = 'came more than 0.3 s after their image: raise mask_timeout_s'
    bench.wait_for_status('input', 1, text)
    wait_for(lambda: bench.value('input', 'masks too late') == '3')
    assert text in bench.call('describe').message


def test_more_regions_than_are_described_are_counted(make_bench):
    bench = make_bench(max_regions=1).start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    bench.caption_of((1, 0))
    wait_for(lambda: bench.value('input', 'regions left out') == '1')


def test_a_topic_of_another_type_is_told(make_bench):
    from sensor_msgs.msg import CompressedImage
    bench = make_bench()
    assert bench.change('configure')
    assert bench.change('activate')
    other = rclpy.create_node('other', context=_another_context())
    try:
        other.create_publisher(CompressedImage, '/image', 1)
        bench.wait_for_status('input', 1, 'is published as sensor_msgs/msg/CompressedImage, '
                              'wanted sensor_msgs/msg/Image')
    finally:
        other.destroy_node()
        other.context.shutdown()


@pytest.mark.parametrize('describe', ['auto', 'regions'])
def test_a_mask_topic_of_another_type_is_told(make_bench, describe):
    from sensor_msgs.msg import CompressedImage
    bench = make_bench(describe=describe).start()
    bench.advertise('image')
    other = rclpy.create_node('other', context=_another_context())
    try:
        other.create_publisher(CompressedImage, '/mask', 1)
        wait_for(lambda: bench.node.cameras[''].masks.other_types)
        bench.send((1, 0))
        bench.wait_for_status('input', 1, '/mask is published as sensor_msgs/msg/CompressedImage, '
                              'wanted sensor_msgs/msg/Image; remap the topic')
    finally:
        other.destroy_node()
        other.context.shutdown()


def test_describe_takes_frames_whose_masks_took_longer_than_images_may_be_silent(make_bench):
    bench = make_bench(describe='regions', stale_after_s=0.4, mask_timeout_s=5.0).start()
    bench.advertise('image', 'mask')
    bench.send((1, 0))
    time.sleep(0.7)
    bench.publish('mask', image_msg(halves(), (1, 0)))
    bench.caption_of((1, 0))
    assert bench.call('describe').success


def _another_context():
    """Return a context: one participant has one type for a topic."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    return context


def test_mask_350_ms_late_is_paired_also_after_time_jumps_back(make_bench):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    for lap in range(2):  # the second lap of a looping bag has the stamps of the first
        for second in range(1, 4):
            stamp = (100 * second, 7)
            # Colours tell the laps apart: a mask must not meet the image of the other lap.
            bench.send(stamp, left=(lap, second, 0))
            time.sleep(0.35)
            bench.publish('mask', image_msg(halves(), stamp))
            record = wait_for(lambda n=3 * lap + second: len(bench.captions) >= n
                              and bench.captions[n - 1], what=f'lap {lap}, {stamp}')
            assert record['stamp']['sec'] == 100 * second
            assert said(record)[1] == f'{lap} {second} 0'
    assert len(bench.captions) == 6


def test_masks_behind_a_fast_camera_meet_their_own_images(make_bench):
    bench = make_bench(describe='regions', mask_timeout_s=10.0).start()
    bench.advertise('image', 'mask')
    for i in range(1, 31):  # 30 Hz, the mask of every tenth image comes ten images later
        bench.send((1, i * 33_000_000 % 1_000_000_000), left=(i, 0, 0))
        time.sleep(0.02)
        if i > 10 and i % 10 == 1:
            stamp = (1, (i - 10) * 33_000_000 % 1_000_000_000)
            bench.publish('mask', image_msg(halves(), stamp))
    bench.caption_of((1, 11 * 33_000_000))
    assert [said(record)[1] for record in bench.captions] == ['1 0 0', '11 0 0']


def test_slop_pairs_stamps_that_differ_a_little(make_bench):
    bench = make_bench(describe='regions', mask_slop_s=0.01).start()
    bench.advertise('image', 'mask')
    bench.send((5, 0))
    bench.publish('mask', image_msg(halves(), (5, 9_000_000)))
    bench.caption_of((5, 0))
    bench.send((6, 0))
    bench.publish('mask', image_msg(halves(), (6, 11_000_000)))
    bench.send((7, 0), halves())
    bench.caption_of((7, 0))
    assert [c['stamp']['sec'] for c in bench.captions] == [5, 7]


def test_no_frame_is_captioned_twice_and_the_newest_wins(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.captioner.gate.clear()
    bench.send((1, 0))
    wait_for(lambda: bench.captioner.calls)
    for second in range(2, 8):
        bench.send((second, 0))
    wait_for(lambda: bench.value('input', 'images received') == '7')
    bench.captioner.gate.set()
    bench.caption_of((7, 0))
    time.sleep(0.3)
    assert [c['stamp']['sec'] for c in bench.captions] == [1, 7]
    assert len(bench.captioner.calls) == 2
    wait_for(lambda: bench.value('input', 'frames replaced by a newer one') == '5')
    assert bench.captioner.threads == {'captioner'}  # never in a subscription callback


def test_images_that_newer_ones_replace_before_they_are_read_are_missed(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    with bench.node.cameras[''].intake._lock:  # the reader stands still
        for second in range(2, 22):
            bench.send((second, 0))
        time.sleep(0.3)
    bench.caption_of((21, 0))
    bench.send((22, 0))
    bench.caption_of((22, 0))
    missed = wait_for(lambda: int(bench.value('input', 'images missed') or 0))
    assert missed >= 8  # ten wait, and one may have been in work
    wait_for(lambda: bench.value('input', 'images received') == str(22 - missed))
    assert bench.value('input', 'images lost in transport') == '0'


def test_max_rate_holds(make_bench):
    bench = make_bench(describe='scene', max_rate_hz=4.0).start()
    bench.advertise('image')
    started = time.monotonic()
    for i in range(1, 61):
        bench.send((i, 0))
        time.sleep(0.02)
    bench.caption_of((60, 0))  # the newest frame is captioned as soon as the rate allows
    assert 4 <= len(bench.captions) <= 4 * (time.monotonic() - started) + 2


@pytest.mark.parametrize('format_text', ['jpeg', 'bgr8; jpeg compressed bgr8', 'jpg', ''])
def test_compressed_images_are_known_by_their_bytes(make_bench, format_text):
    bench = make_bench(describe='scene', image_transport='compressed').start()
    bench.advertise('image/compressed')
    bench.publish('image/compressed', compressed_msg(picture(LEFT, LEFT), (3, 0), format_text))
    values = [int(v) for v in bench.caption_of((3, 0))['captions'][0]['text'].split()]
    assert max(abs(v - w) for v, w in zip(values, LEFT)) <= 4


def test_subscription_follows_a_reliable_publisher_and_back(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image', qos=bench.reliable)
    wait_for(lambda: bench.node.cameras[''].images.reliable)
    bench.send((1, 0))
    bench.caption_of((1, 0))
    bench._publishers.clear()
    bench.advertise('image', qos=bench.best_effort)  # now one of each kind
    wait_for(lambda: not bench.node.cameras[''].images.reliable)
    wait_for(lambda: bench._publishers['image'].get_subscription_count() == 1)
    bench.send((2, 0))
    bench.caption_of((2, 0))


def test_a_caption_that_no_message_can_hold_is_told_and_the_next_is_published(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    text_before, bench.captioner._text = bench.captioner._text, lambda rgb, region: 'a \ud800'
    bench.send((1, 0))
    bench.wait_for_status('inference', 1, 'a result could not be handed over: UnicodeEncodeError')
    bench.captioner._text = text_before
    bench.send((2, 0))
    bench.caption_of((2, 0))
    assert bench.call('describe').success
