# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The page as a process of its own; a ROS graph on loopback where there is ROS."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

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
# Runs first in the server's Python and writes down whom it calls.
WATCH = """
import sys
def watch(event, args):
    if event in ('socket.connect', 'socket.sendto'):
        with open({log!r}, 'a') as log:
            print(args[1], file=log)
sys.addaudithook(watch)
"""


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
    """``caption-ros web`` as a process.

    Args:
        words: Options.
        folder: Where to write down whom it calls, in the file ``called``.
    """

    def __init__(self, *words, folder):
        (folder / 'sitecustomize.py').write_text(WATCH.format(log=str(folder / 'called')))
        self.port = free_port()
        self.url = f'http://127.0.0.1:{self.port}/'
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'caption_ros.cli', 'web', '--port', str(self.port), *words],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join(
                filter(None, (str(ROOT), str(folder), os.environ.get('PYTHONPATH'))))),
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
