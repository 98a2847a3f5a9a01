# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Imports point upwards only: core, then models, then shell."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / 'caption_ros'
SHELL = ('ros', 'commands', 'web', 'bags', 'fleet', 'doctor')
SHELL_FILES = {'cli.py', 'demo.py', 'bag.py', 'transport_check.py'}
MODELS = ('captioners', 'training', 'benchmark')
RANK = {'core': 0, 'models': 1, 'shell': 2}
CORE_MAY_IMPORT = {*sys.stdlib_module_names, 'numpy', 'cv2'}
# The core writes no log, reads no clock and talks to nobody.
CORE_MAY_NOT_IMPORT = {'logging', 'time', 'datetime', 'socket', 'subprocess', 'asyncio'}
# Colour conversion and decoding are libraries' work, imported by the function that needs them.
LAZY_IN_CORE = {'image.py': {'cv_bridge', 'rosbags', 'PIL'}, 'picture.py': {'PIL'},
                'annotate.py': {'PIL'}}
MODELS_MAY_NOT_IMPORT = {'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs',
                         'vision_msgs', 'cv_bridge', 'rosbags', 'typer', 'rich', 'gradio', 'ray'}


def _layer(relative):
    if relative.parts[0] in SHELL or relative.as_posix() in SHELL_FILES:
        return 'shell'
    return 'models' if relative.parts[0] in MODELS else 'core'


def _imports(tree, lazy=False):
    """Yield imported names and whether inside a function; TYPE_CHECKING never runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING':
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield '.' * node.level, lazy
            else:  # a name may be a module: from caption_ros import ros
                yield from ((f'{node.module}.{alias.name}', lazy) for alias in node.names)
        yield from _imports(node, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _own(name):
    """Return the file of a module of this package, or of the module that a name is taken from."""
    parts = name.split('.')[1:]
    for end in range(len(parts), 0, -1):
        path = Path(*parts[:end])
        if (ROOT / path).is_dir():
            return path / '__init__.py'
        if (ROOT / path.with_suffix('.py')).is_file():
            return path.with_suffix('.py')
    return None


def _wrong(relative, source):
    """Return the imports of a file that point the wrong way."""
    layer, found = _layer(relative), []
    # The front page of the package hands on names of all layers, loading each when asked for.
    front = relative.as_posix() == '__init__.py'
    for name, lazy in _imports(ast.parse(source)):
        top = name.split('.')[0]
        if not top:
            found.append(f'{relative}: relative import')
        elif top == 'caption_ros':
            target = _own(name)
            if target and RANK[_layer(target)] > RANK[layer] and not (front and lazy):
                found.append(f'{relative} ({layer}) imports {name}')
        elif (layer == 'models' and top in MODELS_MAY_NOT_IMPORT) or (layer == 'core' and (
                top in CORE_MAY_NOT_IMPORT or top not in CORE_MAY_IMPORT) and not (
                lazy and top in LAZY_IN_CORE.get(relative.as_posix(), ()))):
            found.append(f'{relative} ({layer}) imports {name}{"" if lazy else " at its top"}')
    return found


FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob('*.py'))


@pytest.mark.parametrize('relative', FILES, ids=str)
def test_no_import_points_the_wrong_way(relative):
    assert _wrong(relative, (ROOT / relative).read_text()) == []


@pytest.mark.parametrize('relative, source', [
    ('region.py', 'import torch'),
    ('region.py', 'def f():\n    import rclpy'),
    ('region.py', 'import time'),
    ('region.py', 'from PIL import Image'),
    ('image.py', 'from PIL import Image'),
    ('region.py', 'from caption_ros.ros.messages import image_from_msg'),
    ('region.py', 'from caption_ros import cli'),
    ('region.py', 'if True:\n    from . import errors'),
    ('scenes/render.py', 'import torch'),
    ('captioners/blip.py', 'import rclpy'),
    ('captioners/blip.py', 'from caption_ros.commands import doctor'),
])
def test_the_check_sees_a_wrong_import(relative, source):
    assert len(_wrong(Path(relative), source)) == 1


@pytest.mark.parametrize('relative, source', [
    ('region.py', 'import cv2\nimport numpy as np\nfrom caption_ros.errors import RegionError'),
    ('image.py', 'def f():\n    from PIL import Image'),
    ('captioners/blip.py', 'import torch\nfrom caption_ros.region import Region'),
    ('training/train.py', 'from caption_ros.captioners import load_captioner'),
    ('ros/caption_node.py', 'import rclpy\nfrom caption_ros.captioners import load_captioner'),
])
def test_the_check_lets_a_right_import_pass(relative, source):
    assert _wrong(Path(relative), source) == []
