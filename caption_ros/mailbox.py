# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A one-slot mailbox between threads: the newest item wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Mailbox(Generic[Item]):
    """Hands the newest item from one thread to another; an unread older one is dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._closed = False
        self.dropped = 0

    def put(self, item: Item) -> bool:
        """Leave an item; return True when it replaced one that nobody had read."""
        with self._changed:
            if self._closed:
                return False
            replaced = self._item is not None
            self.dropped += replaced
            self._item = item
            self._changed.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> Item | None:
        """Wait for an item and remove it; None after the timeout or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._item is not None, timeout_s)
            item, self._item = (None if self._closed else self._item), None
            return item

    def close(self) -> None:
        """Wake whoever waits; nothing comes out any more."""
        with self._changed:
            self._closed = True
            self._item = None
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """True after close()."""
        return self._closed
