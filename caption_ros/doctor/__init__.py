# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What this machine can do and what is wrong with it: one finding a line, each with its fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from caption_ros.doctor.amd import check_gpu_access
from caption_ros.doctor.finding import INFO, OK, PROBLEM, WARNING, Finding
from caption_ros.doctor.libraries import check_conversion, check_models
from caption_ros.doctor.ros import (
    PROFILE_VARIABLE,
    check_camera,
    check_frames,
    check_profile,
    check_ros,
    how_to_set_profile,
    segment_bytes,
)
from caption_ros.doctor.targets import check_targets
from caption_ros.doctor.torch_build import check_python, check_torch

__all__ = [
    'INFO', 'OK', 'PROBLEM', 'PROFILE_VARIABLE', 'WARNING', 'Finding', 'check_camera',
    'check_conversion', 'check_frames', 'check_gpu_access', 'check_models', 'check_profile',
    'check_python', 'check_ros', 'check_targets', 'check_torch', 'examine', 'how_to_set_profile',
    'is_healthy', 'segment_bytes']


def examine(say: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """Look at everything; takes about ten seconds, most of them torch and the transport test.

    Args:
        say: Takes what is being looked at, for a progress line.
    """
    checks: tuple[tuple[str, Callable[[], Iterable[Finding]]], ...] = (
        ('Python', check_python), ('torch', check_torch), ('GPU access', check_gpu_access),
        ('GPU target', check_targets), ('image conversion', check_conversion),
        ('models', check_models), ('ROS 2', check_ros),
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
