# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The worker: one thread for the model, frames looked at ahead, the newest one captioned."""

import threading
import time
from types import SimpleNamespace

import pytest
from nodebench import TIMEOUT_S, wait_for

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import CheckpointError, ImageFormatError
from caption_ros.mailbox import Mailbox
from caption_ros.ros import look as look_module
from caption_ros.ros.intake import Frame
from caption_ros.ros.worker import CaptionWorker

TAKES_S = 0.4  # so long the model is expected to take
OPTIONS = CaptionOptions(describe='scene')
SETTINGS = SimpleNamespace(max_rate_hz=0.0, skip_static=False)


def _frame(number):
    message = SimpleNamespace(data=bytes([number] * 12), height=2, width=2, step=6,
                              encoding='rgb8', is_bigendian=0, header=SimpleNamespace())
    return Frame(message, None, time.monotonic(), 1)


class Model:
    """Says the number that is in the picture; waits at its gate when that is closed."""

    name = family = device = 'fake'
    focus_modes = ('crop',)

    def __init__(self):
        self.thread = threading.current_thread()
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.prepared = []
        self.prepared_one = threading.Event()

    def prepare(self, rgb, regions, options):
        self.prepared.append(int(rgb[0, 0, 0]))
        self.prepared_one.set()
        raise RuntimeError('nobody hears of it before the frame is captioned')

    def caption(self, rgb, regions, options):
        assert threading.current_thread() is self.thread
        self.begun.set()
        assert self.gate.wait(TIMEOUT_S)
        return [Caption(str(rgb[0, 0, 0]), 0.5, 'none', region) for region in regions]


@pytest.fixture
def bench():
    mailbox, said, failures = Mailbox(), [], []
    bench = SimpleNamespace(mailbox=mailbox, said=said, options=OPTIONS, settings=SETTINGS,
                            deliver=said.extend, failures=failures)
    worker = CaptionWorker(Model, mailbox, lambda: bench.options, lambda: bench.settings,
                           lambda outcomes: bench.deliver(outcomes), failures.append)
    bench.worker, bench.model = worker, worker.captioner()
    yield bench
    bench.model.gate.set()
    assert worker.close(TIMEOUT_S)
    wait_for(lambda: all(thread.name != 'looker' for thread in threading.enumerate()))


def _say(bench, number, *more):
    """Have a frame captioned, which takes a while; more come while the model is at the next."""
    bench.model.gate.clear()
    bench.mailbox.put(_frame(number))
    time.sleep(TAKES_S)
    bench.model.gate.set()
    wait_for(lambda: len(bench.said) >= 1)
    bench.model.gate.clear()
    bench.model.begun.clear()
    bench.mailbox.put(_frame(number + 1))
    assert bench.model.begun.wait(TIMEOUT_S)
    for one in more:
        bench.mailbox.put(_frame(one))


def _texts(bench):
    return [outcome.captions[0].text for outcome in bench.said]


def test_a_frame_is_looked_at_while_the_model_is_at_the_last_and_once_only(bench, monkeypatch):
    seen = []
    read = look_module.image_from_msg

    def counted(message):
        seen.append(message.data[0])
        return read(message)
    monkeypatch.setattr(look_module, 'image_from_msg', counted)
    _say(bench, 1, 3)
    assert bench.model.prepared_one.wait(TIMEOUT_S)  # with the model still at its gate
    assert _texts(bench) == ['1']
    bench.model.gate.set()
    wait_for(lambda: len(bench.said) == 3)
    assert _texts(bench) == ['1', '2', '3'] and seen == [1, 2, 3]


def test_the_newest_frame_is_captioned_whatever_has_been_looked_at(bench):
    _say(bench, 1, 3)
    assert bench.model.prepared_one.wait(TIMEOUT_S)
    assert bench.mailbox.put(_frame(4))  # it tells that 3 has been replaced
    bench.model.gate.set()
    wait_for(lambda: len(bench.said) == 3)
    assert _texts(bench) == ['1', '2', '4'] and bench.model.prepared == [3]


def test_what_was_looked_at_with_other_options_is_looked_at_again(bench):
    _say(bench, 1, 3)
    assert bench.model.prepared_one.wait(TIMEOUT_S)
    bench.options = CaptionOptions(describe='regions')  # and there is no mask
    bench.model.gate.set()
    wait_for(lambda: len(bench.said) == 3)
    assert bench.said[2].options.describe == 'regions' and bench.said[2].bad_frame


def test_a_frame_that_cannot_be_read_ahead_is_told_once(bench):
    bad = _frame(3)
    bad.image.encoding = 'rgb7'
    _say(bench, 1)
    bench.mailbox.put(bad)
    time.sleep(2 * TAKES_S)
    bench.model.gate.set()
    wait_for(lambda: len(bench.said) == 3)
    assert isinstance(bench.said[2].error, ImageFormatError) and not bench.model.prepared


def test_what_loading_raises_reaches_who_waits_for_the_model():
    def load():
        raise CheckpointError('not there')
    worker = CaptionWorker(load, Mailbox(), lambda: OPTIONS, lambda: SETTINGS, lambda _: None,
                           pytest.fail)
    with pytest.raises(CheckpointError, match='not there'):
        worker.captioner()
    assert worker.close(TIMEOUT_S)


def test_what_handing_over_raises_is_told_and_the_next_frame_captioned(bench):
    def fail(outcomes):
        raise UnicodeEncodeError('utf-8', '\ud800', 0, 1, 'surrogates not allowed')
    bench.deliver = fail
    bench.mailbox.put(_frame(1))
    wait_for(lambda: bench.failures)
    assert isinstance(bench.failures[0], UnicodeEncodeError)
    bench.deliver = bench.said.extend
    bench.mailbox.put(_frame(2))
    wait_for(lambda: bench.said)
    assert bench.said[0].captions[0].text == '2' and len(bench.failures) == 1


def test_a_rate_that_is_raised_counts_at_once(bench):
    bench.settings = SimpleNamespace(max_rate_hz=1e-12, skip_static=False)
    bench.mailbox.put(_frame(1))
    wait_for(lambda: bench.said)
    bench.mailbox.put(_frame(2))
    time.sleep(0.3)
    assert len(bench.said) == 1 and not bench.failures
    bench.settings = SETTINGS
    wait_for(lambda: len(bench.said) == 2, 2.0)


def test_what_was_shown_while_static_frames_were_not_skipped_is_not_taken_for_the_last(bench):
    static = SimpleNamespace(max_rate_hz=0.0, skip_static=True, skip_static_max_silence_s=60.0)
    for number, settings in ((10, static), (200, SETTINGS), (11, static)):
        bench.settings = settings
        count = len(bench.said)
        bench.mailbox.put(_frame(number))
        wait_for(lambda count=count: len(bench.said) > count)
        assert bench.said[-1].captions[0].text == str(number)
        assert not bench.said[-1].unchanged
