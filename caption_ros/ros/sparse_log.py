# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A log of what goes wrong that does not fill up while it goes on going wrong."""

from __future__ import annotations

import time
from typing import Any

from caption_ros.health import Level, Status

_PERIOD_S = 5.0
_BAD_LOOKS = 3  # looks at which an input is bad before it is logged; a camera may start later


class SparseLog:
    """Logs a kind of trouble now and then only, and a bad input once.

    Args:
        logger: Logger of the node.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._warned_s: dict[str, float] = {}
        self._bad_looks: dict[str, int] = {}  # in a row, by input

    def warn(self, kind: str, text: str) -> None:
        """Log a warning, unless one of its kind was logged within 5 s; from any thread."""
        now_s = time.monotonic()
        if now_s - self._warned_s.get(kind, float('-inf')) >= _PERIOD_S:
            self._warned_s[kind] = now_s
            self._logger.warning(text)

    def look(self, status: Status) -> None:
        """Log what has been wrong with an input for three looks, once, and that it is well again.

        Args:
            status: Status of the input, once a second, but while its trouble was logged by warn.
        """
        looks = self._bad_looks.get(status.name, 0)
        self._bad_looks[status.name] = 0 if status.level is Level.OK else looks + 1
        if self._bad_looks[status.name] == _BAD_LOOKS:
            self._logger.warning(f'{status.name}: {status.message}')
        elif status.level is Level.OK and looks >= _BAD_LOOKS:
            self._logger.info(f'{status.name}: {status.message}')
