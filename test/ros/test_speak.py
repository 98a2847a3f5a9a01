# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Narration becomes speech: one sentence at a time, the newest, by a program without a shell."""

from __future__ import annotations

import shutil
import sys
import time

import pytest
import rclpy
from nodebench import wait_for
from std_msgs.msg import String

from caption_ros.errors import OptionError
from caption_ros.ros.speak import Speaker

# Writes when it began and ended, and what it read; a sentence takes as long as its word says.
PROGRAM = """
import sys, time
text = sys.stdin.read()
begin = time.monotonic()
time.sleep(0.4 if 'long' in text else 0.0)
open(sys.argv[1], 'a').write(repr((begin, time.monotonic(), text)) + chr(10))
sys.exit('no sound card' if 'broken' in text else 0)
"""


class Log:
    def __init__(self, folder):
        program = folder / 'say it.py'  # a path that a shell would break
        program.write_text(PROGRAM)
        self._path = folder / 'log'
        self._path.touch()
        self.command = f"{sys.executable} '{program}' {self._path}"

    def entries(self):
        return [eval(line) for line in self._path.read_text().splitlines()]


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path)


@pytest.fixture
def speaker(log):
    warnings = []
    made = Speaker(log.command, warnings.append)
    made.warnings = warnings
    yield made
    made.close()


def test_one_at_a_time_and_the_newest_of_those_that_wait(log, speaker):
    speaker.say('a long sentence')
    wait_for(lambda: speaker._process is not None)
    for number in range(5):
        speaker.say(f'sentence {number}')
    wait_for(lambda: len(log.entries()) == 2)
    (_, first_end, first), (second_begin, _, second) = log.entries()
    assert (first, second) == ('a long sentence\n', 'sentence 4\n')
    assert second_begin >= first_end
    wait_for(lambda: speaker.said == 2)
    assert speaker.left_out == 4


def test_no_text_reaches_a_shell_or_an_argument(log, speaker):
    text = '$(touch x) `ls` "quote" \'s; --help -w file é'
    speaker.say(text + '\n\0')
    wait_for(lambda: log.entries())
    assert log.entries()[0][2] == text + ' \0\n'
    speaker.say('')
    speaker.say(' \n ')
    time.sleep(0.2)
    assert len(log.entries()) == 1


def test_a_program_that_fails_is_named_and_the_next_sentence_is_said(log, speaker):
    speaker.say('a broken sentence')
    wait_for(lambda: speaker.warnings)
    assert 'ended with status 1: no sound card' in speaker.warnings[0]
    speaker.say('one more')
    wait_for(lambda: speaker.said == 1)


def test_closing_ends_a_sentence_in_work(log):
    speaker = Speaker(f'{sys.executable} -c "import time; time.sleep(60)"', print)
    speaker.say('hello')
    wait_for(lambda: speaker._process is not None)
    began = time.monotonic()
    speaker.close()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize('command', ['no-such-program --stdin', '', "un'closed"])
def test_a_program_that_is_not_there_is_named(command):
    with pytest.raises(OptionError, match='command'):
        Speaker(command, print)


def test_node_says_what_is_narrated(ros, log):
    from rclpy.parameter import Parameter

    from caption_ros.ros.speak import SpeakNode
    node = SpeakNode(parameter_overrides=[Parameter('command', value=log.command)])
    other = rclpy.create_node('narrator')
    publisher = other.create_publisher(String, 'narration', 10)
    try:
        wait_for(lambda: publisher.get_subscription_count() == 1)
        publisher.publish(String(data='a red mug appeared'))
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.05) or log.entries())
        assert log.entries()[0][2] == 'a red mug appeared\n'
    finally:
        node.destroy_node()
        other.destroy_node()


@pytest.mark.skipif(shutil.which('espeak-ng') is None, reason='espeak-ng is not installed')
def test_espeak_ng_speaks(tmp_path):
    sound = tmp_path / 'speech.wav'
    speaker = Speaker(f'espeak-ng --stdin -w {sound}', print)
    speaker.say('a red mug appeared')
    try:
        wait_for(lambda: speaker.said == 1)
    finally:
        speaker.close()
    assert sound.read_bytes()[:4] == b'RIFF' and sound.stat().st_size > 10_000
