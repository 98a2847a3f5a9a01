# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import String

from caption_ros.ros.spinning import NodeExecutor, spinning

MESSAGES = 20


@pytest.fixture
def node(ros):
    node = rclpy.create_node('spinning_test')
    yield node
    node.destroy_node()


def _spin_until(executor, done):
    until_s = time.monotonic() + 10
    while not done() and time.monotonic() < until_s:
        executor.spin_once(timeout_sec=0.2)
    assert done()


def _that_hears(node, heard):
    """Return an executor of a node that notes messages, and a publisher of them."""
    node.create_subscription(String, 'said', heard.append, 10)
    publisher = node.create_publisher(String, 'said', 10)
    executor = NodeExecutor()
    executor.add_node(node)
    _spin_until(executor, lambda: publisher.get_subscription_count() == 1)
    return executor, publisher


def test_a_message_is_waited_for_once(node, monkeypatch):
    heard, waits = [], []
    executor, publisher = _that_hears(node, heard)
    make = rclpy.executors._rclpy.WaitSet
    monkeypatch.setattr(rclpy.executors._rclpy, 'WaitSet',
                        lambda *sizes: waits.append(1) or make(*sizes))
    for i in range(MESSAGES):
        publisher.publish(String(data=str(i)))
        _spin_until(executor, lambda: len(heard) == i + 1)  # noqa: B023
        executor.spin_once(timeout_sec=0.02)  # a wait that ends with its timeout
    executor.shutdown()
    assert 2 * MESSAGES <= len(waits) < 2.5 * MESSAGES


def test_another_thread_wakes_it(node):
    executor = NodeExecutor()
    executor.add_node(node)
    executor.spin_once(timeout_sec=0.0)
    future = rclpy.task.Future()
    threading.Timer(0.2, lambda: future.set_result(1)).start()
    started_s = time.monotonic()
    executor.spin_until_future_complete(future, timeout_sec=10)
    executor.shutdown()
    assert future.done() and time.monotonic() - started_s < 5


def test_a_timer_that_is_always_due_leaves_the_others_their_turn(node):
    heard, ticks = [], []
    executor, publisher = _that_hears(node, heard)

    def tick():
        if not ticks:
            publisher.publish(String(data='here'))
        ticks.append(time.sleep(0.02))
    node.create_timer(0.01, tick)
    _spin_until(executor, lambda: heard)
    executor.shutdown()
    assert len(ticks) < 20


def test_a_slow_callback_leaves_the_others_running(node):
    group = MutuallyExclusiveCallbackGroup()
    heard, release = [], threading.Event()
    node.create_timer(0.01, lambda: release.wait(10), callback_group=group)
    node.create_timer(0.01, lambda: heard.append(1))
    executor = NodeExecutor((group,))
    executor.add_node(node)
    _spin_until(executor, lambda: len(heard) > 3)
    assert not release.is_set()
    release.set()
    executor.shutdown()


def test_a_slow_callback_is_handed_over_once_however_late_its_thread_begins(node, monkeypatch):
    group = MutuallyExclusiveCallbackGroup()
    calls, begun = [], threading.Event()
    node.create_timer(0.01, lambda: calls.append(1), callback_group=group).reset()
    executor = NodeExecutor((group,))
    executor.add_node(node)
    submit, handed = executor._pool.submit, []

    def submit_later(run, handler):
        handed.append(handler)
        return submit(lambda: begun.wait(10) and run(handler))

    monkeypatch.setattr(executor._pool, 'submit', submit_later)
    _spin_until(executor, lambda: handed)
    for _ in range(5):
        executor.spin_once(timeout_sec=0.02)
    assert len(handed) == 1 and not calls
    begun.set()
    _spin_until(executor, lambda: len(calls) > 1)  # and it goes on afterwards
    executor.shutdown()


def test_a_thread_that_is_about_to_wait_ends_as_well(node):
    here, go_on = threading.Event(), threading.Event()
    with spinning(node):
        executor = node.executor

        def nodes():
            here.set()
            go_on.wait(10)
            return [node]
        executor.get_nodes = nodes
        executor.wake()
        assert here.wait(10)  # past rclpy's question whether it was shut down, before it waits
        threading.Timer(0.5, go_on.set).start()
        left_s = time.monotonic()
    assert 0.3 < time.monotonic() - left_s < 5
    assert not any(thread.name == 'callbacks' for thread in threading.enumerate())


@pytest.mark.filterwarnings('error::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_context_may_be_shut_down_by_a_callback(monkeypatch):
    context = rclpy.Context()
    monkeypatch.setattr(rclpy.utilities, 'g_default_context', context)
    rclpy.init(args=[])
    node, shut = rclpy.create_node('shuts_down'), threading.Event()

    def shut_down():
        context.try_shutdown()
        shut.set()
    node.create_timer(0.01, shut_down)
    with spinning(node):
        assert shut.wait(10)
        for thread in threading.enumerate():
            if thread.name == 'callbacks':  # it ends by itself
                thread.join(10)
                assert not thread.is_alive()
    node.destroy_node()
