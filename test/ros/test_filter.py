# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A filter behind the node's captioner: what does not fit is held back, and counted."""

from __future__ import annotations

from nodebench import LEFT, RIGHT, halves, text_of, wait_for

ERROR = 2


def test_captions_that_do_not_fit_are_held_back_and_counted(make_bench):
    bench = make_bench(describe='regions', filter='blip-itm').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    captions = bench.caption_of((1, 0))['captions']
    assert [(c['text'], c['match']) for c in captions] == [(text_of(LEFT), 0.8)]
    wait_for(lambda: bench.value('inference', 'captions held back') == '1')
    assert bench.value('inference', 'captions published') == '1'
    assert bench.value('model', 'filter') == 'fake filter'
    assert bench.call('describe').message == text_of(LEFT)


def test_describe_says_that_everything_was_held_back(make_bench):
    bench = make_bench(describe='scene', filter='blip-itm').start()
    bench.advertise('image')
    bench.send((1, 0), left=RIGHT)
    wait_for(lambda: bench.value('inference', 'captions held back') == '1')
    answer = bench.call('describe')
    assert not answer.success and 'held back' in answer.message and '0.20' in answer.message
    bench.wait_for_status('inference', 1, 'the filter has held back all captions so far, 1')
    assert not bench.captions and not bench.texts


def test_the_threshold_changes_with_the_next_frame(make_bench):
    bench = make_bench(describe='scene', filter='blip-itm').start()
    bench.advertise('image')
    assert bench.set(filter_threshold=0.1, candidates=3) == (True, '')
    bench.send((1, 0), left=RIGHT)
    assert bench.caption_of((1, 0))['captions'][0]['match'] == 0.2
    assert bench.captioner.calls[0][0] == 3  # one region, three candidates


def test_options_that_do_not_go_together_fail_configure_until_they_are_set(make_bench):
    bench = make_bench(candidates=4)
    assert not bench.change('configure')
    bench.wait_for_status('model', ERROR, 'there is no filter')
    assert bench.set(candidates=1) == (True, '')
    assert bench.change('configure')


def test_cameras_are_there_when_options_go_together_again(make_bench):
    bench = make_bench(candidates=4, cameras=['front', 'left'])
    assert not bench.change('configure')
    assert bench.set(candidates=1) == (True, '')
    bench.start()
    assert set(bench.node.cameras) == {'front', 'left'}
