# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from caption_ros.health import Level, Status
from caption_ros.ros import sparse_log
from caption_ros.ros.sparse_log import SparseLog


class Logger:
    def __init__(self):
        self.lines = []

    def warning(self, text):
        self.lines.append(('warning', text))

    def info(self, text):
        self.lines.append(('info', text))


@pytest.fixture
def logger():
    return Logger()


def test_a_kind_of_trouble_is_logged_now_and_then(logger, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(sparse_log.time, 'monotonic', lambda: now_s)
    log = SparseLog(logger)
    for second in range(12):
        now_s = 100.0 + second
        log.warn('model', f'failed at {second}')
        if second == 1:
            log.warn('worker', 'another kind')
    assert [text for _, text in logger.lines] == [
        'failed at 0', 'another kind', 'failed at 5', 'failed at 10']


def test_a_bad_input_is_logged_once_at_the_third_look_and_when_it_is_well(logger):
    log = SparseLog(logger)
    bad, well = Status('input', Level.STALE, 'no image'), Status('input', Level.OK, 'images')
    for status in (bad, bad, well, bad, bad):  # as while a camera starts
        log.look(status)
    assert logger.lines == []
    for status in (bad, bad, bad, well, well):
        log.look(status)
    assert logger.lines == [('warning', 'input: no image'), ('info', 'input: images')]


def test_each_input_is_looked_at_by_itself(logger):
    log = SparseLog(logger)
    for _ in range(3):
        log.look(Status('input front', Level.WARN, 'dark'))
        log.look(Status('input left', Level.OK, 'images'))
    assert logger.lines == [('warning', 'input front: dark')]
