# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import threading
import time

import pytest
import rclpy
from std_msgs.msg import String

from caption_ros.ros.reader import Reader
from caption_ros.ros.spinning import make_executor
from caption_ros.ros.subscriptions import FollowingSubscription


def _until(ready, timeout_s=10.0):
    end_s = time.monotonic() + timeout_s
    while not ready() and time.monotonic() < end_s:
        time.sleep(0.01)
    return ready()


@pytest.fixture
def node(ros):
    node = rclpy.create_node('reader_test')
    yield node
    node.destroy_node()


@pytest.fixture
def reader(node):
    reader = Reader(node)
    yield reader
    reader.close()
    assert not reader._thread.is_alive()


def _talk(node, topic, heard):
    """Publish until something was heard; the first messages may go before both have met."""
    publisher = node.create_publisher(String, topic, 10)
    count = len(heard)

    def said():
        publisher.publish(String(data=topic))
        return len(heard) > count
    assert _until(said)


def test_messages_come_without_an_executor_and_on_the_readers_thread(node, reader):
    heard = []
    for topic in ('one', 'two'):  # the second is added while the reader waits for the first
        FollowingSubscription(
            node, String, topic,
            lambda message: heard.append((message.data, threading.current_thread().name)),
            lambda count: None, reader)
        _talk(node, topic, heard)
    assert set(heard) == {('one', 'reader'), ('two', 'reader')}


def test_an_executor_leaves_messages_and_their_events_to_the_reader(node, reader):
    heard = []
    subscription = FollowingSubscription(
        node, String, 'one', lambda message: heard.append(threading.current_thread().name),
        lambda count: None, reader)
    assert subscription._subscription.event_handlers
    executor = make_executor(node)
    for entity in (subscription._subscription, *subscription._subscription.event_handlers):
        assert not executor.can_execute(entity)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            executor.spin_once(0.05)
    spinner = threading.Thread(target=spin)
    spinner.start()
    _talk(node, 'one', heard)
    stop.set()
    spinner.join()
    executor.shutdown()
    assert set(heard) == {'reader'}


def test_a_callback_that_raises_does_not_end_the_reading(node, reader):
    heard = []

    def take(message):
        heard.append(message.data)
        raise ValueError('no')
    FollowingSubscription(node, String, 'one', take, lambda count: None, reader)
    _talk(node, 'one', heard)
    _talk(node, 'one', heard)


def test_after_closing_nothing_is_heard_and_others_still_are(node, reader):
    heard, others = [], []
    first = FollowingSubscription(node, String, 'one', heard.append, lambda count: None, reader)
    FollowingSubscription(node, String, 'two', others.append, lambda count: None, reader)
    _talk(node, 'one', heard)
    first.close()
    _talk(node, 'two', others)
    count = len(heard)
    publisher = node.create_publisher(String, 'one', 10)
    for _ in range(20):
        publisher.publish(String())
        time.sleep(0.01)
    assert len(heard) <= count + 1  # one may have been on its way


def test_a_subscription_may_be_closed_while_its_message_is_in_work(node, reader):
    begun, go_on, others = threading.Event(), threading.Event(), []

    def take(message):
        begun.set()
        assert go_on.wait(10)
    first = FollowingSubscription(node, String, 'one', take, lambda count: None, reader)
    FollowingSubscription(node, String, 'two', others.append, lambda count: None, reader)
    publisher = node.create_publisher(String, 'one', 10)

    def said():
        publisher.publish(String())
        return begun.is_set()
    assert _until(said)
    first.close()
    go_on.set()
    _talk(node, 'two', others)


def test_lost_messages_are_told(node, reader):
    lost = []
    subscription = FollowingSubscription(node, String, 'one', lambda message: None, lost.append,
                                         reader)
    (event,) = [event for event in subscription._subscription.event_handlers
                if 'LOST' in str(event.event_type)]

    class _Data:
        total_count_change = 3
    event.is_ready = lambda wait_set: True
    event.take_data = lambda: _Data() if not lost else None
    _talk(node, 'one', lost)
    assert lost == [3]


def test_messages_replaced_before_they_were_read_are_missed(node, reader):
    begun, go_on, heard, missed, lost = threading.Event(), threading.Event(), [], [], []

    def take(message):
        heard.append(int(message.data))
        begun.set()
        assert go_on.wait(10)
    FollowingSubscription(node, String, 'one', take, lost.append, reader, on_missed=missed.append)
    publisher = node.create_publisher(String, 'one', 50)
    numbers = iter(range(1000))

    def said():
        publisher.publish(String(data=str(next(numbers))))
        return begun.is_set()
    assert _until(said)
    for _ in range(40):  # more than wait
        said()
    go_on.set()
    assert _until(lambda: said() and missed)
    time.sleep(0.2)
    said()
    last = next(numbers) - 1
    assert _until(lambda: heard[-1] == last)
    assert sum(missed) >= 30 and not lost
    assert len(heard) + sum(missed) == last - heard[0] + 1


def test_messages_of_several_publishers_are_not_taken_for_gaps(node, reader):
    heard, missed = [], []
    FollowingSubscription(node, String, 'one', heard.append, lambda count: None, reader,
                          on_missed=missed.append)
    for _ in range(3):  # one after the other, and the first once more
        _talk(node, 'one', heard)
    publishers = [node.create_publisher(String, 'one', 10) for _ in range(2)]
    for i in range(40):
        count = len(heard)
        publishers[i // 5 % 2].publish(String())
        assert i < 5 or _until(lambda count=count: len(heard) > count)
        time.sleep(0.01)
    assert not missed


@pytest.mark.parametrize('numbers, missed', [
    ([1, 5, 6, 7], [3]), ([1, 3, 4, 9], [1, 4]), ([7, 1, 2, 3], []),  # they begin again
    ([None, None, None], [])])  # a middleware without numbers
def test_what_is_missing_is_told_by_the_publishers_numbers(node, reader, numbers, missed):
    told = []
    subscription = FollowingSubscription(node, String, 'one', lambda message: None,
                                         lambda count: None, reader, on_missed=told.append)
    for number in numbers:
        subscription._on_message(String(), {'publication_sequence_number': number,
                                            'publisher_gid': {'data': b'it'}})
    assert told == missed


def test_a_loss_that_cannot_be_is_not_counted(node, reader):
    lost = []
    subscription = FollowingSubscription(node, String, 'one', lambda message: None, lost.append,
                                         reader)
    for count in (3, 0, 18446744071562067968, 2147483647, 1):  # Fast DDS tells of such
        subscription._on_message_lost(count)
    assert lost == [3, 1]


def test_without_the_publishers_name_gaps_of_a_single_one_are_told(node, reader):
    missed = []
    publishers = [node.create_publisher(String, 'one', 10)]
    subscription = FollowingSubscription(node, String, 'one', lambda message: None,
                                         lambda count: None, reader, on_missed=missed.append)
    assert _until(lambda: subscription.follow() or subscription.publishers == 1)
    for number in (1, 2, 5, 6):
        subscription._on_message(String(), {'publication_sequence_number': number})
    assert missed == [2]
    publishers.append(node.create_publisher(String, 'one', 10))
    assert _until(lambda: subscription.follow() or subscription.publishers == 2)
    for number in (9, 20, 30, 31):
        subscription._on_message(String(), {'publication_sequence_number': number})
    assert missed == [2]


def test_a_context_that_shuts_down_waits_for_nobody_and_ends_the_reading():
    """It holds its lock while it destroys its nodes, whose readers must not ask it anything."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)

    class _Node(rclpy.node.Node):
        def destroy_node(self):
            subscription.close()
            time.sleep(0.2)  # the reader looks round meanwhile
            reader.close()
            super().destroy_node()
    node = _Node('reader_test', context=context)
    reader = Reader(node)
    subscription = FollowingSubscription(node, String, 'one', print, lambda count: None, reader)
    time.sleep(1)  # or the node might hear of others as it ends, where Fast DDS 3.2 hangs
    stopper = threading.Thread(target=context.shutdown, daemon=True)
    stopper.start()
    stopper.join(10)
    assert not stopper.is_alive() and not context.ok()
    assert _until(lambda: not reader._thread.is_alive())


def test_a_message_that_cannot_be_taken_is_told_and_the_next_are_heard(node, reader, capfd):
    heard, told = [], []
    follower = FollowingSubscription(node, String, 'one', heard.append, lambda count: None, reader)
    _talk(node, 'one', heard)
    follower._subscription.msg_type = object
    publisher = node.create_publisher(String, 'one', 10)

    def is_told():
        publisher.publish(String())
        told.append(capfd.readouterr().err)
        return 'a message of /one was dropped: ' in ''.join(told)
    assert _until(is_told)
    follower._subscription.msg_type = String
    _talk(node, 'one', heard)


def test_an_event_that_cannot_be_told_does_not_end_the_reading(node, reader, capfd):
    heard, failures = [], []
    follower = FollowingSubscription(node, String, 'one', heard.append, lambda count: None, reader)
    event = follower._subscription.event_handlers[0]

    def fail(wait_set):
        if not failures:
            failures.append(1)
            raise ValueError('an event of its own kind')
        return False
    event.is_ready = fail
    publisher = node.create_publisher(String, 'one', 10)

    def is_heard_afterwards():
        publisher.publish(String())
        if failures and len(failures) == 1:
            failures.append(len(heard))
        return len(failures) == 2 and len(heard) > failures[1] + 1
    assert _until(is_heard_afterwards)
    assert 'ValueError: an event of its own kind' in capfd.readouterr().err


def test_closing_twice_is_no_error(node):
    reader = Reader(node)
    follower = FollowingSubscription(node, String, 'one', print, lambda count: None, reader)
    reader.close()
    reader.close()
    follower.close()


def test_the_publishers_of_a_swapped_topic_are_followed(ros):
    node = rclpy.create_node('swapped', cli_args=['--ros-args', '-r', 'one:=/two', '-r',
                                                  'two:=/one'])
    reader = Reader(node)
    other = rclpy.create_node('talker')
    try:
        other.create_publisher(String, 'two', 10)
        follower = FollowingSubscription(node, String, 'one', print, lambda count: None, reader)
        assert follower.topic == '/two'

        def is_followed():
            follower.follow()
            return follower.publishers == 1 and follower.reliable
        assert _until(is_followed)
    finally:
        reader.close()
        node.destroy_node()
        other.destroy_node()
