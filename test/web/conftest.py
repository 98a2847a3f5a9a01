# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page as a process of its own, and a browser; a ROS graph on loopback where there is ROS."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAS_ROS = importlib.util.find_spec('rclpy') is not None
TOPIC = f'/web_{os.getpid()}/image'
if HAS_ROS:
    # Before rclpy is imported anywhere; as in the tests of the nodes, which may have done it.
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 58))
    os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE',
                          str(ROOT / 'config/fastdds_local.xml'))
START_TIMEOUT_S = 90.0


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Server:
    """``caption-ros web`` as a process."""

    def __init__(self, *words):
        self.port = free_port()
        self.url = f'http://127.0.0.1:{self.port}/'
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'caption_ros.cli', 'web', '--port', str(self.port), *words],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(
                filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def wait(self):
        end_s = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end_s, 'the page does not come up'
            time.sleep(0.1)
        return self

    def stop(self):
        """End it as a terminal does; return its exit status and what it printed."""
        self.process.send_signal(signal.SIGINT)
        try:
            said = self.process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, said


@pytest.fixture(scope='module')
def chromium():
    pytest.importorskip('gradio')
    sync_api = pytest.importorskip('playwright.sync_api')
    found = shutil.which('chromium') or shutil.which('chromium-browser')
    if found is None:
        pytest.skip('no chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def servers(chromium, tmp_path_factory):
    """An open page, and one that asks for a password; they start side by side."""
    secret = tmp_path_factory.mktemp('web') / 'user'
    secret.write_text('robot:a long secret\n')
    both = (Server(*(['--image', TOPIC] if HAS_ROS else [])), Server('--auth', f'@{secret}'))
    try:
        yield tuple(server.wait() for server in both)
        for server in both:
            status, said = server.stop()
            assert status == 0 and 'Traceback' not in said, said
            assert 'a long secret' not in said
    finally:
        for server in both:
            server.process.kill()
            server.process.communicate()


@pytest.fixture
def opened(chromium, servers):
    """Opens the page; at the end nothing may have gone wrong, and nobody else been asked."""
    wrong, asked, contexts = [], [], []

    def open_page(width=1100, server=0):
        context = chromium.new_context(viewport={'width': width, 'height': 1400})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('request', lambda request: asked.append(request.url))
        page.goto(servers[server].url)
        return page
    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in wrong if '400 (Bad Request)' not in text] == []  # a wrong password
    own = tuple(server.url for server in servers)
    assert [url for url in asked if not url.startswith((*own, 'data:', 'blob:'))] == []
