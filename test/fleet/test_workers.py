# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a recording whose worker dies, for each way in which Ray tells it."""

from types import SimpleNamespace

import pytest

from caption_ros.bags.job import BagOptions
from caption_ros.fleet.run import FleetOptions, FleetSummary
from caption_ros.fleet.storage import Source
from caption_ros.fleet.work import Outcome, Task
from caption_ros.fleet.workers import _Dispatch

ray = pytest.importorskip('ray')
TASK = Task(Source('/in', (('/in/one.mcap', 9),), 'one.mcap', '/in/one.mcap'), '/out',
            BagOptions())
LOST = [ray.exceptions.RayActorError(), ray.exceptions.OutOfMemoryError('killed for memory'),
        ray.exceptions.NodeDiedError('gone'), ray.exceptions.WorkerCrashedError()]


class _Ray:
    """Ray without processes: a call has ended when it is made, with what was given for it."""

    exceptions = ray.exceptions

    def __init__(self, loads, captions):
        self.started = 0
        self._answers = {'load': iter(loads), 'caption': iter(captions)}

    def remote(self, kind):
        return self

    def options(self, **wanted):
        return SimpleNamespace(remote=self._start)

    def _start(self, load, cores):
        self.started += 1
        return SimpleNamespace(**{name: self._method(name) for name in self._answers})

    def _method(self, name):
        return SimpleNamespace(remote=lambda *task: lambda: next(self._answers[name]))

    def wait(self, calls, num_returns):
        return calls[:1], calls[1:]

    def get(self, call):
        answer = call()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor):
        pass


def _run(monkeypatch, loads, captions, retries=2):
    summary, said = FleetSummary(), []
    dispatch = _Dispatch([TASK], None, FleetOptions(retries=retries), summary, said.append,
                         lambda done, note='': None)
    monkeypatch.setattr(dispatch, '_ray', _Ray(loads, captions))
    dispatch.run(1)
    return summary, said, dispatch._ray.started


@pytest.mark.parametrize('lost', LOST, ids=lambda error: type(error).__name__)
def test_a_recording_whose_worker_is_gone_is_done_by_another(monkeypatch, lost):
    done = Outcome(captions=3)
    summary, said, started = _run(monkeypatch, [None, None], [lost, done])
    assert (summary.deaths, summary.done, summary.failed, started) == (
        1, {'/in/one.mcap': done}, {}, 2)
    assert said == ['/in/one.mcap: its worker died; too little memory, or it was killed; it is '
                    'tried again']


@pytest.mark.parametrize('lost', LOST, ids=lambda error: type(error).__name__)
def test_a_worker_that_is_gone_while_it_loads_is_replaced(monkeypatch, lost):
    summary, said, started = _run(monkeypatch, [lost, None], [Outcome(captions=3)])
    assert (summary.deaths, len(summary.done), started) == (1, 1, 2)
    assert said == ['a worker died while it loaded the model; another takes its place']


def test_a_recording_that_kills_every_worker_fails(monkeypatch):
    lost = ray.exceptions.OutOfMemoryError('killed for memory')
    summary, _, _ = _run(monkeypatch, [None, None], [lost, lost], retries=1)
    assert summary.deaths == 2 and 'its worker died' in summary.failed['/in/one.mcap'].error
