# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nobody but this machine gets at the page unless a password is asked for."""

import socket
import subprocess
import sys

import pytest


def run(*words):
    done = subprocess.run([sys.executable, '-m', 'caption_ros.cli', 'web', *words],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == '' and len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize('words, text', [
    (['--host', '0.0.0.0'], 'wanted --auth USER:PASSWORD'),
    (['--host', 'robot.local'], 'wanted --auth USER:PASSWORD'),
    (['--host', '0.0.0.0', '--auth', 'robot:short'], 'a password of at least 8 letters'),
    (['--auth', 'no colon at all'], '--auth wants USER:PASSWORD'),
    (['--auth', '@/nowhere/at/all'], 'which cannot be read'),
])
def test_who_may_come_in_is_asked_first(words, text):
    status, said = run(*words)
    assert status == 2 and text in said
    assert 'short' not in said and 'no colon' not in said


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = run('--port', str(port))
    assert status == 2 and f'cannot serve on 127.0.0.1 port {port}' in said
