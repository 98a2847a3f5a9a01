# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Real rclpy over real DDS on loopback, in a domain of this process."""

from __future__ import annotations

import os
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

from nodebench import Bench  # noqa: E402


@pytest.fixture(scope='session')
def ros() -> Iterator[None]:
    rclpy.init(args=[])
    yield
    rclpy.try_shutdown()


@pytest.fixture
def make_bench(ros: None) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**parameters: Any) -> Bench:
        benches.append(Bench(**parameters))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()
