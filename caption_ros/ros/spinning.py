# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Running a node until SIGINT or SIGTERM, with a clean exit for both."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    MultiThreadedExecutor,
    SingleThreadedExecutor,
)
from rclpy.signals import SignalHandlerOptions

from caption_ros.errors import CaptionRosError

_LOOK_UP_S = 0.2  # how long a signal waits when nothing else happens


class _PatientExecutor(MultiThreadedExecutor):
    """Lets running callbacks end before it takes away what they report to.

    rclpy destroys its guard condition first, so that a callback that ends later prints an
    exception "never retrieved".
    """

    def shutdown(self, *args: Any, **kwargs: Any) -> bool:
        self._executor.shutdown(wait=True)
        return super().shutdown(*args, **kwargs)


def run_node(make_node: Callable[[], Any], args: Sequence[str] | None = None,
             threads: int = 1) -> None:
    """Init, spin until a signal comes, destroy the node, shut down."""
    # rclpy's own handlers shut the context down at once, under callbacks that still publish, and
    # let KeyboardInterrupt hit the clean-up when a terminal and a launcher both send SIGINT.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor: Executor = (SingleThreadedExecutor() if threads == 1
                          else _PatientExecutor(num_threads=threads))
    node = None
    try:
        node = make_node()
        executor.add_node(node)
        while not stop.is_set():
            executor.spin_once(timeout_sec=_LOOK_UP_S)
    except ExternalShutdownException:
        pass
    except CaptionRosError as error:
        raise SystemExit(f'caption_ros: {error}') from None
    finally:
        # First the executor: it lets callbacks end that still use the node.
        executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
