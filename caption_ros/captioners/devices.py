# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which device and which number type a model runs in."""

from __future__ import annotations

import re
from typing import Any

from caption_ros.errors import OptionError

DEVICES = ('auto', 'rocm', 'cuda', 'cpu')
DTYPES = ('auto', 'bfloat16', 'float16', 'float32', 'int8')
# AMD GPUs before CDNA and RDNA 3; torch says of every one that it has bfloat16.
_WITHOUT_BFLOAT16 = re.compile(r'gfx([78]\w\w|90[02469c]|101\w|103\w)')
LARGE = 50_000_000  # parameters; below that a CPU gains nothing from bfloat16


def torch_build() -> str:
    """Return what torch was built for: rocm, cuda or cpu."""
    import torch

    if torch.version.hip:
        return 'rocm'
    return 'cuda' if torch.version.cuda else 'cpu'


def device_label(device: str) -> str:
    """Return a device's name for people: torch's ``cuda:0`` is ``rocm:0`` in a ROCm build."""
    if not device.startswith('cuda'):
        return device  # without torch, which is slow to import
    return device.replace('cuda', 'rocm', 1) if torch_build() == 'rocm' else device


def resolve_device(device: str) -> str:
    """Turn auto, rocm, cuda, cpu, rocm:N or cuda:N into torch's name of a device.

    torch calls an AMD GPU ``cuda`` too; only its build tells the two apart.

    Raises:
        OptionError: If this torch or this machine has no such device.
    """
    import torch

    kind, _, index = str(device).partition(':')
    if kind not in DEVICES or (index and (kind in ('auto', 'cpu') or not index.isdecimal())):
        raise OptionError(f'device must be one of {", ".join(DEVICES)} (rocm:N and cuda:N name '
                          f'one of several), got {device!r}')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == 'cpu' or (kind == 'auto' and not count):
        return 'cpu'
    build = torch_build()
    if kind != 'auto' and kind != build:
        raise OptionError(f'device {device!r} needs a {kind} build of torch, and torch '
                          f'{torch.__version__} is a {build} build; use {build} or auto, or '
                          f'install a {kind} build')
    number = int(index or 0)
    if number >= count:
        raise OptionError(f'device {device!r} is not there: torch sees {count} GPU(s); '
                          'use cpu or auto')
    return f'cuda:{number}'


def resolve_dtype(dtype: str, device: str, parameters: int) -> Any:
    """Return the torch number type for a model's weights.

    Args:
        dtype: auto, bfloat16, float16, float32 or int8.
        device: torch's name of the device.
        parameters: Number of the model's parameters.

    Raises:
        OptionError: If the type is unknown or the device cannot compute in it.
    """
    import torch

    if dtype not in DTYPES:
        raise OptionError(f'dtype must be one of {", ".join(DTYPES)}, got {dtype!r}')
    on_cpu = device == 'cpu'
    if dtype == 'int8' and not on_cpu:
        raise OptionError("dtype 'int8' is for the CPU, and the device is "
                          f'{device_label(device)}; use bfloat16, float16 or auto')
    if dtype == 'auto':
        if on_cpu:
            fast = parameters >= LARGE and cpu_has_bfloat16()
            return torch.bfloat16 if fast else torch.float32
        fast = _gpu_has_bfloat16(device) and not lacks_bfloat16(gpu_target(device))
        return torch.bfloat16 if fast else torch.float16
    if dtype == 'bfloat16' and not on_cpu and not _gpu_has_bfloat16(device):
        raise OptionError(f"dtype 'bfloat16' is not supported by {device_label(device)}; use "
                          'float16 or auto')
    return getattr(torch, dtype)


def cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return has_amx() or has_avx512_bfloat16()


def has_avx512_bfloat16() -> bool:
    """Tell whether this CPU multiplies vectors of bfloat16 in hardware (AVX512-BF16)."""
    return _cpu_can('_is_avx512_bf16_supported')


def cpu_multiplies(dtype: str) -> bool:
    """Tell whether oneDNN multiplies a number type, by its name, on this CPU.

    Where it does not, torch takes bfloat16 and float16 several times as long as float32.
    """
    import torch

    short = {'bfloat16': 'bf16', 'float16': 'fp16'}.get(dtype)
    ask = getattr(torch.ops.mkldnn, f'_is_mkldnn_{short}_supported', None)
    return ask is None or bool(ask())


def has_amx() -> bool:
    """Tell whether this CPU multiplies small matrices in hardware (AMX)."""
    return _cpu_can('_is_amx_tile_supported')


def has_vnni() -> bool:
    """Tell whether this CPU multiplies 8-bit numbers in hardware (AVX512-VNNI)."""
    return _cpu_can('_is_vnni_supported')


def _cpu_can(test: str) -> bool:
    import torch

    # A private name, so a torch that drops it costs speed or a little accuracy only.
    ask = getattr(torch.cpu, test, None)
    return ask is not None and bool(ask())


def gpu_target(device: str) -> str:
    """Return an AMD GPU's target, such as gfx1100; empty for another GPU."""
    import torch

    if not torch.version.hip:
        return ''
    return str(torch.cuda.get_device_properties(device).gcnArchName).partition(':')[0]


def lacks_bfloat16(target: str) -> bool:
    """Tell whether an AMD GPU computes bfloat16 by detours, by its target such as gfx1030."""
    return _WITHOUT_BFLOAT16.fullmatch(target) is not None


def _gpu_has_bfloat16(device: str) -> bool:
    import torch

    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
