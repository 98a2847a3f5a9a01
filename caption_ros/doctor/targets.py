# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether this torch has code for the machine's AMD GPUs, and HSA_OVERRIDE_GFX_VERSION.

The kernel tells what a GPU is; torch, under an override, tells what it is taken for. Code of one
target runs on another of its family where LLVM has a generic target for both.

References:
    LLVM, User Guide for AMDGPU Backend, Generic Processors.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from caption_ros.doctor.finding import OK, PROBLEM, WARNING, Finding

OVERRIDE = 'HSA_OVERRIDE_GFX_VERSION'
_NODES = Path('/sys/class/kfd/kfd/topology/nodes')
_FAMILIES = {
    'gfx9-generic': ('gfx900', 'gfx902', 'gfx904', 'gfx906', 'gfx909', 'gfx90c'),
    'gfx9-4-generic': ('gfx940', 'gfx941', 'gfx942', 'gfx950'),
    'gfx10-1-generic': ('gfx1010', 'gfx1011', 'gfx1012', 'gfx1013'),
    'gfx10-3-generic': ('gfx1030', 'gfx1031', 'gfx1032', 'gfx1033', 'gfx1034', 'gfx1035',
                        'gfx1036'),
    'gfx11-generic': ('gfx1100', 'gfx1101', 'gfx1102', 'gfx1103', 'gfx1150', 'gfx1151', 'gfx1152',
                      'gfx1153'),
    'gfx12-generic': ('gfx1200', 'gfx1201'),
}
_NAME = 'GPU target'


def built_targets() -> list[str]:
    """Return the targets that torch has code for; none if it is not a ROCm build."""
    try:
        torch = importlib.import_module('torch')
    except Exception:  # check_torch says what is wrong with it
        return []
    if not torch.version.hip:
        return []
    return [target.partition(':')[0] for target in torch.cuda.get_arch_list()]


def seen_targets() -> list[str]:
    """Return what torch takes each AMD GPU for; none if it sees none."""
    try:
        torch = importlib.import_module('torch')
    except Exception:  # check_torch says what is wrong with it
        return []
    if not torch.version.hip or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_properties(i).gcnArchName.partition(':')[0]
            for i in range(torch.cuda.device_count())]


def gpu_targets(nodes: Path = _NODES) -> list[str]:
    """Return the target of each AMD GPU, in the kernel's order, such as gfx1030."""
    targets = []
    for path in sorted(nodes.glob('*/properties'), key=lambda path: int(path.parent.name)):
        try:
            properties = path.read_text()
        except PermissionError:  # a GPU that this container was not given
            continue
        found = re.search(r'^gfx_target_version (\d+)', properties, re.M)
        version = int(found[1]) if found else 0  # 0 is a CPU
        if version:
            targets.append(f'gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}')
    return targets


def override_for(target: str, built: Sequence[str]) -> str:
    """Return the override under which built code runs on a target; empty when none does."""
    near = [name for name in built if _may_run(name, target)]
    # The same minor version first, then the lowest.
    near.sort(key=lambda name: (name[:-1] != target[:-1], name))
    return _version(near[0]) if near else ''


def check_targets(nodes: Path = _NODES, env: Mapping[str, str] = os.environ,
                  built: Callable[[], Sequence[str]] = built_targets,
                  seen: Callable[[], Sequence[str]] = seen_targets) -> Iterator[Finding]:
    """Look at what the GPUs are and what this torch has code for."""
    known = built()
    if not known:  # no ROCm build, which another check says
        return
    from_kernel = _visible(gpu_targets(nodes), env)
    # WSL has no such files, and torch sees what is overridden.
    visible = from_kernel or dict(enumerate(seen()))
    targets = list(visible.values())
    if env.get(OVERRIDE) and from_kernel:
        yield _check_override(env[OVERRIDE], targets, known)
        return
    own = [i for i, target in visible.items() if _has_code(target, known)]
    for target in dict.fromkeys(targets):
        if _has_code(target, known):
            yield Finding(_NAME, OK, f'{target}, and this torch has code for it')
            continue
        text = f'{target}, and this torch has code for {_listed(known)} only'
        value = override_for(target, known)
        if own:  # such as a processor's own graphics beside a card
            yield Finding(_NAME, WARNING, f'{text}; another GPU here is fine',
                          f'hide it: export HIP_VISIBLE_DEVICES={",".join(map(str, own))} '
                          '(GPUs in the order of rocminfo, the first is 0)')
        elif value:
            yield Finding(_NAME, PROBLEM, text,
                          f'export {OVERRIDE}={value} before what uses the GPU starts (it often '
                          'works, and AMD does not support it), or install a torch build for '
                          f'{target}, or set device:=cpu')
        else:
            yield Finding(_NAME, PROBLEM, text, 'no override helps: install a torch build for '
                          f'{target}, or set device:=cpu')


def _visible(targets: Sequence[str], env: Mapping[str, str]) -> dict[int, str]:
    """Return the targets that the environment does not hide, by HIP_VISIBLE_DEVICES's numbers."""
    numbers = _numbers(env.get('ROCR_VISIBLE_DEVICES', ''))
    if numbers:  # what HIP numbers anew
        targets = [targets[i] for i in numbers if i < len(targets)]
    numbers = _numbers(env.get('HIP_VISIBLE_DEVICES', '')) or range(len(targets))
    return {i: targets[i] for i in numbers if i < len(targets)}


def _numbers(listed: str) -> list[int]:
    """Return the numbers of a list; none where it names GPUs in another way, such as by UUID."""
    words = [word.strip() for word in listed.split(',')]
    return [int(word) for word in words] if all(map(str.isdecimal, words)) else []


def _check_override(value: str, targets: Sequence[str], known: Sequence[str]) -> Finding:
    shown = f'{OVERRIDE} is {value!r}'
    machine = ', '.join(dict.fromkeys(targets))
    lacking = [target for target in targets if not _has_code(target, known)]
    if not lacking:
        return Finding(_NAME, WARNING, f'{shown}, and {machine} needs none: this torch has code '
                       'for it', f'unset {OVERRIDE}')
    right = override_for(lacking[0], known)
    fix = f'export {OVERRIDE}={right}' if right else (
        f'unset {OVERRIDE}; install a torch build for {lacking[0]}, or set device:=cpu')
    named = _target(value)
    if named is None:
        return Finding(_NAME, PROBLEM, f'{shown}, wanted three numbers such as 10.3.0', fix)
    strange = [target for target in lacking if not _may_run(named, target)]
    if strange:
        return Finding(_NAME, PROBLEM, f'{shown}, which is {named}: code of another family than '
                       f'{strange[0]}, the GPU, or of a later one, and sure to fail on it', fix)
    if not _has_code(named, known):
        return Finding(_NAME, PROBLEM, f'{shown}, which is {named}: this torch has code for '
                       f'{_listed(known)} only', fix)
    return Finding(_NAME, OK, f'{machine}, run as {named} by {OVERRIDE}={value}')


def _family(target: str) -> tuple[str, ...]:
    return next((family for family in _FAMILIES.values() if target in family), (target,))


def _may_run(name: str, target: str) -> bool:
    """Tell whether a GPU may run code of another target: of its family, and of no later version.

    gfx1151 computes with floats in its scalar unit, for instance, which gfx1103 cannot.
    """
    return name in _family(target) and name[:-1] <= target[:-1]


def _has_code(target: str, known: Sequence[str]) -> bool:
    generic = next((name for name, family in _FAMILIES.items() if target in family), '')
    return target in known or generic in known


def _version(target: str) -> str:
    """Return a target as the override writes it: gfx90c is 9.0.12."""
    digits = target.removeprefix('gfx')
    return f'{digits[:-2]}.{int(digits[-2], 16)}.{int(digits[-1], 16)}'


def _target(version: str) -> str | None:
    """Return the target that an override names; None if it is none."""
    found = re.fullmatch(r'(\d{1,2})\.(\d{1,2})\.(\d{1,2})', version.strip())
    if found is None:
        return None
    major, minor, step = map(int, found.groups())
    return f'gfx{major}{minor:x}{step:x}'


def _listed(known: Sequence[str]) -> str:
    return ', '.join(known)
