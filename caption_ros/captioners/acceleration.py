# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What torch and the libraries below it may do for speed, and where they keep what they found.

The defaults change nothing but the folder of MIOpen's results. A variable of the environment that
the user has set himself always stays.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caption_ros.captioners.devices import device_label, gpu_target, torch_build
from caption_ros.errors import OptionError

ATTENTIONS = ('auto', 'flash', 'efficient', 'math')
COMPILE_MODES = ('none', 'default', 'reduce-overhead', 'max-autotune')
TUNABLE_OPS = ('none', 'use', 'tune')
FIND_MODES = ('auto', 'normal', 'fast', 'hybrid', 'dynamic_hybrid')
_CHOICES = {'attention': ATTENTIONS, 'compile': COMPILE_MODES, 'tunable_op': TUNABLE_OPS,
            'miopen_find_mode': FIND_MODES}
_BACKENDS = {'flash': 'FLASH_ATTENTION', 'efficient': 'EFFICIENT_ATTENTION', 'math': 'MATH'}
_TUNING_MS = 30  # for one shape of a product; torch's own limit, which a later torch may raise


@dataclass(frozen=True)
class Acceleration:
    """What may be done for speed.

    Attributes:
        attention: auto is torch's choice, or plain products in an encoder; flash and efficient
            where they can, else math.
        compile: none, or torch.compile's mode for the image encoder; reduce-overhead and
            max-autotune also record graphs on a GPU.
        tunable_op: ROCm: none; use takes the matrix products that were found fastest; tune also
            looks for those of new shapes.
        miopen_find_mode: ROCm: how MIOpen looks for convolutions; auto is its own default.
        cache_folder: Where results are kept; empty is ``kernels`` in the user's cache.
    """

    attention: str = 'auto'
    compile: str = 'none'
    tunable_op: str = 'none'
    miopen_find_mode: str = 'auto'
    cache_folder: str = ''

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise OptionError(f'{name} must be one of {", ".join(allowed)}, got {value!r}')
        if not isinstance(self.cache_folder, str):
            raise OptionError(f'cache_folder must be a path, got {self.cache_folder!r}')

    def folder(self, env: MutableMapping[str, str] = os.environ) -> Path:
        """Return the folder of results, which need not exist."""
        if self.cache_folder:
            return Path(self.cache_folder).expanduser()
        cache = Path(env.get('XDG_CACHE_HOME') or '~/.cache').expanduser()
        return cache / 'caption_ros' / 'kernels'


@dataclass(frozen=True)
class Prepared:
    """What came of the settings.

    Attributes:
        facts: How torch and the libraries are set, by name.
        problem: Why something that was asked for is not so; empty when all is.
    """

    facts: dict[str, str]
    problem: str = ''


def prepare(acceleration: Acceleration, device: str,
            env: MutableMapping[str, str] = os.environ) -> Prepared:
    """Set torch and its libraries up; before the first model computes on a device.

    MIOpen reads its variables once, so the first call of a process counts.

    Args:
        acceleration: What is asked for.
        device: torch's name of the device.
        env: The environment of this process.
    """
    on_rocm = device != 'cpu' and torch_build() == 'rocm'
    facts = {'attention': acceleration.attention, 'compile': acceleration.compile}
    if device == 'cpu':
        from caption_ros.captioners.kernels import keep_kernels_as

        keep_kernels_as(acceleration)
    unused = [name for name in ('tunable_op', 'miopen_find_mode')
              if getattr(acceleration, name) not in ('none', 'auto')]
    problem = ''
    if unused and not on_rocm:
        problem = (f'{" and ".join(unused)} asked for on {device_label(device)}, and only rocm '
                   'can do that')
    if not on_rocm and acceleration.compile == 'none':
        return Prepared(facts, problem)
    folder = acceleration.folder(env)
    why_not = _make(folder, ('inductor', 'miopen') if on_rocm else ('inductor',))
    facts['cache folder'] = 'none' if why_not else str(folder)
    if why_not:
        problem = '; '.join(filter(None, (problem, (
            f'cache_folder {folder} cannot be written ({why_not}), so nothing is kept; set it to '
            'a folder that can'))))
    elif acceleration.compile != 'none':
        if _is_torchs_own(env.get('TORCHINDUCTOR_CACHE_DIR', '')):
            del env['TORCHINDUCTOR_CACHE_DIR']
        env.setdefault('TORCHINDUCTOR_CACHE_DIR', str(folder / 'inductor'))
    if on_rocm:
        if not why_not:
            env.setdefault('MIOPEN_USER_DB_PATH', str(folder / 'miopen'))
            env.setdefault('MIOPEN_CUSTOM_CACHE_DIR', str(folder / 'miopen'))
        if acceleration.miopen_find_mode != 'auto':
            env.setdefault('MIOPEN_FIND_MODE', acceleration.miopen_find_mode.upper())
        facts['MIOpen find mode'] = env.get('MIOPEN_FIND_MODE', 'auto').lower()
        if acceleration.attention in ('flash', 'efficient'):
            # torch keeps these from Radeon GPUs until they are asked for.
            env.setdefault('TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL', '1')
        facts['TunableOp'] = _set_tunable_op('none' if why_not else acceleration.tunable_op,
                                             folder, device, env)
    return Prepared(facts, problem)


def _make(folder: Path, parts: tuple[str, ...]) -> str:
    """Make a folder and the folders in it; return why it cannot be written to, if so."""
    try:
        for part in parts:
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or type(error).__name__
    closed = [part for part in ('', *parts) if not os.access(folder / part, os.W_OK)]
    return 'Permission denied' if closed else ''


def _is_torchs_own(folder: str) -> bool:
    """Tell whether torch has set its cache's variable by itself, to a folder in /tmp."""
    path = Path(folder)
    return path.name.startswith('torchinductor_') and str(path.parent) == tempfile.gettempdir()


def _set_tunable_op(wish: str, folder: Path, device: str,
                    env: MutableMapping[str, str]) -> str:
    """Set TunableOp up and say how it is now."""
    if 'PYTORCH_TUNABLEOP_ENABLED' in env:  # it wins in torch as well
        return f'as PYTORCH_TUNABLEOP_ENABLED={env["PYTORCH_TUNABLEOP_ENABLED"]} says'
    from torch.cuda import tunable

    # A file of its own for each kind of GPU: what is fastest on one may not exist on another.
    path = folder / f'tunableop_{gpu_target(device)}.csv'
    named = env.get('PYTORCH_TUNABLEOP_FILENAME')
    if wish == 'none':
        # Since an earlier model.
        if tunable.is_enabled() and (named or tunable.get_filename() == str(path)):
            tunable.enable(False)
        return 'none'
    tunable.set_filename(named or str(path), bool(named))  # torch puts a number into what is named
    path = Path(tunable.get_filename())
    tunable.set_max_tuning_duration(_TUNING_MS)
    tunable.tuning_enable(wish == 'tune')
    tunable.enable(True)
    return f'{wish}, {path}' + ('' if path.is_file() else ', which is not there yet')


def save_tuning() -> None:
    """Write what TunableOp has found, with a torch that would write it at its exit only."""
    if torch_build() != 'rocm':
        return
    from torch.cuda import tunable

    write = getattr(tunable, 'write_file', None)
    if write is not None and tunable.is_enabled() and tunable.tuning_is_enabled():
        write()


@contextmanager
def attention_by(attention: str) -> Iterator[None]:
    """Have torch compute attention in one way; where that cannot be, by plain products."""
    if attention == 'auto':
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends: list[Any] = [getattr(SDPBackend, _BACKENDS[attention])]
    if attention != 'math':
        backends.append(SDPBackend.MATH)
    with sdpa_kernel(backends):
        yield
