# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS 2, its middleware, and whether camera images get through."""

from __future__ import annotations

import importlib
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

from caption_ros.doctor.finding import OK, PROBLEM, WARNING, Finding, one_line
from caption_ros.errors import CaptionRosError
from caption_ros.resources import PROFILE_VARIABLES

PROFILE_VARIABLE = PROFILE_VARIABLES[0]
_BOOTSTRAP_VARIABLE = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'

_DEFAULT_SEGMENT_BYTES = 512 << 10  # Fast DDS without a profile
_FRAME_BYTES = 1920 * 1080 * 3
_WANTED_SEGMENT_BYTES = 4 * _FRAME_BYTES  # frames wait there until every reader has had them
_SHARED_MEMORY_BYTES = 256 << 20  # a few processes with a segment of 64 MiB each
_MESSAGE_PACKAGES = ('sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'lifecycle_msgs',
                     'rcl_interfaces')
_LAST_DOMAIN = 232  # a higher one has no ports
_SHM = Path('/dev/shm')


def check_ros() -> Iterator[Finding]:
    """Look at ROS 2, its messages and its middleware."""
    how = "source a ROS 2 (source /opt/ros/.../setup.bash) or pip install 'caption_ros[ros]'"
    try:
        importlib.import_module('rclpy')
    except Exception as error:
        if os.environ.get(_BOOTSTRAP_VARIABLE):
            how = ('if another Python environment started this shell: '
                   f'unset {_BOOTSTRAP_VARIABLE} LD_LIBRARY_PATH; else {how}')
        yield Finding('ROS 2', PROBLEM, f'rclpy cannot be imported ({one_line(error)})', how)
        return
    from rclpy.utilities import get_rmw_implementation_identifier
    distro = os.environ.get('ROS_DISTRO')
    yield Finding('ROS 2', OK, f'{distro} is sourced' if distro else 'rclpy from Python packages')
    missing = []
    for package in _MESSAGE_PACKAGES:
        try:
            importlib.import_module(f'{package}.msg')
        except ImportError:
            try:
                importlib.import_module(f'{package}.srv')  # std_srvs has no messages
            except ImportError:
                missing.append(package)
    if missing:
        yield Finding('ROS messages', PROBLEM, f'missing: {", ".join(missing)}',
                      f'install {", ".join(missing)} (apt: ros-<distro>-...), or {how}')
    domain = os.environ.get('ROS_DOMAIN_ID') or '0'
    if not domain.isdecimal() or int(domain) > _LAST_DOMAIN:
        yield Finding('ROS domain', PROBLEM, f'ROS_DOMAIN_ID is {domain!r}, wanted a whole number '
                      f'in 0..{_LAST_DOMAIN}', 'unset ROS_DOMAIN_ID')
    yield Finding('ROS middleware', OK, f'{get_rmw_implementation_identifier()}, domain '
                  f'{domain}, discovery range '
                  f'{os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"}')


def how_to_set_profile(path: Path | None = None) -> str:
    """Say how to give Fast DDS room for images."""
    if path is None:
        from caption_ros.resources import config_path
        path = Path(config_path('fastdds.xml'))
    return (f'export {PROFILE_VARIABLE}={path} for the process that publishes the images (the '
            'camera driver) and start it again; set for the subscriber only it changes nothing')


def segment_bytes(profile: Path) -> int | None:
    """Return the shared-memory segment that a Fast DDS profile sets up, in bytes.

    Args:
        profile: XML file of Fast DDS profiles.

    Returns:
        Bytes of the largest segment that its default participant uses; None when it sets up no
        shared memory of its own.

    Raises:
        CaptionRosError: If the file cannot be read.
    """
    try:
        root = ElementTree.parse(profile).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise CaptionRosError(f'{profile} cannot be read ({one_line(error)})') from error

    def inner(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
        return [item for item in element.iter() if item.tag.rpartition('}')[2] == name]

    def text(element: ElementTree.Element, name: str) -> str:
        return next(((item.text or '').strip() for item in inner(element, name)), '')

    segments = {text(transport, 'transport_id'):
                int(text(transport, 'segment_size') or _DEFAULT_SEGMENT_BYTES)
                for transport in inner(root, 'transport_descriptor')
                if text(transport, 'type').upper() == 'SHM'}
    used: list[int] = []
    for participant in inner(root, 'participant'):
        if participant.get('is_default_profile', 'false').lower() != 'true':
            continue
        for transports in inner(participant, 'userTransports'):
            used += [segments[(item.text or '').strip()]
                     for item in inner(transports, 'transport_id')
                     if (item.text or '').strip() in segments]
    return max(used, default=None)


def check_profile(env: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Look at the Fast DDS profile that this shell gives to what is started from it."""
    name = 'Fast DDS profile'
    rmw = env.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    if 'fastrtps' not in rmw:
        yield Finding(name, OK, f'not needed with {rmw}')
        return
    variable = next((variable for variable in PROFILE_VARIABLES if env.get(variable)), None)
    if variable is None:
        yield Finding(name, WARNING, f'{PROFILE_VARIABLE} is not set: best-effort images of more '
                      f'than {_DEFAULT_SEGMENT_BYTES >> 10} KiB are mostly lost',
                      how_to_set_profile())
        return
    path = Path(env[variable])
    if not path.is_file():
        yield Finding(name, WARNING, f'{variable} names {path}, which is not there',
                      how_to_set_profile())
        return
    try:
        size = segment_bytes(path)
    except (CaptionRosError, ValueError) as error:
        yield Finding(name, WARNING, one_line(error), how_to_set_profile())
        return
    if size is None:
        yield Finding(name, WARNING, f'{path} sets up no shared memory in its default participant',
                      how_to_set_profile())
    elif size < _WANTED_SEGMENT_BYTES:
        yield Finding(name, WARNING, f'{path} has a segment of {size >> 10} KiB; four '
                      f'1920x1080 images want {_WANTED_SEGMENT_BYTES >> 10} KiB',
                      how_to_set_profile())
    else:
        yield Finding(name, OK, f'{path}, segment of {size >> 20} MiB')
    yield from _check_shared_memory(size or 0)


def _check_shared_memory(segment: int) -> Iterator[Finding]:
    if not _SHM.is_dir():
        return
    free = shutil.disk_usage(_SHM).free
    if free < max(_SHARED_MEMORY_BYTES, 2 * segment):
        yield Finding('shared memory', WARNING, f'{_SHM} has {free >> 20} MiB free, and every '
                      f'process takes {segment >> 20} MiB',
                      'give it more: docker run --shm-size=1g, or a larger tmpfs')
    else:
        yield Finding('shared memory', OK, f'{_SHM} has {free >> 20} MiB free')


def check_camera() -> Iterator[Finding]:
    """Send images of two usual sizes for a second each."""
    yield from check_frames(640, 480, 30.0, 1.0)
    yield from check_frames(1920, 1080, 10.0, 1.0)


def check_frames(width: int = 640, height: int = 480, rate_hz: float = 30.0,
                 seconds: float = 2.0) -> Iterator[Finding]:
    """Send camera frames from one process to another and count what arrives."""
    name = 'camera frames'
    from caption_ros.ros.transport_check import check_transport
    try:
        result = check_transport(width, height, rate_hz, seconds)
    except CaptionRosError as error:
        yield Finding(name, PROBLEM, one_line(error),
                      'check ROS 2 above; a firewall must let UDP to 127.0.0.1 pass')
        return
    text = (f'{result.received} of {result.sent} best-effort {width}x{height} images at '
            f'{rate_hz:g} Hz got from one process to another')
    if result.lost:
        yield Finding(name, PROBLEM, text, how_to_set_profile())
    else:
        yield Finding(name, OK, f'{text}, {1000 * result.median_s:.0f} ms each')
