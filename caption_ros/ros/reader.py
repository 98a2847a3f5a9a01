# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images and masks taken on a thread of their own, past rclpy's executor.

For each message an executor looks at every timer, service and event of the node and makes a new
wait set of them all, in Python: four times the processor time of taking an image, and a model on
all cores waits for whatever runs on one of them. Here a message wakes a thread that waits for
nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.subscription import Subscription

from caption_ros.ros.taking import Take, take_of

# Takes a message and what rclpy tells of it.
_Callback = Callable[[Any, dict[str, Any]], None]
_FOREVER_NS = -1
_PAUSE_S = 0.1
_COMPLAINT_PERIOD_S = 5.0


class _NoExecutor(CallbackGroup):
    """Keeps executors from its entities."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Reader:
    """Waits for messages and events of subscriptions and calls their callbacks, one at a time.

    Args:
        node: Node of the subscriptions.

    Attributes:
        group: Callback group that they are created with.
    """

    def __init__(self, node: Node) -> None:
        self._context = node.context
        self._logger = node.get_logger()
        self.group = _NoExecutor()
        self._lock = threading.Lock()
        self._callbacks: dict[Subscription, tuple[Take, _Callback]] = {}
        self._closed = False
        self._changed = GuardCondition(None, None, context=self._context)
        self._context.on_shutdown(self._wake)
        self._thread = threading.Thread(target=self._run, name='reader', daemon=True)
        self._thread.start()

    def add(self, subscription: Subscription, callback: _Callback) -> None:
        """Hand a subscription's messages to a callback, on the reader's thread, from now on.

        It takes the message and what rclpy tells of it: by name its times, its publisher and the
        number that this one gave it. A serialized message is a view of memory that is used again
        when no view is left.
        """
        with self._lock:
            self._callbacks[subscription] = take_of(subscription), callback
        self._wake()

    def remove(self, subscription: Subscription) -> None:
        """Take no more of a subscription's messages; one may be in its callback still."""
        with self._lock:
            self._callbacks.pop(subscription, None)
        self._wake()

    def close(self) -> None:
        """End the thread."""
        if self._closed:
            return
        self._closed = True
        self._changed.trigger()
        self._thread.join()
        self._changed.destroy()

    def _wake(self) -> None:
        if not self._closed:
            self._changed.trigger()

    def _is_up(self) -> bool:
        # Not Context.ok(): a context that shuts down holds its lock while nodes wait for close().
        try:
            handle = self._context.handle
            with handle:
                return bool(handle.ok())
        except InvalidHandle:
            return False

    def _run(self) -> None:
        while not self._closed and self._is_up():
            try:
                self._read()
            except InvalidHandle:  # of one that was removed while a message was in work
                continue
            except Exception as error:  # a thread that ends would leave the node deaf
                if self._is_up():
                    self._complain(f'messages are not read for {_PAUSE_S} s: '
                                   f'{type(error).__name__}: {error}')
                    time.sleep(_PAUSE_S)

    def _read(self) -> None:
        """Take messages and events until the subscriptions change."""
        with self._lock:
            callbacks = dict(self._callbacks)
        with ExitStack() as held:
            for subscription in list(callbacks):
                try:
                    for entity in (subscription.handle, *subscription.event_handlers):
                        held.enter_context(entity)
                except InvalidHandle:  # destroyed meanwhile
                    del callbacks[subscription]
            held.enter_context(self._changed.handle)
            held.enter_context(self._context.handle)
            self._read_from(callbacks)

    def _read_from(self, callbacks: dict[Subscription, tuple[Take, _Callback]]) -> None:
        # Events as well: an executor that waits for them is woken by each message, too.
        events = [event for subscription in callbacks for event in subscription.event_handlers]
        wait_set = rclpy_implementation.WaitSet(
            len(callbacks), 1, 0, 0, 0, len(events), self._context.handle)
        while True:
            wait_set.clear_entities()
            for subscription in callbacks:
                wait_set.add_subscription(subscription.handle)
            for event in events:
                event.add_to_wait_set(wait_set)
            wait_set.add_guard_condition(self._changed.handle)
            wait_set.wait(_FOREVER_NS)
            if self._changed.handle.pointer in wait_set.get_ready_entities('guard_condition'):
                return
            ready = wait_set.get_ready_entities('subscription')
            for subscription, (take, callback) in callbacks.items():
                if subscription.handle.pointer in ready:
                    self._take(subscription, take, callback)
            for event in events:
                if event.is_ready(wait_set):
                    data = event.take_data()
                    if data:
                        event.callback(data)

    def _take(self, subscription: Subscription, take: Take, callback: _Callback) -> None:
        try:
            taken = take()
            if taken is not None:
                callback(*taken)
        except Exception as error:
            if isinstance(error, InvalidHandle) and subscription not in self._callbacks:
                return  # closed while a message of another was in work
            self._complain(f'a message of {subscription.topic_name} was dropped: '
                           f'{type(error).__name__}: {error}')

    def _complain(self, text: str) -> None:
        self._logger.error(text, throttle_duration_sec=_COMPLAINT_PERIOD_S)
