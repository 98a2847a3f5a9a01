# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A mailbox between threads with one slot for each sender: its newest item wins."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Mailbox(Generic[Item]):
    """Hands the newest items from one thread to another; an unread older one is dropped."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: dict[str, Item] = {}
        self._closed = False
        self.dropped = 0

    def put(self, item: Item, slot: str = '') -> bool:
        """Leave an item in a slot; return True when it replaced one that nobody had read."""
        with self._changed:
            if self._closed:
                return False
            replaced = slot in self._items
            self.dropped += replaced
            self._items[slot] = item
            self._changed.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> Item | None:
        """Wait for an item and remove it; None after the timeout or when closed."""
        with self._changed:
            self._wait(timeout_s)
            return self._items.pop(next(iter(self._items))) if self._items else None

    def take_all(self, timeout_s: float | None = None) -> list[Item]:
        """Wait for an item and remove those of all slots; none after the timeout or when closed.

        Nobody is waited for: a slot whose sender is slow or dead is left out.
        """
        with self._changed:
            self._wait(timeout_s)
            items = list(self._items.values())
            self._items.clear()
            return items

    def peek_all(self) -> list[Item]:
        """Return the items of all slots and leave them there."""
        with self._changed:
            return list(self._items.values())

    def close(self) -> None:
        """Wake whoever waits; nothing comes out any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """True after close()."""
        return self._closed

    def _wait(self, timeout_s: float | None) -> None:
        self._changed.wait_for(lambda: self._closed or bool(self._items), timeout_s)
