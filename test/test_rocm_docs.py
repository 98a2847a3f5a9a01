# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/rocm.md says what the code does."""

import re
from pathlib import Path

from caption_ros.captioners.acceleration import Acceleration
from caption_ros.doctor.targets import override_for

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'docs/rocm.md').read_text()
TORCHS = ('gfx900', 'gfx906', 'gfx90a', 'gfx1030', 'gfx1100', 'gfx1200')


def section(number):
    return TEXT.split(f'\n## {number}. ')[1].split('\n## ')[0]


def rows(text):
    return [[cell.strip() for cell in line.strip('|').split(' | ')]
            for line in text.splitlines() if line.startswith('| ')]


def test_every_setting_for_speed_is_explained():
    names = {row[0].strip('`') for row in rows(section(5)) if row[0].startswith('`')}
    assert set(Acceleration.__dataclass_fields__) | {'dtype'} <= names


def test_the_overrides_are_those_of_the_doctor():
    found = 0
    table = [row for row in rows(section(3)) if len(row) == 3 and row[0].startswith('gfx')]
    for gpu, _, override in table:
        for target in re.findall(r'gfx\w+', gpu):
            named = re.match(r'\d+\.\d+\.\d+', override)
            if 'other one' in override:
                assert override_for(target, TORCHS) == '12.0.0'
            else:
                assert override_for(target, TORCHS) == (named[0] if named else ''), target
            found += 1
    assert found > 10


def test_the_keys_of_diagnostics_are_those_of_the_code():
    code = ''.join((ROOT / f'caption_ros/captioners/{name}.py').read_text()
                   for name in ('acceleration', 'base', 'gpu_figures'))
    keys = [key for row in rows(section(6)) for key in re.findall('`([^`]+)`', row[0])
            if row[0] != 'key']
    assert len(keys) > 10
    assert [key for key in keys if f"'{key}'" not in code] == []


def test_files_that_are_named_are_here():
    for path in re.findall(r'docker/[\w.]+', TEXT):
        assert (ROOT / path).is_file(), path
