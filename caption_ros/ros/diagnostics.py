# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Statuses to diagnostic messages, and what to do about images that do not arrive."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from caption_ros.errors import CaptionRosError
from caption_ros.health import Status
from caption_ros.resources import config_path
from caption_ros.ros.shared_memory import is_cut_off

PROFILE = 'fastdds.xml'
LOST_SHARE = 0.01  # fewer lost frames than that are no reason to warn


def diagnostics_msg(statuses: Iterable[Status], node_name: str, hardware_id: str, stamp: Time,
                    ) -> DiagnosticArray:
    """Make the message of the ``/diagnostics`` topic."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [
        DiagnosticStatus(
            level=bytes([status.level]), name=f'{node_name}: {status.name}',
            message=status.message, hardware_id=hardware_id,
            values=[KeyValue(key=key, value=value) for key, value in status.values.items()])
        for status in statuses
    ]
    return message


def transport_hint(best_effort: bool, is_silent: bool) -> str:
    """Say what helps when a publisher is there and its images do not arrive.

    Args:
        best_effort: Whether the publisher offers no more.
        is_silent: Whether no image arrives at all, of late.
    """
    try:
        profile = str(config_path(PROFILE))
    except CaptionRosError:
        profile = f'config/{PROFILE} of caption_ros'
    if is_silent and is_cut_off():
        return ('Fast DDS has cut this node off from its shared memory, as it may when a process '
                'stands still for a second: start the node anew, with '
                f'FASTDDS_DEFAULT_PROFILES_FILE={profile}, which allows five seconds')
    reliable = ' or let it offer reliable' if best_effort else ''
    return ('large images get lost in the default transport of Fast DDS: set '
            f'FASTDDS_DEFAULT_PROFILES_FILE={profile} for the process that publishes the images '
            f'(setting it for this node changes nothing){reliable}')


def mask_problem(*, describe: str, topic: str, publishers: int, mask_timeout_s: float,
                 mask_slop_s: float, rises: dict[str, int]) -> str:
    """Say why images find no mask; empty when all is well.

    Args:
        describe: What to caption.
        topic: Resolved topic of the masks.
        publishers: Publishers on that topic.
        mask_timeout_s: How long an image waits, seconds.
        mask_slop_s: Largest difference of stamps of a pair, seconds.
        rises: How much each count has risen of late.
    """
    if rises['pairs']:
        return ''
    if rises['masks too late']:
        return (f'{rises["masks too late"]} mask(s) on {topic} came more than {mask_timeout_s} s '
                'after their image: raise mask_timeout_s or use a faster segmenter')
    if rises['masks received']:
        return (f'masks arrive on {topic} and none has the stamp of an image within '
                f'{mask_slop_s} s and {mask_timeout_s} s after it: a mask needs the header of the '
                'image that it was made from')
    if describe != 'regions':
        return ''  # without masks the scene is captioned
    if not publishers:
        return (f'no publisher on {topic}, and describe is regions: start the segmenter, remap '
                'the topic or describe the scene')
    return f'no mask arrives on {topic} from {publishers} publisher(s), and describe is regions'


class RecentCounts:
    """Remembers counts for a while, to tell what is new.

    Args:
        keep: Number of snapshots that count as recent.
    """

    def __init__(self, keep: int = 10) -> None:
        self._snapshots: deque[dict[str, int]] = deque(maxlen=keep + 1)

    def add(self, counts: dict[str, int]) -> dict[str, int]:
        """Take a snapshot; return how much each count has risen since the oldest one kept."""
        self._snapshots.append(dict(counts))
        return self.risen(counts) if len(self._snapshots) > 1 else dict(counts)

    def risen(self, counts: dict[str, int]) -> dict[str, int]:
        """Return how much each count has risen since the oldest snapshot."""
        oldest = self._snapshots[0] if self._snapshots else {}
        return {name: count - oldest.get(name, 0) for name, count in counts.items()}

    @property
    def span(self) -> int:
        """Number of intervals between the oldest snapshot and the newest."""
        return max(len(self._snapshots) - 1, 1)

    def clear(self) -> None:
        """Forget all snapshots."""
        self._snapshots.clear()
