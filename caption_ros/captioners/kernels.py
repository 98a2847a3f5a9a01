# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""kernels.cpp: compiled once for a kind of CPU, where there is a compiler, and kept.

Where there is none, or the CPU has neither AVX512-BF16 nor AVX512-VNNI, torch's own layers compute
the same in more time.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import signal
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
    if torch.__version__ < '2.10':
        return f'torch {torch.__version__} is older than 2.10, which they need'
    compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
    if compiler is None:
        return 'no C++ compiler was found: install g++ for faster captions'
    command = _command(compiler, kinds)
    folder = folder / 'cpu'
    path = folder / f'kernels-{_fingerprint(command)}.so'
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if path.exists():
        try:
            return _open(path)
        except OSError:  # cut off, such as by a full disk
            pass
    log.info('compiling kernels for this CPU, once')
    _compile(command, path)
    return _open(path)


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

    told = (torch.__version__, _run([command[0], '--version']), *command, _SOURCE.read_text())
    return hashlib.sha256('\0'.join(told).encode()).hexdigest()[:16]


def _run(command: list[str]) -> str:
    """Return what a command prints; it and all it has started end in time."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors='replace',
                          env={**os.environ, 'LC_ALL': 'C'}, start_new_session=True) as process:
        try:
            printed, complained = process.communicate(timeout=_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        errors = [line for line in complained.splitlines() if 'error' in line]
        raise RuntimeError(f'{command[0]} ended with {process.returncode}: '
                           f'{(errors or [complained])[0]}')
    return printed


def _compile(command: list[str], path: Path) -> None:
    """Compile, and put the result in its place at once: others may be doing the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        _run([*command, '-o', str(made)])
        made.chmod(0o700)
        with made.open('rb') as file:
            os.fsync(file.fileno())  # or its name may outlive what it holds
        os.replace(made, path)


def _open(path: Path) -> str:
    """Load a library that nobody else can have written; return why not, if so."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        state = os.fstat(file)
        if state.st_uid not in (os.geteuid(), 0) or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return (f'{path} can be written to by others than this user: remove it, or set '
                    'cache_folder to a folder that is yours')
        ctypes.CDLL(f'/proc/self/fd/{file}')  # and not by a name that may be another's by now
    finally:
        os.close(file)
    return ''
