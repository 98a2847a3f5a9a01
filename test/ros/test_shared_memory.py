# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A node that Fast DDS has cut off from its shared memory says so."""

from __future__ import annotations

import subprocess
import sys

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


def test_a_profile_allows_a_process_to_stand_still_for_seconds():
    for name in ('fastdds.xml', 'fastdds_local.xml'):
        assert '<healthy_check_timeout_ms>5000<' in config_path(name).read_text()
