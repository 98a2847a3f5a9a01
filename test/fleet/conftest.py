# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings as the tests of caption_ros.bags write them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import fsspec
import pytest

from caption_ros.fleet.work import caption_source

_SPEC = importlib.util.spec_from_file_location(
    'recordings_for_tests', Path(__file__).parents[1] / 'bags/conftest.py')
_WRITING = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_WRITING)
bags = _WRITING.bags
pixels = _WRITING.pixels


@pytest.fixture
def memory():
    """An empty file system that is no disk."""
    system = fsspec.filesystem('memory')
    for path in system.find('/'):
        system.rm_file(path)
    yield system
    for path in system.find('/'):
        system.rm_file(path)


@pytest.fixture
def copy_to_memory(memory):
    """Return a function that copies a folder to memory://robots."""
    def copy(folder):
        for path in folder.rglob('*'):
            if path.is_file():
                memory.pipe_file(f'/robots/{path.relative_to(folder)}', path.read_bytes())
    return copy


@pytest.fixture
def fleet(tmp_path, bags):
    """Two recordings, one with masks, and their tasks."""
    bags.write(tmp_path / 'in/masked', bags.camera(4, masks=True))
    bags.write(tmp_path / 'in/plain', bags.camera(3), 'mcap')
    return tmp_path / 'in'


@pytest.fixture
def work(monkeypatch, pixels):
    """Do the tasks in this process, in the place of Ray; returns those done."""
    done = []

    def run_tasks(tasks, load, options, summary, say, progress):
        for task in tasks:
            outcome = caption_source(task, load)
            done.append(task.source.name)
            (summary.failed if outcome.error else summary.done)[task.source.label] = outcome
    monkeypatch.setattr('caption_ros.fleet.workers.run_tasks', run_tasks)
    return done
