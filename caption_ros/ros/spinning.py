# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Running a node until SIGINT or SIGTERM, with a clean exit for both."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import rclpy
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    ConditionReachedException,
    Executor,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.signals import SignalHandlerOptions

from caption_ros.errors import CaptionRosError

_MORE_THREADS = 8  # for callbacks of a reentrant group that wait side by side
_END_TIMEOUT_S = 8.0
_CLEAN_UP_TIMEOUT_S = 30.0  # in all; see ending()
_LOOK_UP_S = 0.5  # how long a signal waits when nothing else happens; a look costs a millisecond


class NodeExecutor(Executor):
    """Runs quick callbacks on the spinning thread, those of slow groups on threads of their own.

    A thread pool for all callbacks costs two to three times the processor time for each image
    that comes, and with it the interpreter lock that inference needs; one thread for all would
    leave parameter services and diagnostics waiting while a model loads.

    Args:
        slow_groups: Callback groups whose callbacks may take long.
    """

    def __init__(self, slow_groups: Sequence[CallbackGroup] = ()) -> None:
        super().__init__()
        self._slow_groups = tuple(slow_groups)
        self._pool = ThreadPoolExecutor(len(self._slow_groups) + _MORE_THREADS, 'slow_callback')
        self._running: list[Future[Any]] = []
        self._spinner = 0
        self._calm_guard()

    def _calm_guard(self) -> None:
        """Let no callback of the spinning thread wake the spinning thread.

        rclpy does so twice for each callback, so that other threads see what has changed, and
        waits once more for nothing: half of what an image costs. The next wait looks at all.
        """
        guard = getattr(self, '_guard', None)
        if guard is None:  # not so in this release: slower, and as right
            return
        trigger = guard.trigger

        def trigger_from_elsewhere() -> None:
            if threading.get_ident() != self._spinner:
                trigger()
        guard.trigger = trigger_from_elsewhere

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it, or start it on its thread."""
        self._spin_once(timeout_sec, _never)

    def _spin_once(self, timeout_sec: Any, ready: Callable[[], bool]) -> None:
        self._spinner = threading.get_ident()
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec, None, ready)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        except InvalidHandle:
            return  # a slow callback destroyed a subscription that was about to be waited for
        except RuntimeError as error:  # rclpy's RCLError, where it shut down before the wait
            if self.context.ok():
                raise
            raise ExternalShutdownException from error
        if entity is not None and entity.callback_group in self._slow_groups:
            self._hand_over(handler)
            self._running.append(self._pool.submit(_run, handler))
            ended = [future for future in self._running if future.done()]
            self._running = [future for future in self._running if not future.done()]
            for future in ended:
                future.result()  # raises what the callback raised
        else:
            _run(handler)

    def _hand_over(self, handler: Any) -> None:
        """Let rclpy forget a handler that a thread of the pool is about to run.

        Else rclpy offers it again without a wait until that thread has begun, which takes as long
        as the spinning thread keeps the interpreter lock.
        """
        if hasattr(self, '_tasks') and hasattr(self, '_tasks_lock'):
            with self._tasks_lock:
                self._tasks = [task for task in self._tasks if task[0] is not handler]

    def spin_once_until_future_complete(self, future: Any, timeout_sec: Any = None) -> None:
        """Run one callback; rclpy asks every executor for this."""
        future.add_done_callback(lambda _: self.wake())
        self._spin_once(timeout_sec, future.done)

    _spin_once_until_future_complete = spin_once_until_future_complete  # its name since Jazzy

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Let slow callbacks end before what they report to is taken away.

        rclpy destroys its guard condition first, so that a callback that ends later prints an
        exception "never retrieved".

        Returns:
            False when some did not end in time; nothing is taken away then.
        """
        self._pool.shutdown(wait=False)
        late = wait(self._running, timeout_sec).not_done
        return not late and bool(super().shutdown(timeout_sec))


def _never() -> bool:
    """Return False.

    A lambda would be another object at each call, at which rclpy forgets what else was ready. It
    offers timers first, so one that is always due would keep all else waiting for ever.
    """
    return False


def _run(handler: Any) -> None:
    handler()
    if handler.done():
        handler.result()  # raises what the callback raised


def _leave() -> NoReturn:
    """End the process: what loads a model cannot be interrupted, and Python would wait for it."""
    print(f'caption_ros: a callback did not end within {_END_TIMEOUT_S:.0f} s, a model that loads '
          'perhaps; the process ends without it', file=sys.stderr, flush=True)
    os._exit(0)


def make_executor(*nodes: Any) -> NodeExecutor:
    """Return an executor with nodes in it; ``slow_groups`` of a node names its slow groups."""
    executor = NodeExecutor([
        group for node in nodes for group in getattr(node, 'slow_groups', ())])
    for node in nodes:
        executor.add_node(node)
    return executor


@contextmanager
def spinning(*nodes: Any) -> Iterator[None]:
    """Run the callbacks of nodes on a thread, which has ended when this ends.

    rclpy's shutdown() takes away what wakes a thread that waits, and one that was just about to
    wait would do so for ever. So the thread ends before it.
    """
    executor = make_executor(*nodes)
    ended = threading.Event()

    def spin() -> None:
        with suppress(ExternalShutdownException):
            while not ended.is_set():
                executor._spin_once(None, ended.is_set)

    thread = threading.Thread(target=spin, name='callbacks', daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        executor.wake()
        thread.join()
        executor.shutdown()


@contextmanager
def ending() -> Iterator[None]:
    """End the process, with status 1 and its threads' stacks, if this takes longer than 30 s.

    For what destroys a node: news of another node that come just then can have Fast DDS 3.2 wait
    for ever, and rclpy holds the interpreter's lock meanwhile. What ends the process needs none.
    """
    if sys.stdout is not None:
        sys.stdout.flush()  # or what was said would be lost
    faulthandler.dump_traceback_later(_CLEAN_UP_TIMEOUT_S, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_node(make_node: Callable[[], Any], args: Sequence[str] | None = None) -> None:
    """Init, spin until a signal comes, destroy the node, shut down."""
    # rclpy's own handlers shut the context down at once, under callbacks that still publish, and
    # let KeyboardInterrupt hit the clean-up when a terminal and a launcher both send SIGINT.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor: Executor | None = None
    node = None
    try:
        node = make_node()
        executor = make_executor(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=_LOOK_UP_S)
    except ExternalShutdownException:
        pass
    except CaptionRosError as error:
        raise SystemExit(f'caption_ros: {error}') from None
    finally:
        with ending():
            # First the executor: it lets callbacks end that still use the node.
            if executor is not None and not executor.shutdown(_END_TIMEOUT_S):
                _leave()
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
