# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The device files of AMD GPUs, and whether this user may open them."""

from __future__ import annotations

import getpass
import grp
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from caption_ros.doctor.finding import INFO, OK, PROBLEM, WARNING, Finding

KFD = Path('/dev/kfd')
DRM = Path('/sys/class/drm')
_DRI = Path('/dev/dri')
_DRIVER = Path('/sys/module/amdgpu')
_GROUPS = ('render', 'video')
_VENDOR = '0x1002'  # PCI
_NAME = 'AMD compute'


def is_hip_build() -> bool:
    """Tell whether torch is here and built for AMD GPUs."""
    try:
        torch = importlib.import_module('torch')
    except Exception:  # check_torch says what is wrong with it
        return False
    return bool(torch.version.hip)


def amd_cards(drm: Path = DRM) -> list[str]:
    """Return the names of the AMD graphics cards that the kernel shows."""
    return [name for name in _amd_nodes(drm, 'card*') if '-' not in name]  # card0-HDMI-A-1


def _amd_nodes(drm: Path, pattern: str) -> list[str]:
    return [path.parts[-3] for path in sorted(drm.glob(f'{pattern}/device/vendor'))
            if path.read_text().strip().lower() == _VENDOR]


def check_gpu_access(kfd: Path = KFD, drm: Path = DRM, is_hip: Callable[[], bool] = is_hip_build,
                     dri: Path = _DRI, driver: Path = _DRIVER) -> Iterator[Finding]:
    """Look at the AMD compute device, the render nodes, and whether this user may open them."""
    if not kfd.exists():
        yield _no_compute(kfd, amd_cards(drm), is_hip(), driver)
        return
    nodes = [dri / name for name in _amd_nodes(drm, 'renderD*')]
    missing = [node for node in nodes if not node.exists()]
    if missing and len(missing) < len(nodes):  # a container that was given some of the GPUs
        yield Finding(_NAME, INFO, f'{_names(missing)} is not there, though the kernel has it: '
                      'that GPU is not used', '--device=/dev/dri gives a container all of them')
        missing = []
    elif missing:
        yield Finding(_NAME, PROBLEM, f'{_names(missing)} is not there, though the kernel has it',
                      'in a container: --device=/dev/dri beside --device=/dev/kfd; else sudo '
                      'udevadm trigger')
    devices = [device for device in (kfd, *nodes) if device.exists()]
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        owners = list(dict.fromkeys(map(_owner, closed)))
        yield Finding(_NAME, PROBLEM, f'{_names(closed)} may not be opened: it belongs to group '
                      f'{", ".join(map(_group, owners))}, and user {_user()} is not in it',
                      _how_to_open(closed, owners))
        return
    if missing:
        return
    borrowed = [device for device in devices if not _may_anywhere(device)]
    if borrowed:
        yield Finding(_NAME, WARNING, f'{_names(borrowed)} may be opened from this desktop only: '
                      f'user {_user()} is not in group '
                      f'{_group(_owner(borrowed[0]))}, so a service or ssh may not',
                      f'sudo usermod -aG {",".join(_GROUPS)} {_user()} and log in again')
    else:
        yield Finding(_NAME, OK, f'{_names(devices)} may be opened')


def _no_compute(kfd: Path, cards: list[str], is_hip: bool, driver: Path) -> Finding:
    if not cards and not is_hip:
        return Finding(_NAME, INFO, f'no {kfd} and no AMD GPU')
    why = f'AMD GPU {", ".join(cards)} is here' if cards else 'torch is a ROCm build'
    container = 'in a container: --device=/dev/kfd --device=/dev/dri --group-add video'
    # A container sees the host's modules, and not its device files.
    if driver.exists():
        fix = f'the amdgpu driver is loaded; {container}; else look at sudo dmesg | grep kfd'
    else:
        fix = ('load the amdgpu driver (sudo modprobe amdgpu, then sudo dmesg | grep kfd); '
               f'{container}')
    return Finding(_NAME, WARNING, f'{why}, but {kfd} is not; models run on the CPU', fix)


def _how_to_open(closed: list[Path], owners: list[int]) -> str:
    if 0 in owners:  # nobody should join root's group, and its files are often root's alone
        rule = 'SUBSYSTEM=="kfd|drm", KERNEL=="kfd|renderD*", GROUP="render", MODE="0660"'
        return (f"give {_names(closed)} to group render: echo '{rule}' | sudo tee "
                '/etc/udev/rules.d/70-amdgpu.rules, sudo udevadm control --reload, sudo udevadm '
                f'trigger; then sudo usermod -aG {",".join(_GROUPS)} {_user()} and log in again')
    wanted = ','.join(dict.fromkeys((*map(_group, owners), *_GROUPS)))
    return (f'sudo usermod -aG {wanted} {_user()} and log in again; in a container: '
            '--device=/dev/kfd --device=/dev/dri '
            + ' '.join(f'--group-add {owner}' for owner in owners))


def _owner(device: Path) -> int:
    """Return the number of a device's group."""
    return device.stat().st_gid


def _may_anywhere(device: Path) -> bool:
    """Tell whether this user may open a device also without the rights of a desktop session."""
    status = device.stat()
    return (os.geteuid() == 0 or status.st_uid == os.geteuid() or status.st_mode & 0o006 == 0o006
            or status.st_gid in {os.getegid(), *os.getgroups()})


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:  # a container need not know the host's groups
        return str(number)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container need not know its user; OSError from Python 3.13 on
        return str(os.getuid())


def _names(devices: list[Path]) -> str:
    return ', '.join(map(str, devices))
