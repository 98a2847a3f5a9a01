# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Real rclpy over real DDS on loopback, in a domain of this process."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Before rclpy is imported anywhere: the middleware reads them when the first context starts.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# Not above 101, whose ports Linux hands to other programs; 60 to 99 are the transport check's.
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 58)
os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] = str(ROOT / 'config/fastdds_local.xml')


rclpy = pytest.importorskip('rclpy')

import interfaces  # noqa: E402
from nodebench import Bench  # noqa: E402


@pytest.fixture(scope='session')
def ros() -> Iterator[None]:
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope='session')
def generated_msgs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder with vision_msgs and hri_msgs; empty when they are installed."""
    if all(map(importlib.util.find_spec, interfaces.MESSAGES)):
        return ''
    reason = interfaces.missing()
    if reason:
        pytest.skip(f'vision_msgs and hri_msgs are not installed and cannot be made: {reason}')
    folder = tmp_path_factory.mktemp('msgs')
    interfaces.build(folder)
    return str(folder)


@pytest.fixture
def more_msgs(generated_msgs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have vision_msgs and hri_msgs installed for one test."""
    if generated_msgs:
        monkeypatch.syspath_prepend(generated_msgs)


@pytest.fixture
def no_more_msgs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have neither vision_msgs nor hri_msgs for one test."""
    for name in interfaces.MESSAGES:
        for module in (name, f'{name}.msg'):
            monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def make_bench(ros: None) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        benches.append(Bench(**parameters))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
