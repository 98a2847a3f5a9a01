# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What this machine can do and what is wrong with it: one finding a line, each with its fix."""

from __future__ import annotations

import getpass
import grp
import importlib
import os
import platform
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from caption_ros.errors import CaptionRosError

OK, INFO, WARNING, PROBLEM = 'ok', 'info', 'warn', 'error'
PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
_OLD_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
_BOOTSTRAP_VARIABLE = '_ROS_WHEELS_BOOTSTRAP_COMPLETE'

_DEFAULT_SEGMENT_BYTES = 512 << 10  # Fast DDS without a profile
_FRAME_BYTES = 1920 * 1080 * 3
_WANTED_SEGMENT_BYTES = 4 * _FRAME_BYTES  # frames wait there until every reader has had them
_SHARED_MEMORY_BYTES = 256 << 20  # a few processes with a segment of 64 MiB each
_MESSAGE_PACKAGES = ('sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'lifecycle_msgs',
                     'rcl_interfaces')
_GPU_GROUPS = ('render', 'video')
_KFD = Path('/dev/kfd')
_NVIDIA = Path('/dev/nvidiactl')
_SHM = Path('/dev/shm')
_DRM = Path('/sys/class/drm')
_AMD_VENDOR = '0x1002'  # PCI


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


def examine(say: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """Look at everything; takes about ten seconds, most of them torch and the transport test.

    Args:
        say: Takes what is being looked at, for a progress line.
    """
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ('Python', check_python), ('torch', check_torch), ('GPU access', check_gpu_access),
        ('image conversion', check_conversion), ('models', check_models), ('ROS 2', check_ros),
        ('Fast DDS profile', check_profile), ('camera frames', check_camera))
    findings: list[Finding] = []
    for name, check in checks:
        say(name)
        try:
            findings += check()
        except Exception as error:  # a doctor who faints at one organ is of no use for the rest
            findings.append(Finding(name, PROBLEM, f'cannot be examined: '
                                    f'{type(error).__name__}: {error}', 'please report this'))
    return findings


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Tell whether nothing is broken; warnings are allowed."""
    return all(finding.level != PROBLEM for finding in findings)


def check_python() -> Iterator[Finding]:
    """Look at the interpreter."""
    text = (f'{platform.python_version()} in {sys.prefix}, {platform.system()} '
            f'{platform.machine()}, {os.cpu_count()} CPU cores')
    yield Finding('Python', OK, text)


def check_torch() -> Iterator[Finding]:
    """Look at torch, its build, its GPUs and what they compute in."""
    how = ('install torch into this environment: the CPU build or the one for your GPU (ROCm or '
           "CUDA), as PyTorch's Get Started page says")
    try:
        torch = importlib.import_module('torch')
    except Exception as error:  # a broken build raises anything, such as OSError for a library
        yield Finding('torch', PROBLEM, f'cannot be imported ({_one_line(error)})', how)
        return
    from caption_ros.captioners.devices import cpu_has_bfloat16, torch_build
    build = torch_build()
    names = {'rocm': f'ROCm {torch.version.hip}', 'cuda': f'CUDA {torch.version.cuda}',
             'cpu': 'CPU'}
    yield Finding('torch', OK, f'{torch.__version__}, {names[build]} build')
    fast = 'bfloat16 in hardware' if cpu_has_bfloat16() else 'no fast bfloat16'
    types, failures = _types_that_multiply(torch, 'cpu', ('float32', 'bfloat16', 'float16'))
    text = f'{", ".join(types)}; {fast}; {torch.get_num_threads()} threads'
    if 'float32' in types:
        yield Finding('CPU types', OK, text)
    else:
        yield Finding('CPU types', PROBLEM, f'a small product fails ({failures["float32"]})', how)
    yield from _check_gpus(torch, build)
    try:
        transformers = importlib.import_module('transformers')
    except Exception as error:
        yield Finding('transformers', PROBLEM, f'cannot be imported ({_one_line(error)})',
                      'pip install transformers safetensors')
    else:
        yield Finding('transformers', OK, str(transformers.__version__))


def _check_gpus(torch, build: str) -> Iterator[Finding]:  # noqa: ANN001 - a module
    if build == 'cpu':
        for device, wanted in ((_KFD, 'ROCm'), (_NVIDIA, 'CUDA')):
            if device.exists():
                yield Finding('GPU', WARNING,
                              f'{device} is there, but this torch is a CPU build',
                              f'to use the GPU, replace torch by its {wanted} build')
        return
    if not torch.cuda.is_available():
        yield Finding('GPU', WARNING, f'this torch is a {build} build and sees no GPU; models run '
                      'on the CPU', 'check driver and container: rocminfo or nvidia-smi must show '
                      'the GPU')
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        arch = getattr(properties, 'gcnArchName', '')
        name = f'GPU {index}'
        text = (f'{properties.name}{f" ({arch})" if arch else ""}, '
                f'{properties.total_memory / 2**30:.0f} GiB')
        types, failures = _gpu_types(torch, index)
        if 'float32' not in types:
            yield Finding(name, PROBLEM, f'{text}: a small product fails ({failures["float32"]})',
                          'this torch has no kernels for this GPU or its driver is too old: '
                          'install the torch build that names this GPU, or set device:=cpu')
        else:
            yield Finding(name, OK, f'{text}: {", ".join(types)}')
            for kind, failure in failures.items():
                yield Finding(name, WARNING, f'{kind} does not work here ({failure})',
                              f'set dtype to {types[-1]}, or install another torch build')


def _gpu_types(torch, index: int) -> tuple[list[str], dict[str, str]]:  # noqa: ANN001 - a module
    names = ['float32', 'float16']
    with torch.cuda.device(index):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            names.append('bfloat16')
        return _types_that_multiply(torch, f'cuda:{index}', names)


def _types_that_multiply(torch, device: str,  # noqa: ANN001 - a module
                         names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the types in which a small product comes out right, and why the others do not."""
    types, failures = [], {}
    for name in names:
        try:
            ones = torch.ones((16, 16), dtype=getattr(torch, name), device=device)
            total = (ones @ ones).float().sum().item()
        except RuntimeError as error:
            failures[name] = _one_line(error)
            continue
        if total == 16 ** 3:
            types.append(name)
        else:
            failures[name] = f'the sum is {total:g} and not {16 ** 3}'
    return types, failures


def is_hip_build() -> bool:
    """Tell whether torch is here and built for AMD GPUs."""
    try:
        torch = importlib.import_module('torch')
    except Exception:  # check_torch says what is wrong with it
        return False
    return bool(torch.version.hip)


def amd_cards(drm: Path = _DRM) -> list[str]:
    """Return the names of the AMD graphics cards that the kernel shows."""
    vendors = sorted(drm.glob('card*/device/vendor'))
    return [path.parts[-3] for path in vendors
            if '-' not in path.parts[-3]  # card0-HDMI-A-1 is a socket of card0
            and path.read_text().strip().lower() == _AMD_VENDOR]


def check_gpu_access(kfd: Path = _KFD, drm: Path = _DRM,
                     is_hip: Callable[[], bool] = is_hip_build) -> Iterator[Finding]:
    """Look at the AMD compute device and whether this user may open it."""
    if not kfd.exists():
        cards = amd_cards(drm)
        if not cards and not is_hip():
            yield Finding('AMD compute', INFO, f'no {kfd} and no AMD GPU')
            return
        why = f'AMD GPU {", ".join(cards)} is here' if cards else 'torch is a ROCm build'
        yield Finding('AMD compute', WARNING, f'{why}, but {kfd} is not; models run on the CPU',
                      'load the amdgpu driver (sudo modprobe amdgpu, then dmesg | grep kfd); in a '
                      'container: --device=/dev/kfd --device=/dev/dri --group-add video')
        return
    if os.access(kfd, os.R_OK | os.W_OK):
        yield Finding('AMD compute', OK, f'{kfd} may be opened')
        return
    owner = kfd.stat().st_gid
    try:
        group = grp.getgrgid(owner).gr_name
    except KeyError:
        group = str(owner)
    wanted = ','.join(dict.fromkeys((group, *_GPU_GROUPS)))
    yield Finding('AMD compute', PROBLEM, f'{kfd} belongs to group {group}, and user '
                  f'{getpass.getuser()} is not in it',
                  f'sudo usermod -aG {wanted} {getpass.getuser()} and log in again; in a '
                  f'container: --device=/dev/kfd --device=/dev/dri --group-add {group}')


def check_conversion() -> Iterator[Finding]:
    """Convert one pixel of an image message with each library."""
    fixes = {'rosbags': 'pip install rosbags-image',
             'cv_bridge': "install your ROS's cv_bridge; a numpy 1 build of it fails beside "
                          'numpy 2'}
    failures = {name: _conversion_failure(name) for name in fixes}
    # Each stands in for the other, so only the lack of both stops anybody.
    level = PROBLEM if all(failures.values()) else INFO
    names = {'rosbags': 'rosbags-image', 'cv_bridge': 'cv_bridge'}
    for backend, failure in failures.items():
        if failure:
            note = '' if level == PROBLEM else '; the other one is used'
            yield Finding(names[backend], level, f'not usable ({failure}){note}', fixes[backend])
        else:
            yield Finding(names[backend], OK, 'converts images')


def _conversion_failure(backend: str) -> str:
    from caption_ros.image import rgb_from_raw
    try:
        pixel = rgb_from_raw(bytes((3, 2, 1)), height=1, width=1, step=3, encoding='bgr8',
                             backend=backend)
    except Exception as error:  # a library built for another numpy raises anything
        return _one_line(error)
    return '' if pixel.tolist() == [[[1, 2, 3]]] else f'bgr8 3 2 1 became {pixel.tolist()}'


def check_models() -> Iterator[Finding]:
    """Look for the checkpoints of known models; nothing is downloaded."""
    from caption_ros.captioners import KNOWN, local_checkpoint, models_folder
    for card in KNOWN.values():
        folder = local_checkpoint(card)
        name = f'model {card.name}'
        if folder is not None:
            yield Finding(name, OK, str(folder))
        elif card.is_packaged:
            yield Finding(name, PROBLEM, 'ships with the package and is not there',
                          'install caption_ros again')
        else:
            yield Finding(name, INFO, 'not on this machine; needed only if you choose it (looked '
                          f'in {models_folder() / card.name} and {_hub_cache()})',
                          f'hf download {card.checkpoint} --local-dir '
                          f'{models_folder() / card.name}')


def _hub_cache() -> str:
    from huggingface_hub import constants
    return str(constants.HF_HUB_CACHE)


def check_ros() -> Iterator[Finding]:
    """Look at ROS 2, its messages and its middleware."""
    how = "source a ROS 2 (source /opt/ros/.../setup.bash) or pip install 'caption_ros[ros]'"
    try:
        importlib.import_module('rclpy')
    except Exception as error:
        if os.environ.get(_BOOTSTRAP_VARIABLE):
            how = ('if another Python environment started this shell: '
                   f'unset {_BOOTSTRAP_VARIABLE} LD_LIBRARY_PATH; else {how}')
        yield Finding('ROS 2', PROBLEM, f'rclpy cannot be imported ({_one_line(error)})', how)
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
    yield Finding('ROS middleware', OK, f'{get_rmw_implementation_identifier()}, domain '
                  f'{os.environ.get("ROS_DOMAIN_ID") or 0}, discovery range '
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
        raise CaptionRosError(f'{profile} cannot be read ({_one_line(error)})') from error

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
    variable = next((variable for variable in (PROFILE_VARIABLE, _OLD_PROFILE_VARIABLE)
                     if env.get(variable)), None)
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
        yield Finding(name, WARNING, _one_line(error), how_to_set_profile())
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
        yield Finding(name, PROBLEM, _one_line(error),
                      'check ROS 2 above; a firewall must let UDP to 127.0.0.1 pass')
        return
    text = (f'{result.received} of {result.sent} best-effort {width}x{height} images at '
            f'{rate_hz:g} Hz got from one process to another')
    if result.lost:
        yield Finding(name, PROBLEM, text, how_to_set_profile())
    else:
        yield Finding(name, OK, f'{text}, {1000 * result.median_s:.0f} ms each')


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
