# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The interpreter, torch, its build and what its devices compute in."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from caption_ros.doctor.amd import DRM, KFD, amd_cards
from caption_ros.doctor.finding import INFO, OK, PROBLEM, WARNING, Finding, one_line
from caption_ros.doctor.product import gpu_types_apart, types_that_multiply

_NVIDIA = Path('/dev/nvidiactl')


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
        yield Finding('torch', PROBLEM, f'cannot be imported ({one_line(error)})', how)
        return
    from caption_ros.captioners.devices import cpu_has_bfloat16, torch_build
    build = torch_build()
    names = {'rocm': f'ROCm {torch.version.hip}', 'cuda': f'CUDA {torch.version.cuda}',
             'cpu': 'CPU'}
    yield Finding('torch', OK, f'{torch.__version__}, {names[build]} build')
    fast = 'bfloat16 in hardware' if cpu_has_bfloat16() else 'no fast bfloat16'
    types, failures = types_that_multiply(torch, 'cpu', ('float32', 'bfloat16', 'float16'))
    text = f'{", ".join(types)}; {fast}; {torch.get_num_threads()} threads'
    if 'float32' in types:
        yield Finding('CPU types', OK, text)
    else:
        yield Finding('CPU types', PROBLEM, f'a small product fails ({failures["float32"]})', how)
    yield from _check_kernels()
    yield from _check_gpus(torch, build)
    try:
        transformers = importlib.import_module('transformers')
    except Exception as error:
        yield Finding('transformers', PROBLEM, f'cannot be imported ({one_line(error)})',
                      'pip install transformers safetensors')
    else:
        yield Finding('transformers', OK, str(transformers.__version__))


def _check_kernels() -> Iterator[Finding]:
    from caption_ros.captioners.kernels import load_kernels

    why_not = load_kernels()
    if not why_not:
        yield Finding('CPU kernels', OK, 'compiled for this CPU')
    else:
        yield Finding('CPU kernels', INFO, f"none ({why_not}); torch's own layers are used")


def _check_gpus(torch: Any, build: str, kfd: Path = KFD, nvidia: Path = _NVIDIA,
                drm: Path = DRM, types_of: Callable[[int], tuple[list[str], dict[str, str]]] =
                gpu_types_apart) -> Iterator[Finding]:
    cards = amd_cards(drm)
    here = {'ROCm': [str(kfd)] * kfd.exists() or [f'AMD GPU {", ".join(cards)}'] * bool(cards),
            'CUDA': [str(nvidia)] * nvidia.exists()}
    names = {'rocm': 'ROCm', 'cuda': 'CUDA', 'cpu': 'CPU'}
    if build == 'cpu' or not here[names[build]]:
        for wanted, shown in here.items():
            if shown and wanted != names[build]:
                yield Finding('GPU', WARNING, f'{shown[0]} is there, but this torch is a '
                              f'{names[build]} build', 'to use the GPU: pip uninstall torch, then '
                              f"install its {wanted} build as PyTorch's Get Started page says")
    if build == 'cpu':
        return
    if not torch.cuda.is_available():
        yield Finding('GPU', WARNING, f'this torch is a {build} build and sees no GPU; models run '
                      'on the CPU', 'check driver and container: rocminfo or nvidia-smi must show '
                      'the GPU')
        return
    from caption_ros.captioners.devices import lacks_bfloat16
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        arch = getattr(properties, 'gcnArchName', '')
        name = f'GPU {index}'
        text = (f'{properties.name}{f" ({arch})" if arch else ""}, '
                f'{properties.total_memory / 2**30:.0f} GiB')
        types, failures = types_of(index)
        if 'float32' not in types:
            yield Finding(name, PROBLEM, f'{text}: a small product fails ({failures["float32"]})',
                          'this torch has no kernels for this GPU or its driver is too old: '
                          'install the torch build that names this GPU, or set device:=cpu')
        else:
            yield Finding(name, OK, f'{text}: {", ".join(types)}')
            if 'bfloat16' not in (*types, *failures) or lacks_bfloat16(arch.partition(':')[0]):
                yield Finding(name, INFO, 'no bfloat16 in hardware',
                              'float16 instead, which dtype auto takes')
            for kind, failure in failures.items():
                yield Finding(name, WARNING, f'{kind} does not work here ({failure})',
                              f'set dtype to {types[-1]}, or install another torch build')
