# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Several cameras and one model: own topics, one batch, nobody waits for a dead one."""

import time

import pytest
from nodebench import LEFT, RIGHT, FakeCaptioner, halves, image_msg, picture, text_of, wait_for
from std_msgs.msg import String

from caption_ros.errors import OptionError
from caption_ros.scenes import TabletopStream

OK, WARN = 0, 1
FOUR = ['front', 'left', 'right', 'head/back']
GREEN = (10, 200, 30)


def send(bench, camera, stamp, labels=None, **colours):
    bench.publish(f'{camera}/image', image_msg(picture(**colours), stamp))
    if labels is not None:
        bench.publish(f'{camera}/mask', image_msg(labels, stamp))


def test_each_camera_has_its_images_masks_and_captions(make_bench):
    bench = make_bench(cameras=['front', 'head/left']).start()
    bench.advertise('front/image', 'front/mask', 'head/left/image', 'head/left/mask')
    for i in range(1, 4):
        stamp = (i, 0)  # the same for both, as of cameras that are triggered together
        send(bench, 'front', stamp, halves())
        send(bench, 'head/left', stamp, halves(left=7, right=0), left=GREEN)
        wait_for(lambda i=i: all(len(bench.said_of.get(name, ())) == i
                                 for name in ('front', 'head/left')))
    for name, wanted in (('front', [(1, text_of(LEFT)), (2, text_of(RIGHT))]),
                         ('head/left', [(7, text_of(GREEN))])):
        assert [said['stamp']['sec'] for said in bench.said_of[name]] == [1, 2, 3]
        for said in bench.said_of[name]:
            assert [(c['region']['label'], c['text']) for c in said['captions']] == wanted


def test_the_newest_frames_of_all_are_one_batch(make_bench):
    bench = make_bench(cameras=FOUR, describe='scene').start()
    bench.advertise(*(f'{name}/image' for name in FOUR))
    bench.captioner.gate.clear()
    send(bench, 'front', (1, 0))
    wait_for(lambda: bench.captioner.calls)
    for stamp in (2, 3):  # while the first is in work
        for name in FOUR:
            send(bench, name, (stamp, 0))
    wait_for(lambda: all(camera.intake.newest is not None
                         and camera.intake.newest.header.stamp.sec == 3
                         for camera in bench.node.cameras.values()))
    bench.captioner.gate.set()
    wait_for(lambda: all(bench.said_of.get(name) for name in FOUR) and len(bench.captions) == 5)
    assert bench.captioner.batches == [4] and len(bench.captioner.threads) == 1
    for name in FOUR:
        assert bench.said_of[name][-1]['stamp']['sec'] == 3
        wait_for(lambda name=name: bench.value(f'input {name}',
                                               'frames replaced by a newer one') == '1')


def test_a_silent_camera_delays_nobody_and_is_named(make_bench):
    bench = make_bench(cameras=['front', 'left'], describe='scene', stale_after_s=0.5).start()
    bench.advertise('front/image', 'left/image')
    send(bench, 'left', (1, 0))
    wait_for(lambda: bench.said_of.get('left'))
    for i in range(1, 20):
        send(bench, 'front', (i, 0))
        wait_for(lambda i=i: len(bench.said_of.get('front', ())) == i)
        time.sleep(0.05)
    bench.wait_for_status('input left', 3, 'on /left/image')
    bench.publish('front/image', image_msg(picture(), (30, 0)))
    bench.wait_for_status('input front', OK, 'images arrive on /front/image')
    answer = bench.call('describe')
    assert answer.success and answer.message == f'front: {bench.texts[-1]}'


def test_a_bad_frame_of_one_camera_costs_no_other(make_bench):
    bench = make_bench(cameras=['front', 'left'], describe='scene').start()
    bench.advertise('front/image', 'left/image')
    bench.captioner.gate.clear()
    send(bench, 'front', (1, 0))
    wait_for(lambda: bench.captioner.calls)
    bad = image_msg(picture(), (2, 0))
    bad.encoding = 'rgb7'
    bench.publish('left/image', bad)
    send(bench, 'front', (2, 0))
    wait_for(lambda: bench.node.cameras['left'].intake.newest
             and bench.node.cameras['front'].intake.newest.header.stamp.sec == 2)
    bench.captioner.gate.set()
    wait_for(lambda: len(bench.said_of.get('front', ())) == 2)
    bench.wait_for_status('input left', WARN, "bad frame dropped: encoding 'rgb7'")
    assert 'left' not in bench.said_of and bench.value('input left', 'bad frames') == '1'


def test_describe_tells_what_each_camera_sees(make_bench):
    bench = make_bench(cameras=['front', 'left'], max_rate_hz=0.01, describe='scene').start()
    bench.advertise('front/image', 'left/image')
    for i in (1, 2):  # past the rate, so that the second frames wait
        send(bench, 'front', (i, 0), left=GREEN, right=GREEN)
        send(bench, 'left', (i, 0), left=LEFT, right=LEFT)
        time.sleep(0.1)
    answer = bench.call('describe')
    assert answer.success
    assert answer.message == f'front: {text_of(GREEN)}; left: {text_of(LEFT)}'


@pytest.mark.parametrize('parameters, text', [
    ({'cameras': ['front', 'left cam']}, "cameras holds 'left cam', wanted names such as front"),
    ({'cameras': ['/front']}, "cameras holds '/front'"),
    ({'cameras': ['front', 'front']}, 'cameras holds a name twice: front, front'),
    ({'cameras': [f'c{i}' for i in range(33)]}, 'cameras holds 33 names, wanted at most 32'),
    ({'cameras': ['a', 'b'], 'people': 'faces'}, 'people is faces and cameras are 2'),
])
def test_names_that_cannot_be_are_refused_at_configure(make_bench, parameters, text):
    bench = make_bench(**parameters)
    assert not bench.change('configure')
    bench.wait_for_status('model', 2, text)


def test_frames_that_show_nothing_new_are_skipped_and_counted(make_bench):
    bench = make_bench(skip_static=True, skip_static_max_silence_s=60.0, describe='scene').start()
    bench.advertise('image')
    for i in range(1, 11):
        bench.send((i, 0), left=GREEN if i > 8 else LEFT)
        wait_for(lambda i=i: bench.node.cameras[''].outcome is not None
                 and bench.node.cameras[''].outcome.frame.header.stamp.sec == i)
    wait_for(lambda: [said['stamp']['sec'] for said in bench.captions] == [1, 9])
    wait_for(lambda: bench.value('input', 'frames skipped as unchanged') == '8')
    assert bench.value('inference', 'frames captioned') == '2'
    answer = bench.call('describe')  # of the newest frame, which was skipped
    assert answer.success and answer.message == bench.texts[-1]
    assert bench.set(num_beams=2)[0]  # another way to say it
    bench.send((11, 0), left=GREEN)
    bench.caption_of((11, 0))
    assert bench.set(skip_static=False)[0]
    for i in (12, 13):
        bench.send((i, 0), left=GREEN)
        bench.caption_of((i, 0))


def test_a_mask_on_another_thing_and_long_silence_are_reasons_to_caption(make_bench):
    bench = make_bench(skip_static=True, skip_static_max_silence_s=0.3, describe='regions').start()
    bench.advertise('image', 'mask')
    left, right = halves(right=0), halves(left=0, right=1)
    bench.send((1, 0), left)
    assert bench.caption_of((1, 0))['captions'][0]['text'] == text_of(LEFT)
    bench.send((2, 0), right)
    assert bench.caption_of((2, 0))['captions'][0]['text'] == text_of(RIGHT)
    time.sleep(0.35)
    bench.send((3, 0), right)
    bench.caption_of((3, 0))


def test_a_real_stream_is_skipped_while_nothing_moves(make_bench):
    bench = make_bench(skip_static=True, skip_static_max_silence_s=60.0).start()
    bench.advertise('image', 'mask')
    stream = TabletopStream(5)
    still = stream.frame(0)
    for i, frame in enumerate([still, still, stream.frame(0), stream.frame(40)], 1):
        bench.publish('image', image_msg(frame.rgb, (i, 0)))
        bench.publish('mask', image_msg(frame.labels.astype('uint8'), (i, 0)))
        wait_for(lambda i=i: bench.node.cameras[''].outcome is not None
                 and bench.node.cameras[''].outcome.frame.header.stamp.sec == i)
    bench.caption_of((4, 0))
    assert [said['stamp']['sec'] for said in bench.captions] == [1, 4]


def _refuse_bad_prompts(monkeypatch):
    caption = FakeCaptioner.caption

    def choosy(self, rgb, regions, options):
        captions = caption(self, rgb, regions, options)
        if options.prompt.startswith('bad'):
            raise OptionError(f'prompt {options.prompt!r} cannot be used')
        return captions
    monkeypatch.setattr(FakeCaptioner, 'caption', choosy)


def _say(bench, text):
    publisher = bench.client.create_publisher(String, 'prompt', 1)
    wait_for(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(String(data=text))
    wait_for(lambda: bench.node.prompt.text == text)


def test_a_prompt_that_is_refused_costs_no_camera_its_frame(make_bench, monkeypatch):
    _refuse_bad_prompts(monkeypatch)
    bench = make_bench(cameras=['front', 'left'], describe='scene').start()
    bench.advertise('front/image', 'left/image')
    bench.captioner.gate.clear()
    send(bench, 'front', (1, 0))
    wait_for(lambda: bench.captioner.calls)
    _say(bench, 'bad')
    for camera in ('front', 'left'):
        send(bench, camera, (2, 0))
    wait_for(lambda: len(bench.node._mailbox.peek_all()) == 2)
    bench.captioner.gate.set()
    for camera in ('front', 'left'):
        wait_for(lambda camera=camera: any(said['stamp']['sec'] == 2
                                           for said in bench.said_of.get(camera, ())))
    wait_for(lambda: bench.value('inference', 'prompts refused') == '1')
    assert bench.value('inference', 'model failures') == '0'


def test_a_new_prompt_outlives_the_failure_of_the_one_before(make_bench, monkeypatch):
    _refuse_bad_prompts(monkeypatch)
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    _say(bench, 'bad one')
    bench.captioner.gate.clear()
    bench.send((1, 0))
    wait_for(lambda: bench.captioner.calls)
    _say(bench, 'good one')
    bench.captioner.gate.set()
    bench.caption_of((1, 0))
    assert [options.prompt for _, options in bench.captioner.calls] == ['bad one', 'good one']
