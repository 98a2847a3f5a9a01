# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import threading

from caption_ros.mailbox import Mailbox


def test_the_newest_wins_and_the_older_is_counted():
    box = Mailbox()
    assert box.put('old') is False
    assert box.put('new') is True
    assert box.take(0) == 'new' and box.dropped == 1


def test_nothing_is_taken_twice():
    box = Mailbox()
    box.put('item')
    assert [box.take(0), box.take(0)] == ['item', None]


def test_a_reader_wakes_for_an_item_from_another_thread():
    box, got = Mailbox(), []
    reader = threading.Thread(target=lambda: got.append(box.take(10)))
    reader.start()
    box.put('item')
    reader.join(10)
    assert got == ['item']


def test_close_wakes_the_reader_and_drops_what_is_left():
    box, got = Mailbox(), []
    reader = threading.Thread(target=lambda: got.append(box.take(10)))
    reader.start()
    box.close()
    reader.join(10)
    box.put('late')
    assert got == [None] and box.take(0) is None and box.is_closed


def test_a_closed_box_keeps_nothing():
    box = Mailbox()
    box.close()
    assert box.put('late') is False and box.put('later') is False
    assert box.dropped == 0 and not box._items


def test_every_item_is_read_or_counted_as_dropped():
    box, got = Mailbox(), []

    def read():
        while (item := box.take(10)) != 'end':
            got.append(item)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(2000):
        box.put(i)
    while box._items:  # the end must not push out the last item
        pass
    box.put('end')
    reader.join(10)
    assert got == sorted(set(got)) and got[-1] == 1999
    assert len(got) + box.dropped == 2000


def test_each_slot_keeps_its_newest_and_all_are_taken_together():
    box = Mailbox()
    assert [box.put('a1', 'a'), box.put('b1', 'b'), box.put('a2', 'a')] == [False, False, True]
    assert box.take_all(0) == ['a2', 'b1'] and box.dropped == 1
    assert box.take_all(0) == []
    box.put('b2', 'b')
    assert box.take_all(0) == ['b2']
