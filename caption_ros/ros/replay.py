# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A recording played into ROS: its messages at their times, and the clock they belong to.

recording -> read_ahead (thread) -> Replay.play (waits for each message's time) -> publishers
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from caption_ros.bags.files import Message, Skipped, Topic, one_line
from caption_ros.bags.playback import FASTEST, SLOWEST, PlaybackClock, check_rate, read_ahead
from caption_ros.bags.recording import Recording
from caption_ros.errors import OptionError, RecordingError
from caption_ros.ros.parameters import ParameterSpec, declare
from caption_ros.ros.replay_topics import NotPlayable, is_latched, make_publisher

_CLOCK = '/clock'
_TICK_S = 0.025  # of /clock while no message is due
_LEAST_TICK_S = 0.005
_FLUSH_S = 2.0
_BACK_NS = 10 ** 9  # further back than messages that are only out of order: times began again
_RATE = ParameterSpec('rate', 1.0, 'Seconds of the recording per second.', low=SLOWEST,
                      high=FASTEST)


@dataclass(frozen=True)
class ReplayOptions:
    """What to play.

    Attributes:
        topics: Topics to play; empty takes all.
        rate: Seconds of the recording per second, 0.01 to 100.
        loop: Begin again at the end, until stopped.
        start_s: First second of the recording.
        end_s: Second of the recording where to stop, or None.
        clock: Publish /clock.
        paused: Wait for resume before the first message.
        delay_s: Time between making the publishers and the first message.
    """

    topics: tuple[str, ...] = ()
    rate: float = 1.0
    loop: bool = False
    start_s: float = 0.0
    end_s: float | None = None
    clock: bool = True
    paused: bool = False
    delay_s: float = 1.0

    def __post_init__(self) -> None:
        check_rate(self.rate)
        for name, seconds in (('start', self.start_s), ('end', self.end_s)):
            if seconds is not None and not math.isfinite(seconds * 1e9):
                raise OptionError(f'{name} must be a number of seconds that a recording can '
                                  f'have, got {seconds!r}')
        if not self.start_s >= 0:
            raise OptionError(f'start must be 0 s or more, got {self.start_s!r}')
        if self.end_s is not None and not self.end_s > self.start_s:
            raise OptionError(f'end must be later than start, {self.start_s} s, got '
                              f'{self.end_s!r}')
        if not 0 <= self.delay_s <= 3600:
            raise OptionError(f'delay must be 0 to 3600 s, got {self.delay_s!r}')


@dataclass
class ReplaySummary:
    """What was played.

    Attributes:
        published: Messages published, by topic.
        passes: How often the recording was played to its end.
        left_out: Messages of topics that cannot be played, by topic, counted once.
        damage: What could not be read.
        latest_s: How late a message was published at worst, seconds.
    """

    published: Counter[str] = field(default_factory=Counter)
    passes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    damage: dict[Skipped, None] = field(default_factory=dict)
    latest_s: float = 0.0


class Replay(Node):
    """Plays a recording; ``rate`` is a parameter, pausing a service.

    Args:
        recording: The recording.
        options: What to play.

    Attributes:
        playback: The time of the recording.
        summary: What was played so far.
        reasons: Why topics cannot be played, by topic.
    """

    def __init__(self, recording: Recording, options: ReplayOptions = ReplayOptions()) -> None:
        """Make the publishers.

        Raises:
            OptionError: If a topic that is asked for is not there, or the time range is empty.
            RecordingError: If nothing can be played here.
        """
        super().__init__('replay')
        self.playback = PlaybackClock(options.rate, options.paused)
        self.summary = ReplaySummary()
        self.reasons: dict[str, str] = {}
        self._recording = recording
        self._options = options
        self._ticked_s = 0.0
        self._stop = threading.Event()
        self._begin_ns = recording.start_ns + round(options.start_s * 1e9)
        self._end_ns = (recording.end_ns if options.end_s is None
                        else recording.start_ns + round(options.end_s * 1e9))
        recording.check_start(options.start_s)
        for damage in recording.damage:
            self.summary.damage[damage] = None
        self._publishers_of = self._make_publishers()
        self._clock_publisher = (self.create_publisher(Clock, _CLOCK, QoSProfile(depth=10))
                                 if options.clock else None)
        declare(self, [_RATE])
        self.add_post_set_parameters_callback(self._on_rate)
        self.set_rate(options.rate)
        for name, action in (('pause', self.playback.pause), ('resume', self._resume),
                             ('toggle_paused', self.toggle)):
            self.create_service(Trigger, f'~/{name}', self._answer(action))

    def play(self) -> ReplaySummary:
        """Play until the end or until stop() is called by another thread."""
        while not self._stop.is_set():
            self._play_once()
            self.summary.passes += not self._stop.is_set()
            if not self._options.loop:
                break
            self._stop.wait(_TICK_S)  # a recording of one message is not a flood of it
        self._flush()
        return self.summary

    def stop(self) -> None:
        """End play(), also while it waits."""
        self._stop.set()
        self.playback.pause(self.playback.is_paused)  # wakes it

    def toggle(self) -> None:
        """Pause, or go on."""
        self.playback.pause(not self.playback.is_paused)

    def set_rate(self, rate: float) -> None:
        """Set the parameter ``rate``, and with it the pace; out of range is the nearest."""
        self.set_parameters([Parameter('rate', value=min(max(rate, SLOWEST), FASTEST))])

    def _make_publishers(self) -> dict[Topic, Any]:
        names = {topic.name.strip('/') for topic in self._recording.topics}
        wanted = {name.strip('/') for name in self._options.topics}
        for name in sorted(wanted - names):
            raise OptionError(f'--topic {name} is not in {self._recording.path}; it has '
                              f'{", ".join(sorted(names))}')
        publishers = {}
        for topic in self._recording.topics:
            if wanted and topic.name.strip('/') not in wanted:
                continue
            try:
                if self._options.clock and topic.name.strip('/') == _CLOCK.strip('/'):
                    raise NotPlayable('the clock of this replay takes its place')
                publishers[topic] = make_publisher(self, topic)
            except NotPlayable as error:
                self.reasons[topic.name] = str(error)
                self.summary.left_out[topic.name] += self._recording.counts[topic]
        if not publishers:
            reasons = '; '.join(f'{name}: {why}' for name, why in sorted(self.reasons.items()))
            raise RecordingError(f'nothing of {self._recording.path} can be played here: '
                                 f'{reasons}')
        return publishers

    def _play_once(self) -> None:
        messages = read_ahead(self._recording, list(self._publishers_of), self._damaged)
        has_begun = has_gone_back = False
        last_ns = 0
        try:
            for message in messages:
                if self._stop.is_set():
                    return
                has_gone_back |= message.received_ns <= last_ns - _BACK_NS
                last_ns = message.received_ns
                if message.received_ns < self._begin_ns:
                    if is_latched(message.topic.qos):
                        self._publish(message)
                    continue
                if not has_begun:
                    self._begin()
                    has_begun = True
                elif has_gone_back:
                    self._jump(message.received_ns)
                has_gone_back = False
                if message.received_ns > self._end_ns:
                    if self._recording.is_ordered:  # else earlier ones may come
                        break
                    continue
                if not self._publish_in_time(message):
                    return
        finally:
            messages.close()  # type: ignore[attr-defined]
        if not has_begun:
            self._begin()
        self._wait(min(self._end_ns, self._recording.end_ns))

    def _begin(self) -> None:
        """Set the time to the start; the first pass leaves others time to find the publishers."""
        delay_s = 0.0 if self.summary.passes else self._options.delay_s
        self._jump(self._begin_ns - round(delay_s * self.playback.rate * 1e9))

    def _jump(self, time_ns: int) -> None:
        self.playback.jump(time_ns)
        self._tick()

    def _wait(self, time_ns: int) -> bool:
        """Wait for a time of the recording; False when stopped."""
        while not self.playback.wait_until(time_ns, _TICK_S):
            self._tick()
            if self._stop.is_set():
                return False
        self._tick(_LEAST_TICK_S)
        return not self._stop.is_set()

    def _publish_in_time(self, message: Message) -> bool:
        """Publish a message when its time has come; False when stopped before."""
        if not self._wait(message.received_ns):
            return False
        late_ns = self.playback.now_ns() - message.received_ns
        self.summary.latest_s = max(self.summary.latest_s, late_ns / 1e9 / self.playback.rate)
        self._publish(message)
        return True

    def _publish(self, message: Message) -> None:
        try:
            self._publishers_of[message.topic].publish(bytes(message.data))
            self.summary.published[message.topic.name] += 1
        except RuntimeError as error:  # rclpy's RCLError
            self._damaged(Skipped(message.topic.name, message.received_ns, None,
                                  f'could not be published: {one_line(error)}'))

    def _flush(self) -> None:
        """Wait until all is received, for all publishers together at most 2 s."""
        ends_s = time.monotonic() + _FLUSH_S
        for publisher in self._publishers_of.values():
            left_s = max(ends_s - time.monotonic(), 0.0)  # a negative time would be for ever
            publisher.wait_for_all_acked(Duration(seconds=left_s))

    def _tick(self, least_s: float = 0.0) -> None:
        now_s = time.monotonic()
        if self._clock_publisher is not None and now_s >= self._ticked_s + least_s:
            self._ticked_s = now_s
            now_ns = max(self.playback.now_ns(), 0)
            self._clock_publisher.publish(
                Clock(clock=Time(sec=now_ns // 10 ** 9, nanosec=now_ns % 10 ** 9)))

    def _damaged(self, damage: Skipped) -> None:
        self.summary.damage[damage] = None  # the next pass meets the same

    def _resume(self) -> None:
        self.playback.pause(False)

    def _answer(self, action: Any) -> Any:
        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            action()
            response.success = True
            response.message = 'paused' if self.playback.is_paused else 'playing'
            return response
        return answer

    def _on_rate(self, parameters: list[Any]) -> None:
        for parameter in parameters:
            if parameter.name == 'rate':
                self.playback.set_rate(parameter.value)
