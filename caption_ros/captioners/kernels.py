# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""kernels.cpp: compiled once for a kind of CPU, where there is a compiler, and kept.

Where there is none, or the CPU has neither AVX512-BF16 nor AVX512-VNNI, torch's own layers compute
the same in more time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import threading
from pathlib import Path

from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.devices import has_avx512_bfloat16, has_vnni

SWITCH = 'CAPTION_ROS_KERNELS'  # in the environment
_SOURCE = Path(__file__).with_name('kernels.cpp')
_STABLE = '0x020a000000000000'  # torch 2.10, the first whose stable interface has what is used
_FLAGS = ('-std=c++20', '-O3', '-shared', '-fPIC', '-mavx512f', '-mavx512bw', '-mavx512vl',
          '-mavx512dq', '-mfma')
_SECONDS = 120  # for the compiler
_TURN = threading.Lock()

log = logging.getLogger(__name__)
_acceleration: Acceleration | None = None  # see keep_kernels_as()
_state: dict[str, str] = {}  # why there are none, once it is known


def has_kernel(name: str) -> bool:
    """Tell whether torch.ops.caption_ros has a kernel, such as linear_int8, in this process."""
    import torch

    return hasattr(torch.ops.caption_ros, name)


def keep_kernels_as(acceleration: Acceleration) -> None:
    """Set what names the folder of compiled kernels, which load_kernels() makes if need be."""
    global _acceleration
    _acceleration = acceleration


def kernels_state() -> str:
    """Say of this process whether it has kernels, or why not; empty if nobody has asked yet."""
    return _state['why not'] or 'compiled for this CPU' if _state else ''


def load_kernels() -> str:
    """Load the kernels, and compile them before if that has not been done on such a CPU.

    Returns:
        Why this process has no kernels; empty if it has. The first answer stays.
    """
    with _TURN:
        if 'why not' not in _state:
            try:
                _state['why not'] = _load((_acceleration or Acceleration()).folder())
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                _state['why not'] = ' '.join(str(error).split())[-300:] or type(error).__name__
            if _state['why not']:
                log.info('no kernels for this CPU: %s', _state['why not'])
        return _state['why not']


def _load(folder: Path) -> str:
    import torch

    if os.environ.get(SWITCH, '').lower() in ('0', 'off', 'none', 'false'):
        return f'{SWITCH} is {os.environ[SWITCH]}'
    kinds = _kinds()
    if not kinds:
        return 'this CPU has neither AVX512-BF16 nor AVX512-VNNI'
    compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
    if compiler is None:
        return 'no C++ compiler was found: install g++ for faster captions'
    command = _command(compiler, kinds)
    folder = folder / 'cpu'
    path = folder / f'kernels-{_fingerprint(command)}.so'
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for is_new in (False, True):
        if is_new or not path.is_file():
            log.info('compiling kernels for this CPU, once')
            _compile(command, path)
        # Whoever may write there may have his code run here.
        if why_not := _is_open(folder) or _is_open(path):
            return why_not
        try:
            torch.ops.load_library(str(path))
            break
        except OSError:  # cut off, such as by a full disk
            if is_new:
                raise
    return ''


def _kinds() -> list[str]:
    """Return the compiler's flags for what this CPU multiplies."""
    if platform.system() != 'Linux' or platform.machine() not in ('x86_64', 'AMD64'):
        return []
    return [flag for flag, has in (('-mavx512bf16', has_avx512_bfloat16()),
                                   ('-mavx512vnni', has_vnni())) if has]


def _command(compiler: str, kinds: list[str]) -> list[str]:
    import torch

    home = Path(torch.__file__).parent
    return [compiler, *_FLAGS, *kinds, f'-DTORCH_TARGET_VERSION={_STABLE}', f'-I{home}/include',
            str(_SOURCE), f'-L{home}/lib', '-ltorch_cpu', '-ltorch']


def _fingerprint(command: list[str]) -> str:
    """Return a name for all that a library depends on."""
    import torch

    version = subprocess.run([command[0], '--version'], capture_output=True, timeout=_SECONDS,
                             check=True, stdin=subprocess.DEVNULL).stdout
    told = (torch.__version__.encode(), version, *map(str.encode, command), _SOURCE.read_bytes())
    return hashlib.sha256(b'\0'.join(told)).hexdigest()[:16]


def _compile(command: list[str], path: Path) -> None:
    """Compile, and put the result in its place at once: others may be doing the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run([*command, '-o', str(made)], capture_output=True, text=True,
                              timeout=_SECONDS, stdin=subprocess.DEVNULL, errors='replace')
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if 'error' in line]
            raise RuntimeError(f'{shlex.join(command[:1])} ended with {done.returncode}: '
                               f'{(errors or [done.stderr])[0]}')
        made.chmod(0o700)
        with made.open('rb') as file:
            os.fsync(file.fileno())  # or its name may outlive what it holds
        os.replace(made, path)


def _is_open(path: Path) -> str:
    """Say of a file or folder that others may write to it; empty if not."""
    state = path.stat()
    if state.st_uid in (os.geteuid(), 0) and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ''
    return (f'{path} can be written to by others than this user: remove their right, or set '
            'cache_folder to a folder that is yours')
