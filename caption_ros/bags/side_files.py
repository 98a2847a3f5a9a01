# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What lies beside the captioned recording: captions, subtitles and the page."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from caption_ros.bags.files import Message
from caption_ros.bags.images import parse
from caption_ros.bags.places import Places
from caption_ros.bags.recording import Recording
from caption_ros.bags.report import Report
from caption_ros.bags.subtitles import Subtitles
from caption_ros.message import image_from_msg
from caption_ros.record import JOINER

_MOST_WAITING = 8  # frames that wait for their picture, so that memory stays flat


class SideFiles:
    """Writes them into the work folder, frame by frame, the page on a thread of its own.

    Args:
        places: Where.
        recording: The recording.
        topics: Image topics.
        frames: How many frames will come.
        with_report: Make the page, too.
    """

    def __init__(self, places: Places, recording: Recording, topics: Sequence[str], frames: int,
                 *, with_report: bool) -> None:
        self._end_ns = recording.end_ns
        self._report: Report | None = None
        self._waiting: deque[Future[None]] = deque()
        with ExitStack() as files:
            self._lines = files.enter_context(
                (places.work / places.jsonl.name).open('w', encoding='utf-8'))
            self._subtitles = files.enter_context(
                Subtitles(places.work / places.vtt.name, places.work / places.srt.name,
                          recording.start_ns, several=len(topics) > 1))
            if with_report:
                self._report = files.enter_context(
                    Report(places.work / places.report.name, recording.path.resolve().name,
                           topics, recording.start_ns, recording.end_ns, frames))
            self._thread = ThreadPoolExecutor(1, 'report')
            files.callback(self._thread.shutdown, cancel_futures=True)
            self._files = files.pop_all()

    def __enter__(self) -> SideFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is not None:
            self._files.__exit__(kind, error, trace)
            return
        with self._files:
            self._subtitles.end(self._end_ns)
            self._wait(0)

    def add(self, message: Message, kept: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Write the captions of a frame.

        Args:
            message: Its image.
            kept: Its record in the journal.

        Returns:
            The text and the JSON values for the caption topics; no text when all captions of
            the frame are held back.
        """
        record = {name: value for name, value in kept.items() if name != 'outlines'}
        topic, received_ns = message.topic.name, message.received_ns
        self._lines.write(json.dumps({'topic': topic, 'received_ns': received_ns, **record},
                                     ensure_ascii=False) + '\n')
        record.pop('held_back', None)
        text = JOINER.join(caption['text'] for caption in record['captions'])
        if text:
            self._subtitles.add(topic, received_ns, text)
            if self._report is not None:
                self._waiting.append(self._thread.submit(
                    _show, self._report, message, record, kept['outlines']))
                self._wait(_MOST_WAITING)
        return text, record

    def _wait(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()


def _show(report: Report, message: Message, record: dict[str, Any], outlines: Any) -> None:
    rgb = image_from_msg(parse(message)) if report.wants_picture() else None
    report.add(message.topic.name, message.received_ns, record, outlines, rgb)
