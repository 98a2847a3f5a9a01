# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Transitions, parameters and services, also while the model is busy."""

from __future__ import annotations

import threading
import time

import pytest
from nodebench import LEFT, RIGHT, TIMEOUT_S, FakeCaptioner, halves, text_of, wait_for

from caption_ros.errors import CheckpointError

OK, WARN, ERROR, STALE = range(4)


def test_autostart_configures_and_activates(make_bench):
    bench = make_bench(autostart=True)
    wait_for(lambda: bench.state() == 'active')
    status = bench.wait_for_status('model', OK, 'tabletop')
    assert bench.load_calls == [('tabletop', 'auto', 'auto')]
    assert status.name == 'caption_node: model'
    assert all(bench.status(part).hardware_id == 'cpu' for part in ('input', 'inference'))


def test_failed_configure_says_why_and_can_be_tried_again(make_bench):
    bench = make_bench(autostart=True, model='nonsense')
    bench.load_error = CheckpointError("model 'nonsense' is unknown; wanted tabletop")
    bench.change('configure')  # autostart may have run before the error was set
    bench.change('deactivate')
    bench.change('cleanup')
    assert not bench.change('configure')
    assert bench.state() == 'unconfigured'
    bench.wait_for_status('model', ERROR, "model 'nonsense' is unknown")
    bench.load_error = None
    assert bench.set(model='tabletop') == (True, '')
    bench.start()
    bench.wait_for_status('model', OK)
    assert bench.load_calls[-1][0] == 'tabletop'


def test_impossible_start_up_parameter_fails_configure_until_it_is_set(make_bench):
    bench = make_bench(num_beams=99, describe='dogs')
    assert not bench.change('configure')
    status = bench.wait_for_status('model', ERROR, 'num_beams must be in 1..16')
    assert "describe must be one of auto, scene, regions, both, got 'dogs'" in status.message
    assert bench.set(num_beams=2, describe='scene') == (True, '')
    bench.start().advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    assert bench.captioner.calls[0][1].num_beams == 2


def test_focus_that_the_model_lacks_fails_configure_and_frees_it(make_bench):
    bench = make_bench(focus='attention')
    assert not bench.change('configure')
    bench.wait_for_status('model', ERROR, "focus 'attention' is not possible")
    assert bench.captioner.closed


def test_failed_activate_says_why_and_can_be_tried_again(make_bench):
    from std_msgs.msg import String
    bench = make_bench()
    assert bench.change('configure')
    listening = len(list(bench.node.subscriptions))
    other = bench.client.create_publisher(String, 'roi', 1)  # wanted are RegionOfInterest
    assert not bench.change('activate')
    assert bench.state() == 'inactive'
    bench.wait_for_status('model', ERROR, 'cannot activate: ')
    assert len(list(bench.node.subscriptions)) == listening
    bench.client.destroy_publisher(other)  # which is as soon as its executor lets it go
    wait_for(lambda: bench.change('activate'))
    bench.wait_for_status('model', OK)
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))


def test_a_node_that_could_not_be_made_is_destroyed_all_the_same(ros):
    from rclpy.parameter import Parameter

    from caption_ros.ros.caption_node import CaptionNode
    begun = set(threading.enumerate())
    with pytest.raises(Exception, match='diagnostics') as problem:
        CaptionNode(cli_args=['--ros-args', '-r', 'caption:=/diagnostics'],
                    parameter_overrides=[Parameter('autostart', value=False)])
    node = next(frame.frame.f_locals['self'] for frame in reversed(list(problem.traceback))
                if isinstance(frame.frame.f_locals.get('self'), CaptionNode))
    node.destroy_node()
    node.destroy_node()
    assert set(threading.enumerate()) <= begun


def test_cleanup_frees_the_model_and_configure_loads_another(make_bench):
    bench = make_bench(describe='scene').start()
    first = bench.captioner
    assert bench.change('deactivate')
    assert not first.closed
    assert bench.change('cleanup')
    assert first.closed
    assert not [t for t in threading.enumerate() if t.name == 'captioner']
    bench.start().advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    assert bench.captioner is not first


def test_shutdown_frees_the_model(make_bench):
    bench = make_bench().start()
    assert bench.change('active_shutdown')
    assert bench.captioner.closed


def test_deactivate_does_not_wait_and_drops_the_result(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.captioner.gate.clear()
    bench.send((1, 0))
    wait_for(lambda: bench.captioner.calls)
    started = time.monotonic()
    assert bench.change('deactivate')
    assert time.monotonic() - started < 1.0
    bench.captioner.gate.set()
    wait_for(lambda: bench.value('inference', 'results dropped after deactivation') == '1')
    assert bench.captions == []
    assert bench.change('activate')
    bench.advertise('image')
    bench.send((2, 0))
    bench.caption_of((2, 0))
    assert len(bench.captions) == 1


def test_inactive_node_reports_health_and_publishes_no_caption(make_bench):
    bench = make_bench()
    bench.wait_for_status('input', OK, 'not active')
    bench.wait_for_status('model', OK, 'not loaded')
    assert bench.status('model').hardware_id


def test_services_answer_within_100_ms_while_it_infers(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.call('get_state')
    bench.set(num_beams=1)  # clients are matched now
    bench.captioner.gate.clear()
    bench.send((1, 0))
    wait_for(lambda: bench.captioner.calls)
    took = []
    for i in range(10):
        bench.send((2 + i, 0))
        started = time.monotonic()
        assert bench.set(num_beams=1 + i % 3)[0]
        assert bench.state() == 'active'
        took.append((time.monotonic() - started) / 2)
    assert len(bench.captioner.calls) == 1  # it was busy all the time
    assert sorted(took)[len(took) // 2] < 0.1


def test_options_change_with_the_next_frame(make_bench):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    assert len(bench.caption_of((1, 0))['captions']) == 2
    assert bench.captioner.calls[-1][1].recall
    assert bench.set(max_regions=1, max_new_tokens=7, focus='crop', recall=False) == (True, '')
    bench.send((2, 0), halves())
    assert len(bench.caption_of((2, 0))['captions']) == 1
    options = bench.captioner.calls[-1][1]
    assert (options.max_new_tokens, options.focus, options.recall) == (7, 'crop', False)
    assert bench.set(describe='scene') == (True, '')
    bench.send((3, 0))
    assert bench.caption_of((3, 0))['captions'][0]['region'] is None
    assert bench.set(describe='regions') == (True, '')
    bench.advertise('mask')
    bench.send((4, 0), halves())
    assert bench.caption_of((4, 0))['captions'][0]['region'] is not None


@pytest.mark.parametrize(('values', 'reason'), [
    pytest.param({'model': 'blip'}, 'model can be changed only while the node is unconfigured',
                 id='model'),
    pytest.param({'device': 'cpu'}, 'device can be changed only', id='device'),
    pytest.param({'describe': 'dogs'}, "describe must be one of auto, scene, regions, both, got "
                 "'dogs'", id='choice'),
    pytest.param({'focus': 'attention'}, "focus 'attention' is not possible with model",
                 id='focus of another model'),
    pytest.param({'candidates': 4}, 'there is no filter', id='candidates without a filter'),
    pytest.param({'filter': 'blip-itm'}, 'filter can be changed only', id='filter'),
    pytest.param({'num_beams': 0}, 'out of range', id='range'),
    pytest.param({'max_rate_hz': 'fast'}, 'Wrong parameter type', id='type'),
    pytest.param({'autostart': False}, 'read-only', id='read only'),
])
def test_refused_change_says_why_and_changes_nothing(make_bench, values, reason):
    bench = make_bench(describe='scene').start()
    successful, why = bench.set(max_new_tokens=5, **values)
    assert not successful
    assert reason in why
    assert bench.node.get_parameter('max_new_tokens').value == 48  # the batch stands together
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    assert bench.captioner.calls[0][1].max_new_tokens == 48


def test_a_prompt_for_a_model_that_takes_no_text_is_refused(make_bench, monkeypatch):
    monkeypatch.setattr(FakeCaptioner, 'takes_prompt', False)
    bench = make_bench(prompt='what is it')
    assert not bench.change('configure')
    bench.wait_for_status('model', ERROR, "prompt 'what is it' cannot be used")
    assert bench.captioner.closed
    assert bench.set(prompt='') == (True, '')
    bench.start()
    successful, why = bench.set(prompt='and that')
    assert not successful and "prompt 'and that' cannot be used: model 'tabletop' (fake)" in why
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))


def test_describe_captions_the_newest_frame(make_bench):
    bench = make_bench(describe='regions').start()
    bench.advertise('image', 'mask')
    bench.send((1, 0), halves())
    bench.caption_of((1, 0))
    answer = bench.call('describe')
    assert (answer.success, answer.message) == (True, f'{text_of(LEFT)}; {text_of(RIGHT)}')
    bench.set(max_regions=1)  # asked anew with new options, published only once
    assert bench.call('describe').message == text_of(LEFT)
    assert len(bench.captions) == 1


def test_describe_waits_for_the_worker_and_skips_the_rate_limit(make_bench):
    bench = make_bench(describe='scene', max_rate_hz=0.05).start()
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    bench.send((2, 0), left=(9, 9, 9), right=(9, 9, 9))
    wait_for(lambda: bench.value('input', 'images received') == '2')
    assert bench.call('describe').message == '9 9 9'


def test_a_batch_that_hangs_is_an_error_and_describe_says_so(make_bench, monkeypatch):
    from caption_ros import inference
    monkeypatch.setattr(inference, '_LEAST_HANG_S', 0.3)
    monkeypatch.setattr(inference, '_HANG', 1)
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    bench.captioner.gate.clear()
    bench.send((2, 0))
    text = 'one batch of captions has been in work for'
    bench.wait_for_status('inference', ERROR, text)
    answer = bench.call('describe')
    assert not answer.success and text in answer.message
    bench.captioner.gate.set()
    bench.caption_of((2, 0))
    bench.wait_for_status('inference', OK, 'captions are published')


def test_counts_of_the_last_activation_are_not_recent_in_the_next(make_bench):
    bench = make_bench(describe='scene').start()
    bench.node.cameras[''].counters.add('images received', 9000)
    bench.node.cameras[''].counters.add('images lost in transport', 9000)
    assert bench.change('deactivate') and bench.change('activate')
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    status = bench.node.cameras[''].status(time.monotonic(), active=True, sample=True)
    assert status.level == OK and float(status.values['image rate Hz']) < 10


def test_describe_says_why_it_cannot(make_bench):
    bench = make_bench(describe='scene')
    answer = bench.call('describe')
    assert (answer.success, answer.message) == (False, 'the node is unconfigured, not active')
    bench.start()
    answer = bench.call('describe')
    assert not answer.success
    assert answer.message.startswith('no frame within 2 s: no publisher on /image')
    bench.advertise('image')
    bench.captioner.error = RuntimeError('broken')
    bench.send((1, 0))
    wait_for(lambda: bench.node.cameras[''].intake.newest)
    answer = bench.call('describe')
    assert (answer.success, answer.message) == (False, 'RuntimeError: broken')


def test_describe_ends_when_the_node_is_deactivated(make_bench):
    bench = make_bench(describe='scene').start()
    bench.advertise('image')
    bench.captioner.gate.clear()
    bench.send((1, 0))
    wait_for(lambda: bench.captioner.calls)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(bench.call('describe')))
    thread.start()
    time.sleep(0.3)
    assert bench.change('deactivate')
    thread.join(TIMEOUT_S)
    assert [a.success for a in answers] == [False]
    assert 'deactivated' in answers[0].message
