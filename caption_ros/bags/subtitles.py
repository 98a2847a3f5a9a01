# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captions as subtitles, WebVTT and SubRip, written while they come."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

_LEAST_NS = 1_000_000_000  # how long the last caption is shown at least


class Subtitles:
    """Writes a .vtt and a .srt file of the same cues.

    A caption stays until the next one of its topic; equal ones become one cue. With several
    topics a cue has one line for each, under the topic's name.

    Args:
        vtt: Path of the WebVTT file.
        srt: Path of the SubRip file.
        start_ns: Time of receipt that is 0:00, nanoseconds.
        several: True when captions of several topics come.
    """

    def __init__(self, vtt: Path, srt: Path, start_ns: int, *, several: bool = False) -> None:
        self._vtt = vtt.open('w', encoding='utf-8')
        self._srt = srt.open('w', encoding='utf-8')
        self._start_ns = start_ns
        self._several = several
        self._texts: dict[str, str] = {}
        self._since_ns = start_ns
        self._cues = 0
        self._vtt.write('WEBVTT\n')

    def __enter__(self) -> Subtitles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._vtt.close()
        self._srt.close()

    def add(self, topic: str, received_ns: int, text: str) -> None:
        """Show a text of a topic from now on; times do not go back."""
        text = ' '.join(text.split())
        if self._texts.get(topic) != text:
            self._show_until(received_ns)
            self._texts[topic] = text

    def end(self, end_ns: int) -> None:
        """Write the last cue, up to the end of the recording."""
        self._show_until(max(end_ns, self._since_ns + _LEAST_NS))

    def _show_until(self, now_ns: int) -> None:
        if self._texts and now_ns > self._since_ns:
            self._cues += 1
            lines = [f'{topic}: {text}' if self._several else text
                     for topic, text in self._texts.items()]
            span = (self._since_ns - self._start_ns, now_ns - self._start_ns)
            vtt = '\n'.join(lines).replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
            self._vtt.write(f'\n{_clock(span[0], ".")} --> {_clock(span[1], ".")}\n{vtt}\n')
            text = '\n'.join(lines)
            self._srt.write(f'{self._cues}\n{_clock(span[0], ",")} --> {_clock(span[1], ",")}\n'
                            f'{text}\n\n')
        self._since_ns = max(now_ns, self._since_ns)


def _clock(offset_ns: int, point: str) -> str:
    milliseconds = max(offset_ns, 0) // 1_000_000
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours:02d}:{minutes:02d}:{seconds:02d}{point}{milliseconds:03d}'
