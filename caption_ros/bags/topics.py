# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which topics of a recording are cameras, which one holds masks, and where captions go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from caption_ros.bags.files import Topic
from caption_ros.bags.images import COMPRESSED, RAW, parse
from caption_ros.bags.recording import Recording
from caption_ros.errors import ImageFormatError, OptionError, RecordingError

_MASK_NAME = re.compile(r'mask|segment|label', re.IGNORECASE)
_MASK_ENCODINGS = ('mono8', '8UC1', 'mono16', '16UC1', '32SC1')
_MOST_BROKEN = 20  # messages before one whose encoding can be read
_DEPTH_NAME = re.compile(r'depth|disparity', re.IGNORECASE)
_DEPTH_ENCODINGS = re.compile(r'(32F|64F)(C[0-9]+)?')


@dataclass(frozen=True)
class Plan:
    """What to caption.

    Attributes:
        images: Names of the image topics.
        mask: Name of the mask topic, or None.
        masked: Name of the image topic that the masks belong to, or None.
    """

    images: tuple[str, ...]
    mask: str | None = None
    masked: str | None = None


def plan_topics(recording: Recording, topics: Sequence[str] = (), mask: str | None = None, *,
                use_mask: bool = True) -> Plan:
    """Find the image topics by type and the mask topic by name and encoding.

    Without topics named, all image topics are taken but depth, masks, and a compressed copy
    of a raw topic.

    Args:
        recording: The recording.
        topics: Image topics that the user names.
        mask: Mask topic that the user names.
        use_mask: False looks for no mask.

    Raises:
        RecordingError: If there is no image topic.
        OptionError: If a named topic is not there or there are several that may be meant.
    """
    names = _image_names(recording)
    if not names:
        kinds = ', '.join(sorted({topic.msgtype for topic in recording.topics
                                  if recording.counts[topic]})[:8])
        raise RecordingError(f'{recording.path} has no image topic, only {kinds}; wanted '
                             f'{RAW} or {COMPRESSED}')
    encodings = {name: _encoding(recording, name) for name in names}
    masks = [name for name in names if _MASK_NAME.search(name) and
             encodings[name] in _MASK_ENCODINGS]
    chosen = _find(mask, names, '--mask') if mask else None
    images = tuple(dict.fromkeys(_find(name, names, '--topic') for name in topics))
    if not images:
        images = _cameras([name for name in names if name not in masks and name != chosen],
                          encodings)
        if not images:
            raise RecordingError(f'{recording.path} has image topics of depth or masks only '
                                 f'({", ".join(names)}); name one with --topic to caption it')
    if not use_mask:
        return Plan(images)
    if chosen is None:
        found = [name for name in masks if name not in images]
        if len(found) > 1:
            raise OptionError(f'{" and ".join(found)} may both be the mask topic; choose one '
                              'with --mask or none with --describe scene')
        chosen = found[0] if found else None
    if chosen in images:
        raise OptionError(f'{chosen} is to be captioned and to be the mask; choose another '
                          'topic for one of them')
    return Plan(images, chosen, _nearest(chosen, images) if chosen else None)


class Outputs(NamedTuple):
    """Names of the topics of an image topic's captions.

    Attributes:
        caption: For the text.
        captions: For the JSON.
        detections: For the regions; None without masks.
    """

    caption: str
    captions: str
    detections: str | None = None


def output_topics(recording: Recording, plan: Plan) -> dict[str, Outputs]:
    """Return the names of the topics for captions, by image topic.

    They are /caption, /captions and /detections as the node has them; with several image topics,
    or where the recording has these already, they lie below the image topic.

    Raises:
        RecordingError: If the recording has such topics there too.
    """
    taken = {topic.name.strip('/') for topic in recording.topics}
    names = {image: _outputs('', image == plan.masked) for image in plan.images}
    if len(names) > 1 or _clash(names, taken):
        names = {image: _outputs(image, image == plan.masked) for image in plan.images}
    clash = _clash(names, taken)
    if clash:
        raise RecordingError(f'{recording.path} has {clash[0]} already, so captions would mix; '
                             'caption the recording that it was made of')
    return names


def _outputs(below: str, has_masks: bool) -> Outputs:
    return Outputs(f'{below}/caption', f'{below}/captions',
                   f'{below}/detections' if has_masks else None)


def _clash(names: dict[str, Outputs], taken: set[str]) -> list[str]:
    return [name for outputs in names.values() for name in outputs
            if name is not None and name.strip('/') in taken]


def _image_names(recording: Recording) -> list[str]:
    return list(dict.fromkeys(topic.name for topic in recording.topics
                              if topic.msgtype in (RAW, COMPRESSED) and recording.counts[topic]))


def _cameras(names: Iterable[str], encodings: dict[str, str]) -> tuple[str, ...]:
    cameras = [name for name in names if not _DEPTH_NAME.search(name) and
               not _DEPTH_ENCODINGS.fullmatch(encodings[name])]
    return tuple(name for name in cameras
                 if name.removesuffix('/compressed') == name or
                 name.removesuffix('/compressed') not in cameras)


def _encoding(recording: Recording, name: str) -> str:
    topics: list[Topic] = [topic for topic in recording.topics
                           if topic.name == name and topic.msgtype == RAW]
    if not topics:
        return ''  # a compressed image has none, and opening a file may unpack it whole
    with closing(recording.messages(topics, lambda damage: None)) as messages:
        for message in islice(messages, _MOST_BROKEN):
            with suppress(ImageFormatError):
                return str(parse(message).encoding)
    return ''


def _find(wanted: str, names: Sequence[str], option: str) -> str:
    for name in names:
        if name.strip('/') == wanted.strip('/'):
            return name
    raise OptionError(f'{option} {wanted} is no image topic of the recording; it has '
                      f'{", ".join(names)}')


def _nearest(mask: str, images: Sequence[str]) -> str:
    """Return the image topic that shares most of its name with the mask's, from the left."""
    def shared(image: str) -> int:
        pairs = zip(mask.strip('/').split('/'), image.strip('/').split('/'))
        return next((i for i, (one, other) in enumerate(pairs) if one != other), 0)

    best = max(map(shared, images))
    nearest = [image for image in images if shared(image) == best]
    if len(nearest) > 1:
        raise OptionError(f'the masks of {mask} may belong to {" or ".join(nearest)}; choose one '
                          'with --topic or none with --describe scene')
    return nearest[0]
