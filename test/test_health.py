# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import threading

import pytest

from caption_ros.health import (
    RECENT_S,
    Counters,
    Level,
    Trouble,
    input_status,
    model_status,
)

NOW_S = 100.0
VALUES = {'frames': '7'}


def _trouble(age_s=None):
    trouble = Trouble()
    if age_s is not None:
        trouble.note("encoding '32FC1' is depth", NOW_S - age_s)
    return trouble


def _input(**facts):
    return input_status(**{
        'active': True, 'topic': '/camera/image', 'publishers': 1, 'since_image_s': 0.1,
        'stale_after_s': 2.0, 'lost': 0, 'transport_hint': '', 'trouble': _trouble(),
        'now_s': NOW_S, 'values': VALUES, **facts})


def test_what_was_lost_is_named():
    assert '9 frame(s) of /mask were lost' in _input(lost=9, lost_of='/mask').message


def test_levels_are_those_of_the_diagnostics_message():
    assert [(level.name, int(level)) for level in Level] == [
        ('OK', 0), ('WARN', 1), ('ERROR', 2), ('STALE', 3)]


def test_counts_of_several_threads_add_up():
    counters = Counters()

    def count():
        for _ in range(500):
            counters.add('frames')

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert counters.add('frames', 3) == 2003
    assert counters.get('frames') == 2003 and counters.get('never') == 0


def test_all_counts_are_a_copy():
    counters = Counters()
    counters.add('frames')
    counters.all()['frames'] = 99
    assert counters.all() == {'frames': 1}


def test_trouble_is_recent_for_a_while():
    trouble = _trouble(age_s=0)
    assert trouble.is_recent(NOW_S + RECENT_S - 0.1) and not trouble.is_recent(NOW_S + RECENT_S)
    assert not Trouble().is_recent(0.0)


@pytest.mark.parametrize('details, problem, level, message', [
    ({'device': 'cpu'}, '', Level.OK, 'tabletop is loaded'),
    ({}, '', Level.OK, 'not loaded: the node is inactive'),
    ({}, 'weights are missing', Level.ERROR, 'weights are missing'),
])
def test_the_model_is_loaded_or_not_or_why_not(details, problem, level, message):
    status = model_status('inactive', 'tabletop', details, problem)
    assert (status.name, status.level, status.message) == ('model', level, message)
    assert status.values == {'model': 'tabletop', 'state': 'inactive', **details}


def test_a_model_that_is_not_as_asked_for_is_a_warning():
    status = model_status('active', 'tabletop', {'family': 'blip'}, '', ['no graphs', 'no flash'])
    assert (status.level, status.message) == (Level.WARN,
                                              'tabletop is loaded; no graphs; no flash')


@pytest.mark.parametrize('facts, level, message', [
    pytest.param({}, Level.OK, 'images arrive on /camera/image', id='well'),
    pytest.param({'active': False, 'publishers': 0}, Level.OK, 'not listening', id='inactive'),
    pytest.param({'publishers': 0, 'since_image_s': None}, Level.WARN,
                 'no publisher on /camera/image; start the camera or remap', id='no camera yet'),
    pytest.param({'publishers': 0}, Level.STALE, 'no publisher on', id='camera gone'),
    pytest.param({'since_image_s': None}, Level.STALE,
                 'no image yet on /camera/image from 1 publisher', id='nothing arrives'),
    pytest.param({'since_image_s': 2.0}, Level.OK, 'images arrive', id='not stale yet'),
    pytest.param({'since_image_s': 3.25}, Level.STALE, 'no image for 3.2 s', id='stale'),
    pytest.param({'since_image_s': 9.0, 'transport_hint': 'raise the segment size'}, Level.STALE,
                 'publisher(s); raise the segment size', id='stale with a hint'),
    pytest.param({'trouble': _trouble(1)}, Level.WARN, "'32FC1' is depth", id='bad frame'),
    pytest.param({'trouble': _trouble(60)}, Level.OK, 'images arrive', id='long ago'),
    pytest.param({'lost': 4, 'transport_hint': 'use compressed'}, Level.WARN,
                 '4 frame(s) of /camera/image were lost on the way; use compressed', id='lost'),
])
def test_the_input_says_what_is_wrong_and_what_to_do(facts, level, message):
    status = _input(**facts)
    assert status.name == 'input' and status.values == VALUES
    assert status.level == level and message in status.message
