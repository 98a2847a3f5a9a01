# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A node that Fast DDS has cut off from its shared memory says so."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caption_ros.resources import config_path
from caption_ros.ros import diagnostics
from caption_ros.ros.shared_memory import is_cut_off

STALE = 3
# In a process of its own, which nobody else needs afterwards.
CUT_OFF = """
from pathlib import Path
import rclpy
from caption_ros.ros.shared_memory import is_cut_off
rclpy.init(args=[])
node = rclpy.create_node('cut_off')
ports = [path.read_text().strip().removeprefix('dds.shm.')
         for path in Path('/proc/self/task').glob('*/comm')]
files = [Path(f'/dev/shm/fastdds_port{port}') for port in ports if port.isdecimal()]
print(len(files) > 0, is_cut_off())
files[-1].unlink()
print(is_cut_off())
"""
READER = """
import sys
import time
from pathlib import Path
import rclpy
from std_msgs.msg import String
rclpy.init(args=[])
node = rclpy.create_node('reader')
heard = []
node.create_subscription(String, 'still', lambda message: heard.append(time.monotonic()), 10)
print(*(path.read_text().strip().removeprefix('dds.shm.')
        for path in Path('/proc/self/task').glob('*/comm')
        if path.read_text().strip().removeprefix('dds.shm.').isdecimal()), flush=True)
while not any(late - early > 2 for early, late in zip(heard, heard[1:])):
    rclpy.spin_once(node, timeout_sec=0.1)
sys.stdin.read()  # the port lives as long as its reader
"""
WRITER = """
import time
import rclpy
from std_msgs.msg import String
rclpy.init(args=[])
node = rclpy.create_node('writer')
publisher = node.create_publisher(String, 'still', 10)
while not publisher.get_subscription_count():
    time.sleep(0.01)
print('matched', flush=True)
while True:
    publisher.publish(String(data='x'))
    time.sleep(0.03)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_a_listener_whose_port_is_gone_is_seen():
    done = subprocess.run([sys.executable, '-c', CUT_OFF], capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.split() == ['True', 'False', 'True'], done.stderr


def test_without_proc_nothing_is_told(tmp_path):
    assert not is_cut_off(tmp_path)


def test_a_silent_node_that_is_cut_off_is_told_to_start_anew(make_bench, monkeypatch):
    monkeypatch.setattr(diagnostics, 'is_cut_off', lambda: True)
    bench = make_bench(describe='scene', stale_after_s=0.5).start()
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    status = bench.wait_for_status('input', STALE, 'cut this node off')
    assert status.message.endswith('start the node anew, with FASTDDS_DEFAULT_PROFILES_FILE='
                                   f'{config_path("fastdds.xml")}, which allows five seconds')


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc and /dev/shm')
def test_who_stands_still_for_seconds_keeps_its_port():
    """With Fast DDS's own second the port is made anew in its writer's hands."""
    reader = subprocess.Popen([sys.executable, '-c', READER], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    writer = None
    try:
        numbers = reader.stdout.readline().split()
        ports = [Path(f'/dev/shm/fastdds_port{number}') for number in numbers]
        writer = subprocess.Popen([sys.executable, '-c', WRITER], stdout=subprocess.PIPE,
                                  text=True)
        assert writer.stdout.readline() == 'matched\n'
        time.sleep(1.0)
        before = [port.stat().st_ino for port in ports]
        reader.send_signal(signal.SIGSTOP)
        time.sleep(3.0)
        reader.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        assert before and [port.stat().st_ino for port in ports] == before
        reader.communicate(timeout=30)
        assert reader.returncode == 0  # it hears again
    finally:
        for process in filter(None, (reader, writer)):
            process.kill()
            process.communicate()
