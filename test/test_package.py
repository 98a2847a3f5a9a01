# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The package's own papers agree with each other and with the code."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import caption_ros

ROOT = Path(__file__).parents[1]
SOURCES = [*ROOT.glob('caption_ros/**/*.py'), *ROOT.glob('test/**/*.py'),
           *ROOT.glob('launch/*.py'), ROOT / 'setup.py']


def test_one_version_everywhere():
    version = ElementTree.parse(ROOT / 'package.xml').findtext('version')
    assert version == caption_ros.__version__
    assert f"version='{version}'" in (ROOT / 'setup.py').read_text()
    assert re.search(rf'^{re.escape(version)} \(', (ROOT / 'CHANGELOG.rst').read_text(), re.M)


def test_package_xml_is_format_3_with_a_licence_file():
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.get('format') == '3'
    licence = root.find('license')
    assert licence.text == 'Apache-2.0' and (ROOT / licence.get('file')).is_file()
    assert root.findtext('export/build_type') == 'ament_python'


def test_every_source_names_its_licence():
    assert len(SOURCES) > 30
    for path in SOURCES:
        assert 'SPDX-License-Identifier: Apache-2.0' in path.read_text()[:200], path


def test_importing_the_package_loads_neither_torch_nor_ros():
    code = ('import sys, caption_ros, caption_ros.cli; '
            'print([m for m in ("torch", "transformers", "rclpy") if m in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_nothing_trusts_remote_code_or_loads_pickles():
    for path in ROOT.glob('caption_ros/**/*.py'):
        text = path.read_text()
        assert not re.search(r'trust_remote_code\s*=\s*True|import pickle', text), path
        for call in re.findall(r'torch\.load\(.*', text):
            assert 'weights_only=True' in call, path


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '.'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_readme_shows_a_picture_and_the_two_commands_first():
    first = (ROOT / 'README.md').read_text().split('\n## ')[0]
    assert 'make demo' in first and 'make test' in first
    picture = re.search(r'!\[.*\]\((.*)\)', first)
    assert (ROOT / picture.group(1)).is_file()


def test_colcon_builds_and_ros2_run_would_find_the_nodes(tmp_path):
    # What colcon does with an ament_python package, without colcon itself.
    subprocess.run([sys.executable, 'setup.py', '-q', 'egg_info', '--egg-base', str(tmp_path),
                    'build', '--build-base', str(tmp_path / 'build'), 'install', '--prefix',
                    str(tmp_path / 'prefix'), '--record', str(tmp_path / 'record'),
                    '--single-version-externally-managed'],
                   cwd=ROOT, check=True, capture_output=True)
    prefix = tmp_path / 'prefix'
    for name in ('caption_node', 'scene_camera', 'speak', 'caption-ros'):
        assert (prefix / 'lib/caption_ros' / name).is_file(), name
    share = prefix / 'share/caption_ros'
    assert (share / 'package.xml').is_file()
    assert (share / 'config/fastdds.xml').is_file()
    assert (share / 'launch/caption.launch.py').is_file()
    assert (prefix / 'share/ament_index/resource_index/packages/caption_ros').is_file()
    weights = list(prefix.glob('lib/python*/site-packages/caption_ros/weights/tabletop/*'))
    assert any(path.name == 'model.safetensors' for path in weights)
