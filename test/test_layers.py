# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Imports point upwards only: core, then models, then shell."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / 'caption_ros'
SHELL = ('ros', 'commands', 'web')
SHELL_FILES = {'cli.py', 'demo.py', 'doctor.py', 'bag.py', 'transport_check.py'}
MODELS = ('captioners', 'training')
FORBIDDEN = {
    'core': {'torch', 'transformers', 'rclpy', 'sensor_msgs', 'std_msgs', 'typer', 'rich',
             'gradio', 'ray'},
    'models': {'rclpy', 'sensor_msgs', 'std_msgs', 'typer', 'rich', 'rosbags', 'gradio', 'ray'},
    'shell': set(),
}
# Colour conversion and decoding are libraries' work, imported where they are used.
ALLOWED_IN_CORE = {'image.py': {'cv_bridge', 'rosbags', 'PIL'}, 'picture.py': {'PIL'}}
RANK = {'core': 0, 'models': 1, 'shell': 2}


def _layer(relative):
    if relative.parts[0] in SHELL or relative.name in SHELL_FILES:
        return 'shell'
    return 'models' if relative.parts[0] in MODELS else 'core'


def _imports(tree):
    """Yield imported module names; those under TYPE_CHECKING run never and do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, 'id', '') == 'TYPE_CHECKING':
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'relative import'
            yield node.module
        yield from _imports(node)


def _own(name):
    parts = name.split('.')[1:]
    if not parts:
        return None
    path = ROOT.joinpath(*parts)
    return Path(*parts) / '__init__.py' if path.is_dir() else Path(*parts).with_suffix('.py')


def test_no_import_points_the_wrong_way():
    wrong, seen = [], 0
    for path in ROOT.rglob('*.py'):
        relative = path.relative_to(ROOT)
        layer = _layer(relative)
        for name in _imports(ast.parse(path.read_text())):
            seen += 1
            top = name.split('.')[0]
            if top == 'caption_ros':
                target = _own(name)
                if target and RANK[_layer(target)] > RANK[layer]:
                    wrong.append(f'{relative} ({layer}) imports {name}')
            elif top in FORBIDDEN[layer] - ALLOWED_IN_CORE.get(relative.name, set()):
                wrong.append(f'{relative} ({layer}) imports {name}')
    assert seen > 100 and not wrong, wrong
