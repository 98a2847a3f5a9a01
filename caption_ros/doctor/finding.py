# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK, INFO, WARNING, PROBLEM = 'ok', 'info', 'warn', 'error'


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        level: ok, info, warn or error.
        text: What was found.
        fix: What to do about it; empty when there is nothing to do.
    """

    name: str
    level: str
    text: str
    fix: str = ''

    def to_dict(self) -> dict[str, str]:
        """Return the finding as JSON values."""
        return {'name': self.name, 'level': self.level, 'message': self.text, 'fix': self.fix}


def one_line(error: BaseException) -> str:
    """Return the first line of an error, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
