# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The memory of images is given back: of those that waited, and of those that were captioned."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
from nodebench import LEFT, RIGHT, image_msg, picture, wait_for

from caption_ros.mailbox import Mailbox

WAITING = 8
IMAGE_MIB = 6
# Processes of their own: within one, images do not pass through the middleware's memory, and
# what it does is settled by the first node.
READER = f"""
import ctypes
import sys
import time
from pathlib import Path
from caption_ros.ros.process_memory import heed_profile
heed_profile()
import rclpy
from sensor_msgs.msg import Image

def own_mib():
    ctypes.CDLL(None).malloc_trim(0)
    status = Path('/proc/self/status').read_text()
    return int(status.partition('RssAnon:')[2].split()[0]) / 1024

rclpy.init(args=[])
node = rclpy.create_node('reader')
images = node.create_subscription(Image, 'waiting', lambda image: None, {WAITING})
print(own_mib(), flush=True)
sys.stdin.readline()  # all were sent
waiting_mib = own_mib()
end_s, read = time.monotonic() + 10, 0
while read < {WAITING} and time.monotonic() < end_s:
    read += images.handle.take_message(Image, True) is not None
print(read, waiting_mib, own_mib(), flush=True)
"""
WRITER = f"""
import sys
import time
import rclpy
from sensor_msgs.msg import Image
rclpy.init(args=[])
node = rclpy.create_node('writer')
publisher = node.create_publisher(Image, 'waiting', {WAITING})
while not publisher.get_subscription_count():
    time.sleep(0.01)
for _ in range({WAITING}):
    publisher.publish(Image(data=bytes({IMAGE_MIB} << 20)))
    time.sleep(0.1)
print('sent', flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='looks into /proc')
def test_images_that_waited_leave_no_memory_behind():
    reader, writer = (subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
                      for code in (READER, WRITER))
    try:
        before_mib = float(reader.stdout.readline())
        assert writer.stdout.readline() == 'sent\n'
        reader.stdin.write('read\n')
        reader.stdin.flush()
        read, waiting_mib, after_mib = map(float, reader.stdout.readline().split())
    finally:
        for process in (reader, writer):
            process.kill()
            process.communicate()
    assert read == WAITING
    assert waiting_mib - before_mib > (WAITING - 1) * IMAGE_MIB
    assert after_mib - before_mib < 2 * IMAGE_MIB


@pytest.mark.parametrize('skip_static', [False, True])
def test_while_a_frame_is_captioned_the_one_before_it_is_gone(make_bench, monkeypatch,
                                                              skip_static):
    frames = []

    def put(self, frame, slot=''):
        frames.append(weakref.ref(frame))
        return whole_put(self, frame, slot)
    whole_put = Mailbox.put
    monkeypatch.setattr(Mailbox, 'put', put)
    bench = make_bench(describe='scene', skip_static=skip_static).start()
    bench.advertise('image')
    bench.send((1, 0))
    bench.caption_of((1, 0))
    bench.captioner.gate.clear()
    bench.publish('image', image_msg(picture(RIGHT, LEFT), (2, 0)))
    wait_for(lambda: len(bench.captioner.calls) == 2)
    try:
        wait_for(lambda: frames[0]() is None, timeout_s=5)
        assert frames[1]() is not None
        assert bench.node.cameras[''].outcome.frame.header.stamp.sec == 1
    finally:
        bench.captioner.gate.set()
    bench.caption_of((2, 0))
