# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What has been computed of objects, for as long as these live."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

Value = TypeVar('Value')


class Memo(Generic[Value]):
    """Keeps a value for each of some objects, which need be neither hashable nor comparable.

    Threads may share it. An object's value goes when the object does.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Any], Value]] = {}

    def keep(self, thing: Any, value: Value) -> None:
        """Keep the value of an object; the object must not be changed from now on."""
        key = id(thing)

        def forget(gone: weakref.ref[Any]) -> None:
            kept = self._kept.get(key)
            if kept is not None and kept[0] is gone:  # another object may have its number by now
                del self._kept[key]
        self._kept[key] = weakref.ref(thing, forget), value

    def get(self, thing: Any) -> Value | None:
        """Return the value of an object, or None."""
        kept = self._kept.get(id(thing))
        return kept[1] if kept is not None and kept[0]() is thing else None

    def __len__(self) -> int:
        """Return how many values are kept."""
        return len(self._kept)
