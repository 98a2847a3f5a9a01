# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros replay``: play a recording into ROS."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from caption_ros.errors import CaptionRosError, OptionError

if TYPE_CHECKING:
    from caption_ros.ros.replay import Replay

_MOST_SHOWN = 20


def replay(
    source: Path = typer.Argument(metavar='BAG', readable=False, help='Recording: a rosbag2 '
                                  'folder, .mcap, .db3 or a ROS 1 .bag. It is only read.'),
    topic: list[str] = typer.Option([], help='Topic to play; may be repeated. All by default.'),
    remap: list[str] = typer.Option([], metavar='FROM:=TO', help='Another name for a topic; may '
                                    'be repeated.'),
    rate: float = typer.Option(1.0, help='Seconds of the recording per second, 0.01 to 100.'),
    loop: bool = typer.Option(False, '--loop', help='Begin again at the end.'),
    start: float = typer.Option(0.0, metavar='SECONDS', help='Play from this second on.'),
    end: float = typer.Option(None, metavar='SECONDS', help='Play up to this second.'),
    clock: bool = typer.Option(True, '--clock/--no-clock', help='Publish /clock for nodes with '
                               'use_sim_time.'),
    paused: bool = typer.Option(False, '--paused', help='Begin paused.'),
    delay: float = typer.Option(1.0, metavar='SECONDS', help='Time for others to find the '
                                'publishers before the first message.'),
) -> None:
    """Play a recording into ROS: messages as recorded, at their times, with /clock.

    Space pauses and goes on, up and down change the rate, q ends.
    """
    _check_packages()
    from caption_ros.bags.recording import Recording
    from caption_ros.ros.replay import ReplayOptions

    options = ReplayOptions(topics=tuple(topic), rate=rate, loop=loop, start_s=start, end_s=end,
                            clock=clock, paused=paused, delay_s=delay)
    recording = Recording(source)
    for rule in remap:
        if len(rule.split(':=')) != 2:
            raise OptionError(f'--remap {rule} is no FROM:=TO, such as /camera/image:=/image')

    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from caption_ros.ros.replay import Replay
    from caption_ros.ros.spinning import ending
    try:
        rclpy.init(args=['--ros-args', *(word for rule in remap for word in ('-r', rule))],
                   signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has a kind of its own for each bad rule
        raise OptionError(f'--remap {" ".join(remap)} is refused by ROS: {error}') from error
    try:
        node = Replay(recording, options)
        try:
            with _running(node):
                _say_what_is_left_out(node)
                node.play()
            _print(node)
        finally:
            with ending():
                node.destroy_node()
    finally:
        with ending():
            rclpy.try_shutdown()
    if node.summary.damage:
        raise typer.Exit(1)


def _check_packages() -> None:
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError as error:
        raise OptionError('recordings need the package rosbags, which is not installed; run '
                          '"pip install rosbags"') from error
    from caption_ros.resources import config_path
    try:
        # Large images get lost without it, and the middleware reads it when it is loaded.
        os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(config_path('fastdds.xml')))
    except CaptionRosError:
        pass
    try:
        import rclpy  # noqa: F401
        from rosgraph_msgs.msg import Clock  # noqa: F401
    except ImportError as error:
        raise OptionError('replay needs ROS 2 (rclpy and rosgraph_msgs): source a ROS or run '
                          '"pip install caption_ros[ros]"') from error


@contextmanager
def _running(node: Replay) -> Iterator[None]:
    """Serve the node's services and keys on other threads; signals end the playing."""
    from caption_ros.ros.keyboard import DOWN, UP, keys
    from caption_ros.ros.spinning import spinning
    before = {number: signal.signal(number, lambda *_: node.stop())
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with spinning(node), keys({
                b' ': node.toggle, b'q': node.stop,
                UP: lambda: node.set_rate(node.playback.rate * 1.1),
                DOWN: lambda: node.set_rate(node.playback.rate / 1.1)}) as has_keys:
            if has_keys:
                typer.echo('space pauses, up and down change the rate, q ends', err=True)
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_is_left_out(node: Replay) -> None:
    from caption_ros.bags.files import printable
    for name, why in sorted(node.reasons.items()):
        count = node.summary.left_out[name]
        typer.echo(f'caption-ros: {printable(name)} is not played ({count} messages): {why}',
                   err=True)


def _print(node: Replay) -> None:
    from caption_ros.bags.files import printable
    summary = node.summary
    for damage in list(summary.damage)[:_MOST_SHOWN]:
        where = f'{damage.topic}: ' if damage.topic else ''
        typer.echo(f'caption-ros: skipped: {printable(where + damage.reason)}', err=True)
    if len(summary.damage) > _MOST_SHOWN:
        typer.echo(f'caption-ros: {len(summary.damage) - _MOST_SHOWN} more were skipped', err=True)
    passes = f'{summary.passes} times, ' if summary.passes > 1 else ''
    typer.echo(f'played {passes}{summary.published.total()} messages on '
               f'{len(summary.published)} topics, {summary.left_out.total()} not playable here, '
               f'at most {summary.latest_s:.3f} s late')
