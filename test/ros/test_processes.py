# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes as processes: signals, simulated time, and the simulated camera's topics."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from nodebench import TIMEOUT_S, image_msg, picture, wait_for
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from caption_ros.message import image_from_msg, labels_from_msg
from caption_ros.scenes import TabletopStream

OK = 0


def start(module, *parameters, name=''):
    arguments = ['-r', f'__node:={name}'] if name else []
    arguments += [text for parameter in parameters for text in ('-p', parameter)]
    return subprocess.Popen(
        [sys.executable, '-m', f'caption_ros.ros.{module}', '--ros-args', *arguments],
        env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(('module', 'parameters'), [
    ('caption_node', ('autostart:=false',)),
    ('scene_camera', ('rate_hz:=60.0', 'width:=64', 'height:=48')),
])
def test_signals_end_a_node_cleanly(ros, module, parameters, number):
    watcher = rclpy.create_node('watcher')
    name = f'{module}_{number.name}'.lower()  # other tests' nodes linger in the graph
    process = start(module, *parameters, name=name)
    try:
        wait_for(lambda: name in watcher.get_node_names(), what=f'{module} to start')
        time.sleep(0.5)  # let it publish, so that the signal comes in the midst of work
        process.send_signal(number)
        process.send_signal(number)  # as a terminal and a launcher do, both
        said, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        watcher.destroy_node()
    assert process.returncode == 0
    assert 'Traceback' not in said and 'never retrieved' not in said


SLOW_LOADER = """
import time
from caption_ros.ros import caption_node, spinning
spinning._END_TIMEOUT_S = 1.0
def load(*args, **options):
    print('loading', flush=True)
    time.sleep(60)
spinning.run_node(lambda: caption_node.CaptionNode(load_captioner=load))
"""


def _interrupted(code, *, as_it_says):
    """Return the exit status and stderr of a Python process that SIGINT comes to."""
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f'{as_it_says}\n'
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, told


def test_a_signal_ends_a_node_that_loads_a_model(ros):
    status, told = _interrupted(SLOW_LOADER, as_it_says='loading')
    assert status == 0
    assert 'did not end within 1 s, a model that loads perhaps' in told


HANGS_IN_DDS = """
import ctypes
from rclpy.node import Node
from caption_ros.ros import spinning
spinning._CLEAN_UP_TIMEOUT_S = 1.0
class HangsInDds(Node):
    def destroy_node(self):
        ctypes.PyDLL(None).pause()  # with the interpreter's lock
def make():
    print('made', flush=True)
    return HangsInDds('hangs')
spinning.run_node(make)
"""


def test_a_node_that_hangs_as_it_is_destroyed_ends_all_the_same(ros):
    status, told = _interrupted(HANGS_IN_DDS, as_it_says='made')
    assert status == 1
    assert 'Timeout' in told and 'in destroy_node' in told


STAYS = """
import gc
from caption_ros.ros import caption_node
loads = []
caption_node.run_node = lambda make, args: loads.append(make.keywords['load_captioner'])
caption_node.main([])
for _ in range(2):
    loads[0]('tabletop', device='cpu', dtype='auto').close()
    print(gc.get_freeze_count() > 10_000, gc.collect() < 1000)
"""


def test_the_garbage_collector_passes_over_the_model_of_a_node_of_its_own():
    done = subprocess.run([sys.executable, '-c', STAYS], capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.split() == ['True'] * 4, done.stderr


def segments_of(pid):
    """Return where the middleware's shared memory is that a process has mapped."""
    with open(f'/proc/{pid}/maps') as maps:
        return set(re.findall(r'/dev/shm/fastdds_[0-9a-f]{16}$', maps.read(), re.M))


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs /proc')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_node_with_a_model_leaves_no_shared_memory_behind(ros, number):
    node = rclpy.create_node('camera')
    images = node.create_publisher(Image, 'image', QoSProfile(depth=5))
    own = segments_of(os.getpid())
    process = start('caption_node', 'describe:=scene')
    try:
        wait_for(lambda: images.get_subscription_count() > 0, timeout_s=4 * TIMEOUT_S)
        segments = segments_of(process.pid) - own
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.communicate()
        node.destroy_node()
    assert process.returncode == 0
    assert segments
    assert not [one for one in segments if os.path.exists(one)]


def test_camera_with_an_impossible_parameter_says_so_and_ends():
    process = start('scene_camera', 'rate_hz:=3000.0')
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert said.startswith('caption_ros: rate_hz must be in 0.1..200.0')
    assert len(said.splitlines()) == 1


def test_camera_shows_the_stream_and_its_masks_come_late_with_the_same_stamp(ros):
    node = rclpy.create_node('viewer')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    got = {name: [] for name in ('image', 'image/compressed', 'mask', 'reference')}
    for name, kind in (('image', Image), ('image/compressed', CompressedImage), ('mask', Image)):
        node.create_subscription(
            kind, name, lambda m, n=name: got[n].append((time.monotonic(), m)),
            QoSProfile(depth=50))
    node.create_subscription(String, 'reference', lambda m: got['reference'].append(
        (0.0, json.loads(m.data))), QoSProfile(depth=50))

    def key(header):
        return header.stamp.sec, header.stamp.nanosec

    def shown():
        images = {key(m.header) for _, m in got['image']}
        return [(at, m) for at, m in got['mask'] if key(m.header) in images]

    process = start('scene_camera', 'seed:=7', 'rate_hz:=15.0', 'image_transport:=both',
                    'mask_delay_s:=0.35', 'scene_period_s:=0.4', 'width:=320', 'height:=240',
                    'reliability:=reliable')
    try:
        deadline = time.monotonic() + 4 * TIMEOUT_S  # a busy machine starts slowly
        while len(shown()) < 12 and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
        executor.shutdown()
        node.destroy_node()

    images = {key(m.header): (at, m) for at, m in got['image']}
    compressed = {key(m.header): m for _, m in got['image/compressed']}
    references = {(r['stamp']['sec'], r['stamp']['nanosec']): r for _, r in got['reference']}
    masks = shown()
    assert len(masks) >= 10
    delays = [at - images[key(m.header)][0] for at, m in masks]
    assert 0.3 < np.median(delays) < 1.0
    scenes = {TabletopStream(seed, 320, 240).layout.sentence: seed for seed in range(7, 60)}
    assert len({references[stamp]['scene'] for stamp in references}) >= 2
    for _, mask in masks:
        stamp = key(mask.header)
        image = images[stamp][1]
        assert image.header.frame_id == mask.header.frame_id == 'camera_optical_frame'
        rgb, labels = image_from_msg(image), labels_from_msg(mask)
        assert rgb.shape[:2] == labels.shape
        assert references[stamp]['scene'] in scenes
        assert {str(v) for v in np.unique(labels) if v} <= set(references[stamp]['regions'])
        if stamp in compressed:
            # The same picture within what JPEG takes away.
            other = image_from_msg(compressed[stamp])
            assert np.abs(other.astype(int) - rgb).mean() < 6


def test_ages_follow_simulated_time_and_timers_do_not(make_bench):
    from rosgraph_msgs.msg import Clock
    bench = make_bench(describe='scene', use_sim_time=True).start()
    bench.wait_for_status('model', OK)  # diagnostics come although no clock runs
    clock = bench.client.create_publisher(Clock, '/clock', 10)
    bench.advertise('image')

    def set_time(sec):
        message = Clock()
        message.clock.sec = sec
        clock.publish(message)
        return bench.node.get_clock().now().nanoseconds == sec * 10**9
    wait_for(lambda: set_time(103))
    bench.publish('image', image_msg(picture(), (100, 500_000_000)))
    assert bench.caption_of((100, 500_000_000))['age_s'] == 2.5
    wait_for(lambda: set_time(50))  # the bag starts again
    bench.publish('image', image_msg(picture(), (49, 0)))
    assert bench.caption_of((49, 0))['age_s'] == 1.0
    before = len(bench.diagnostics)
    wait_for(lambda: len(bench.diagnostics) > before + 1)


def resident_kib(pid):
    with open(f'/proc/{pid}/status') as status:
        return int(re.search(r'VmRSS:\s+(\d+) kB', status.read())[1])


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs /proc')
def test_memory_is_back_after_each_cleanup(ros):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    client = rclpy.create_node('manager')
    process = start('caption_node', 'autostart:=false', 'describe:=scene', name='managed')
    captions, resident = [], []
    service = client.create_client(ChangeState, '/managed/change_state')
    images = client.create_publisher(Image, 'image', QoSProfile(depth=5))
    client.create_subscription(String, 'captions', captions.append, 10)

    def asked(name, patience_s):
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f'TRANSITION_{name.upper()}')
        future = service.call_async(request)
        rclpy.spin_until_future_complete(client, future, timeout_sec=patience_s)
        return future.result()

    def change(name):
        assert asked(name, 4 * TIMEOUT_S).success, name

    try:
        assert service.wait_for_service(4 * TIMEOUT_S)
        # The first answer is dropped where the node has not heard of this client yet, so it is of
        # something that the node cannot do.
        assert any(asked('deactivate', 5.0) for _ in range(3))
        for lap in range(3):
            change('configure')
            change('activate')
            wait_for(lambda: images.get_subscription_count() > 0)
            del captions[:]
            while len(captions) < 3:
                images.publish(image_msg(TabletopStream(3).frame(lap).rgb, (1 + lap, 0)))
                rclpy.spin_once(client, timeout_sec=0.1)
            change('deactivate')
            change('cleanup')
            resident.append(resident_kib(process.pid))
    finally:
        process.kill()
        process.communicate()
        client.destroy_node()
    # The first lap also loads the libraries, which stay.
    assert max(resident[1:]) <= 1.05 * resident[0], resident
