# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Serialized messages in memory that is used again, and never while somebody looks at it."""

from __future__ import annotations

import errno
import gc
import os
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nodebench import wait_for
from sensor_msgs.msg import Image

from caption_ros.cdr import read_image
from caption_ros.ros import taking
from caption_ros.ros.taking import Memory, take_of

if rclpy.get_rmw_implementation_identifier() != taking._MIDDLEWARE:
    pytest.skip(f'needs {taking._MIDDLEWARE}', allow_module_level=True)


@pytest.fixture
def pair(ros):
    """Return a publisher and a raw subscription that have met."""
    node = rclpy.create_node('taking_test')
    subscription = node.create_subscription(Image, 'taken', lambda image: None, 10, raw=True)
    publisher = node.create_publisher(Image, 'taken', 10)
    wait_for(lambda: publisher.get_subscription_count() > 0)
    yield publisher, subscription
    node.destroy_node()


def _image(value, size):
    return Image(width=size, height=1, step=size, encoding='mono8', data=bytes([value]) * size)


def _is(data, image):
    """Tell whether a serialized message is an image; what lies between its fields may be all."""
    read = read_image(data)
    return (read.width, read.step, read.encoding, bytes(read.data)) == (
        image.width, image.step, image.encoding, image.data.tobytes())


def _sent(publisher, take, image):
    """Return a message that was sent, and what was told of it."""
    publisher.publish(image)
    taken = []
    wait_for(lambda: taken or taken.extend(filter(None, [take()])))
    return taken[0]


def test_messages_of_any_size_come_whole_and_with_their_numbers(pair):
    publisher, subscription = pair
    take, numbers, publishers = take_of(subscription), [], set()
    assert isinstance(take, taking._Taker)
    assert take() is None
    for size in (10, 5000, 1 << 20, 1 << 21, 3, 0, 1 << 20):
        data, info = _sent(publisher, take, _image(7, size))
        assert _is(data, _image(7, size))
        assert data.readonly
        numbers.append(info['publication_sequence_number'])
        publishers.add(info['publisher_gid']['data'])
        assert 0 < info['source_timestamp'] <= info['received_timestamp']
    assert numbers == list(range(1, 8))
    assert len(publishers) == 1


def test_what_is_told_is_what_rclpy_tells(pair):
    publisher, subscription = pair
    rclpys = subscription.handle.take_message
    _, ours = _sent(publisher, take_of(subscription), _image(1, 1))
    data, theirs = _sent(publisher, lambda: rclpys(Image, True), _image(1, 1))
    assert _is(data, _image(1, 1))
    told = theirs.get('publisher_gid')  # Jazzy does not tell
    assert told is None or told['data'][:16] == ours['publisher_gid']['data']
    assert theirs['publication_sequence_number'] == ours['publication_sequence_number'] + 1


@pytest.mark.filterwarnings('ignore:The given')  # torch has no tensors that are read only
def test_an_image_that_is_looked_at_stays_and_its_memory_is_used_again_after(pair):
    publisher, subscription = pair
    take, size = take_of(subscription), 1 << 20
    looks = []
    for value, look in enumerate((lambda view: view[5:], lambda view: np.frombuffer(view, 'u1'),
                                  lambda view: np.frombuffer(view, 'u1')[::2].reshape(2, -1).T,
                                  lambda view: torch.from_numpy(np.asarray(view)[3:]),
                                  lambda view: torch.frombuffer(view, dtype=torch.uint8)[9:])):
        data, _ = _sent(publisher, take, _image(value, size))
        looks.append(look(read_image(data).data))
    del data
    places = set()
    for _ in range(10):
        data, _ = _sent(publisher, take, _image(255, size))
        places.add(np.frombuffer(data, 'u1').ctypes.data)
    assert [set(np.asarray(look).flat) for look in looks] == [{0}, {1}, {2}, {3}, {4}]
    assert len(places) <= 2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 40_000)), max_size=60))
def test_no_two_have_the_same_memory_at_a_time(steps):
    memory, held = Memory(), {}
    for value, (slot, keep, size) in enumerate(steps):
        lent = memory.lend(size)
        assert lent.size >= size
        lent[:] = value
        held[slot] = (value, memoryview(lent)[::3]) if keep else (value, None)
        del lent
        for number, view in held.values():
            assert view is None or (np.asarray(view) == number).all()


def test_what_was_idle_for_long_is_given_back():
    memory = Memory()
    held = [memory.lend(1000) for _ in range(30)]
    del held
    assert len(memory._idle) == taking._MOST_IDLE
    idle = [weakref.ref(whole) for whole in memory._idle]
    for _ in range(taking._LOOK_BACK):
        views = [memory.view(memory.lend(), 1000) for _ in range(3)]
        del views
    assert len(memory._idle) == 3
    assert sum(whole() is None for whole in idle) == taking._MOST_IDLE - 3


def test_a_smaller_memory_is_given_back_once_a_larger_message_came():
    memory = Memory()
    held = [memory.lend(), memory.lend()]
    memory.lend(100_000)
    del held
    assert {len(idle) for idle in memory._idle} == {memory._size}
    assert memory.lend().size >= 100_000


def test_after_a_large_message_small_ones_have_small_memory():
    memory = Memory()
    memory.view(memory.lend(1_000_000), 1_000_000)
    for _ in range(2 * taking._LOOK_BACK):
        assert memory.view(memory.lend(), 50_000).nbytes == 50_000
    assert [len(idle) for idle in memory._idle] == [memory._size]
    assert 50_000 <= memory._size < 100_000


def test_what_cannot_be_taken_is_told_each_time_anew(pair):
    taker = taking._Taker(taking._library(), SimpleNamespace(handle=SimpleNamespace(pointer=0)))
    for _ in range(2):
        with pytest.raises(RuntimeError, match='returned 400: subscription pointer is invalid'):
            taker()


@pytest.mark.parametrize('has_some', [True, False])
def test_a_message_that_memory_is_short_for_is_an_error_and_the_next_one_comes(
        pair, monkeypatch, has_some):
    publisher, subscription = pair
    take = take_of(subscription)
    if has_some:
        assert take() is None

    def none_left(size):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    with monkeypatch.context() as patch:
        patch.setattr(taking, '_mapping', none_left)
        with pytest.raises(RuntimeError, match=r'returned 1[0-9]*: '):
            _sent(publisher, take, _image(1, 1 << 20))
    data, _ = _sent(publisher, take, _image(2, 1 << 20))
    assert _is(data, _image(2, 1 << 20))


def test_a_subscription_that_ended_leaves_no_memory_to_the_garbage_collector(pair):
    publisher, subscription = pair
    take = take_of(subscription)
    data, _ = _sent(publisher, take, _image(1, 1 << 20))
    del data
    memory = weakref.ref(take._place.memory)
    idle = weakref.ref(take._place.memory._idle[0])
    gc.disable()
    try:
        del take
        assert memory() is None and idle() is None
    finally:
        gc.enable()


def test_memory_that_comes_back_while_the_size_changes_is_not_lent():
    memory = Memory()
    memory._idle.append(taking._mapping(taking._FIRST_SIZE))
    memory._size = 10 * taking._FIRST_SIZE
    assert memory.lend().size == 10 * taking._FIRST_SIZE


def test_another_middleware_is_left_to_rclpy(monkeypatch):
    monkeypatch.setattr(rclpy, 'get_rmw_implementation_identifier', lambda: 'rmw_other')
    assert taking._library.__wrapped__() is None


def test_where_rcl_has_another_name_rclpy_takes_them(pair, monkeypatch):
    publisher, subscription = pair
    monkeypatch.setattr(taking, '_library', lambda: None)
    data, info = _sent(publisher, take_of(subscription), _image(3, 10))
    assert isinstance(data, bytes) and _is(data, _image(3, 10))
    assert info['publication_sequence_number'] == 1
