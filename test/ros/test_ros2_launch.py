# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The launch files under the real ros2 command, where it is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from nodebench import wait_for
from std_msgs.msg import String

ROOT = Path(__file__).parents[2]
ROS2 = shutil.which('ros2')
_MISSING = [name for name in ('launch_ros', 'ros2launch', 'ros2lifecycle', 'rosidl_runtime_py')
            if importlib.util.find_spec(name) is None] + ([] if ROS2 else ['the command ros2'])
pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(
    bool(_MISSING), reason=f'not installed, and no wheels: {", ".join(_MISSING)}')]
_START_TIMEOUT_S = 60.0


@pytest.fixture(scope='module')
def env(tmp_path_factory):
    """Environment with the package installed as colcon does it."""
    prefix = tmp_path_factory.mktemp('prefix')
    subprocess.run([sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', str(prefix),
                    'build', '--build-base', str(prefix / 'build'), 'install', '--prefix',
                    str(prefix), '--record', str(prefix / 'record'),
                    '--single-version-externally-managed'],
                   cwd=ROOT, check=True, capture_output=True)
    site = next(prefix.glob('lib/python*/site-packages'))
    paths = [str(site), *filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]
    prefixes = [str(prefix), *filter(None, [os.environ.get('AMENT_PREFIX_PATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths),
            'AMENT_PREFIX_PATH': os.pathsep.join(prefixes)}


def ros2(*arguments, env):
    return subprocess.run([sys.executable, ROS2, *arguments], env=env, capture_output=True,
                          text=True, timeout=60)


@pytest.fixture
def launched(env):
    started = []

    def launch(name, *arguments):
        started.append(subprocess.Popen(
            [sys.executable, ROS2, 'launch', 'caption_ros', name, *arguments], env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@pytest.mark.parametrize('name', ['caption', 'demo', 'bag'])
def test_arguments_are_shown_with_their_descriptions(env, name):
    shown = ros2('launch', 'caption_ros', f'{name}.launch.py', '--show-args', env=env)
    assert shown.returncode == 0, shown.stderr
    assert "'device'" in shown.stdout and 'Where the model runs' in shown.stdout


def test_a_choice_that_is_none_is_refused(env):
    done = ros2('launch', 'caption_ros', 'caption.launch.py', 'device:=abacus', env=env)
    assert done.returncode != 0 and 'abacus' in done.stdout + done.stderr


def test_demo_brings_up_camera_node_and_narration(ros, launched):
    node, captions, told = rclpy.create_node('listener'), [], []
    node.create_subscription(String, 'captions', lambda m: captions.append(json.loads(m.data)), 10)
    node.create_subscription(String, 'narration', lambda m: told.append(m.data), 10)
    process = launched('demo.launch.py', 'scene_period_s:=3.0')
    try:
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.1) or (captions and len(told) > 1),
                 _START_TIMEOUT_S, 'captions and two narrations')
    finally:
        node.destroy_node()
    assert captions[-1]['frame_id'] == 'camera_optical_frame' and all(told)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and 'Traceback' not in said, said


def test_a_recording_is_captioned_by_its_own_clock_and_ends_the_launch(ros, launched, tmp_path):
    from test_replay import START_NS, STEP_NS, TYPES, image, qos, write

    from caption_ros.scenes import TabletopStream
    frames = [(START_NS + i * STEP_NS, TabletopStream(3).frame(3 * i)) for i in range(30)]
    kind = 'sensor_msgs/msg/Image'
    assert kind in TYPES.types
    bag = write(tmp_path / 'drive_17', {'/cam/image': (kind, [qos()]),
                                        '/cam/mask': (kind, [qos()])}, [
        (name, at_ns, image(pixels, at_ns)) for at_ns, frame in frames
        for name, pixels in (('/cam/image', frame.rgb), ('/cam/mask', frame.labels))])
    node, captions = rclpy.create_node('listener'), []
    node.create_subscription(String, 'captions', lambda m: captions.append(json.loads(m.data)), 10)
    process = launched('bag.launch.py', f'bag:={bag}', 'image:=/cam/image', 'mask:=/cam/mask',
                       'describe:=regions')
    try:
        wait_for(lambda: rclpy.spin_once(node, timeout_sec=0.1) or process.poll() is not None,
                 _START_TIMEOUT_S, 'end of the launch')
    finally:
        node.destroy_node()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert START_NS // 10 ** 9 - 1 <= captions[0]['stamp']['sec'] <= START_NS // 10 ** 9 + 3
    assert 0 <= captions[0]['age_s'] < 5  # by the clock of the recording
    truth = set(frames[0][1].region_captions.values())
    assert truth >= {caption['text'] for caption in captions[-1]['captions']}


def test_ros2_lifecycle_takes_the_node_through_its_states_twice(ros, env, launched):
    launched('caption.launch.py', 'autostart:=false', 'name:=managed')
    node = rclpy.create_node('waiter')
    try:
        wait_for(lambda: 'managed' in node.get_node_names(), _START_TIMEOUT_S)
    finally:
        node.destroy_node()
    for _ in range(2):
        for transition in ('configure', 'activate', 'deactivate', 'cleanup'):
            done = ros2('lifecycle', 'set', '/managed', transition, env=env)
            assert 'Transitioning successful' in done.stdout, (transition, done)
