# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from caption_ros.health import RECENT_S, Level
from caption_ros.inference import FAILURES_FOR_ERROR, InferenceHealth

NOW_S = 100.0


def health(*events):
    """Make one to which something has happened, in that order."""
    made = InferenceHealth()
    for event in events:
        event(made)
    return made


def status(made, now_s=NOW_S, in_work_s=0.0, active=True, **told):
    return made.status(active=active, now_s=now_s, in_work_s=in_work_s, told=told)


def published(made):
    made.works()
    made.published(2, 0.1, 0.3)


def failed(made):
    made.failed("encoding '32FC1' is depth", NOW_S)


def held_back(made):
    made.works()
    made.held_back(7)


@pytest.mark.parametrize('events, level, message', [
    pytest.param([], Level.OK, 'waiting for the first frame', id='first'),
    pytest.param([published], Level.OK, 'captions are published', id='well'),
    pytest.param([failed], Level.WARN, "'32FC1' is depth", id='one failure'),
    pytest.param([published, *[failed] * FAILURES_FOR_ERROR], Level.ERROR,
                 "3 failures in a row: encoding '32FC1' is depth", id='several in a row'),
    pytest.param([failed, failed, published, failed], Level.WARN, "'32FC1' is depth",
                 id='several, and not in a row'),
    pytest.param([held_back], Level.WARN, 'all captions so far, 7', id='all held back'),
    pytest.param([published, held_back], Level.OK, 'captions are published', id='some held back'),
])
def test_the_status_says_how_well_it_is(events, level, message):
    made = status(health(*events))
    assert made.name == 'inference'
    assert made.level == level and message in made.message


def test_a_failure_is_a_warning_for_a_while_and_several_an_error_until_it_works():
    made = health(failed)
    assert status(made, NOW_S + RECENT_S + 1).level is Level.OK
    made = health(*[failed] * FAILURES_FOR_ERROR)
    assert status(made, NOW_S + RECENT_S + 1).level is Level.ERROR
    made.works()
    assert status(made, NOW_S + RECENT_S + 1).level is Level.OK


def test_no_failure_matters_while_the_node_is_not_active():
    made = status(health(*[failed] * 9), in_work_s=1000.0, active=False)
    assert made.level is Level.OK and made.message == 'idle: the node is not active'


def test_a_result_that_is_lost_counts_and_is_no_failure_in_a_row():
    made = health(*[lambda made: made.lost('no room', NOW_S)] * 5)
    shown = status(made)
    assert shown.level is Level.WARN and shown.message == 'no room'
    assert shown.values['model failures'] == '5' and shown.values['failures in a row'] == '0'


@pytest.mark.parametrize('latency_s, in_work_s, hangs', [
    (None, 299.0, False), (None, 301.0, True),  # the first one may compile
    (0.1, 19.0, False), (0.1, 21.0, True),
    (5.0, 49.0, False), (5.0, 51.0, True),
])
def test_a_batch_hangs_when_it_takes_far_longer_than_usual(latency_s, in_work_s, hangs):
    made = InferenceHealth()
    if latency_s is not None:
        made.published(1, latency_s, latency_s)
    shown = status(made, in_work_s=in_work_s)
    assert bool(made.hang(in_work_s)) == hangs == (shown.level is Level.ERROR)
    assert (f'in work for {in_work_s:.0f} s' in shown.message) == hangs


def test_counts_and_medians_are_shown_with_what_was_told():
    made = InferenceHealth()
    for latency_s, age_s in ((0.1, 0.2), (0.3, 0.6), (0.2, 0.4)):
        made.published(2, latency_s, age_s)
    made.dropped()
    made.prompt_refused()
    assert status(made, narrations=3).values == {
        'frames captioned': '3', 'captions published': '6', 'captions held back': '0',
        'model failures': '0', 'results dropped after deactivation': '1', 'prompts refused': '1',
        'narrations': '3', 'median latency s': '0.200', 'median age s': '0.400',
        'failures in a row': '0'}
