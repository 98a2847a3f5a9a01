# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Small products, which tell what a device computes in; those of a GPU in a process of their own.

Where torch or rocBLAS has no code for a GPU, or an override names the wrong one, a product may
end the process or stand still, and that is what the doctor is asked about.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from caption_ros.doctor.finding import one_line

_TIMEOUT_S = 120  # torch is imported anew, and the first kernels take long to load


def gpu_types_apart(index: int, timeout_s: float = _TIMEOUT_S,
                    ) -> tuple[list[str], dict[str, str]]:
    """Return what gpu_types says in a process of its own; when that ends early, no type works.

    Args:
        index: torch's number of the GPU.
        timeout_s: How long it may take.
    """
    command = [sys.executable, '-c', f'from {__name__} import tell; tell({index})']
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return [], {'float32': f'it had no result after {timeout_s:g} s'}
    if done.returncode:
        return [], {'float32': f'it ended the process, {_how(done)}'}
    types, failures = json.loads(done.stdout.splitlines()[-1])
    return types, failures


def tell(index: int) -> None:
    """Print the types of a GPU and the failures as JSON."""
    import torch

    print(json.dumps(gpu_types(torch, index)))


def gpu_types(torch: Any, index: int) -> tuple[list[str], dict[str, str]]:
    """Return the types that a GPU computes in, and why it does not in others that it should."""
    names = ['float32', 'float16']
    with torch.cuda.device(index):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            names.append('bfloat16')
        return types_that_multiply(torch, f'cuda:{index}', names)


def types_that_multiply(torch: Any, device: str,
                        names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the types in which a small product comes out right, and why the others do not."""
    types, failures = [], {}
    for name in names:
        try:
            ones = torch.ones((16, 16), dtype=getattr(torch, name), device=device)
            total = (ones @ ones).float().sum().item()
        except RuntimeError as error:
            failures[name] = one_line(error)
            continue
        if total == 16 ** 3:
            types.append(name)
        else:
            failures[name] = f'the sum is {total:g} and not {16 ** 3}'
    return types, failures


def _how(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a process ended and the line in which it says why."""
    try:
        how = signal.Signals(-done.returncode).name
    except ValueError:
        how = f'status {done.returncode}'
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    why = [line for line in lines if re.search('error|fault', line, re.I)] or lines[-1:]
    return f'{how}: {why[0][:200]}' if why else how
