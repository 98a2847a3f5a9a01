# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nobody but this machine gets at the page unless a password is asked for."""

import asyncio
import importlib
import inspect
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
web = importlib.import_module('caption_ros.commands.web')


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
    (['--host', ''], "--host '' lets others in"),
    (['--num-beams', '99'], 'num_beams must be a whole number in 1..16, got 99'),
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


def test_guesses_of_a_password_wait_for_each_other(monkeypatch):
    monkeypatch.setattr(web, '_AFTER_A_WRONG_PASSWORD_S', 0.05)

    async def try_all(*guesses):
        door = web._door(('robot', 'a long secret'))
        started_s = time.monotonic()
        let_in = await asyncio.gather(*(door(*guess) for guess in guesses))
        return let_in, time.monotonic() - started_s
    let_in, took_s = asyncio.run(try_all(
        ('robot', 'a long guess'), ('robot', 'ä long secret'), ('', ''),
        ('other', 'a long secret'), ('robot', 'a long secret')))
    assert let_in == [False] * 4 + [True]
    assert took_s >= 4 * 0.05
    assert asyncio.run(try_all(('robot', 'a long secret')))[1] < 0.05


def test_options_are_those_of_the_docs():
    rows = re.findall(r'^\| (`--.*?) \| .+ \| .+ \|$', (ROOT / 'docs/web.md').read_text(), re.M)
    told = [option for row in rows for option in re.findall(r'`--([a-z-]+)`', row)]
    own = [name.replace('_', '-') for name in inspect.signature(web.web).parameters]
    assert sorted(set(told)) == sorted(own)
