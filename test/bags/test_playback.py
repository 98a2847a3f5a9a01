# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The time of a recording that is played, and reading ahead of it."""

import threading

import pytest

from caption_ros.bags import playback
from caption_ros.bags.playback import PlaybackClock, read_ahead
from caption_ros.bags.recording import Recording
from caption_ros.errors import OptionError

SECOND = 10 ** 9
START = 1_480_227_350_196_105_142  # no float holds it


class Steady:
    now_ns = 17 * SECOND

    def __call__(self):
        return self.now_ns


@pytest.fixture
def steady():
    return Steady()


def test_the_clock_runs_at_its_rate_stops_and_jumps(steady):
    clock = PlaybackClock(2.0, steady_ns=steady)
    clock.jump(START)
    steady.now_ns += SECOND
    assert clock.now_ns() == START + 2 * SECOND
    clock.set_rate(0.5)
    steady.now_ns += SECOND
    assert clock.now_ns() == START + 2 * SECOND + SECOND // 2
    clock.pause()
    steady.now_ns += 9 * SECOND
    clock.set_rate(3.0)
    assert clock.is_paused and clock.now_ns() == START + 2 * SECOND + SECOND // 2
    clock.pause(False)
    steady.now_ns += SECOND
    assert clock.now_ns() == START + 5 * SECOND + SECOND // 2
    clock.jump(START)
    assert clock.now_ns() == START


def test_waiting_ends_at_its_time_at_its_limit_and_at_a_jump(steady):
    clock = PlaybackClock(steady_ns=steady)
    clock.jump(START)
    assert clock.wait_until(START - 1, 60)
    assert not clock.wait_until(START + 1, 0.001)
    clock.pause()
    assert clock.wait_until(START, 60) and not clock.wait_until(START + 1, 0.001)
    threading.Timer(0.05, clock.jump, (START + SECOND,)).start()
    assert clock.wait_until(START + SECOND, 60)


@pytest.mark.parametrize('rate', [0.0, -1.0, 1000.0, float('nan')])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(OptionError, match=r'^rate must be 0.01 to 100, got'):
        PlaybackClock(rate)


def test_reading_ahead_yields_all_and_keeps_within_its_bytes(tmp_path, bags, monkeypatch):
    recording = Recording(bags.write(tmp_path / 'in', bags.camera(6)))
    monkeypatch.setattr(playback, '_AHEAD_BYTES', 300_000)  # of frames of 230 kB
    read = 0
    inner = recording.messages

    def counting(*arguments):
        nonlocal read
        for message in inner(*arguments):
            read += 1
            yield message

    monkeypatch.setattr(recording, 'messages', counting)
    messages = read_ahead(recording, recording.topics, lambda damage: None)
    got = [next(messages)]
    assert read <= 5  # two frames, and the texts between
    got += messages
    assert [(m.topic.name, m.received_ns, bytes(m.data)) for m in got] == [
        (topic, received_ns, data) for topic, received_ns, _, _, data in bags.read(
            recording.path)]
    threads = threading.active_count()
    abandoned = read_ahead(recording, recording.topics, lambda damage: None)
    next(abandoned)
    abandoned.close()
    assert threading.active_count() == threads


def test_what_the_reading_thread_raises_is_raised_where_messages_are_taken(tmp_path, bags,
                                                                          monkeypatch):
    recording = Recording(bags.write(tmp_path / 'in', bags.camera(1)))

    def broken(*_):
        raise OSError('the disk is gone')
        yield

    monkeypatch.setattr(recording, 'messages', broken)
    with pytest.raises(OSError, match='the disk is gone'):
        list(read_ahead(recording, recording.topics, lambda damage: None))
