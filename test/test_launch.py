# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Launch files, read with stand-ins where launch is not installed (it is not on PyPI)."""

import ast
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'launch').glob('*.launch.py'))


def recorder(kind):
    def make(*args, **kwargs):
        return SimpleNamespace(kind=kind, args=args, kwargs=kwargs)
    return make


class Configuration:
    """Stands for launch's LaunchConfiguration."""

    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


@pytest.fixture
def launch(monkeypatch):
    names = {
        'launch': {'LaunchDescription': lambda entities: entities},
        'launch.actions': {name: recorder(name) for name in (
            'DeclareLaunchArgument', 'OpaqueFunction', 'SetEnvironmentVariable')},
        'launch.substitutions': {'LaunchConfiguration': Configuration,
                                 'EnvironmentVariable': recorder('EnvironmentVariable')},
        'launch_ros': {},
        'launch_ros.actions': {name: recorder(name) for name in ('LifecycleNode', 'Node')},
        'launch_ros.parameter_descriptions': {'ParameterValue': recorder('ParameterValue')},
        'ament_index_python': {},
        'ament_index_python.packages': {'get_package_share_directory': lambda name: str(ROOT)},
    }
    for name, attributes in names.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return lambda path: runpy.run_path(str(path))['generate_launch_description']()


def declared(entities):
    return {entity.args[0]: entity.kwargs for entity in entities
            if entity.kind == 'DeclareLaunchArgument'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_arguments_are_described_and_files_exist(launch, path):
    entities = launch(path)
    arguments = declared(entities)
    assert {'use_sim_time', 'namespace', 'params_file', 'image', 'mask'} <= set(arguments)
    for name, argument in arguments.items():
        assert argument['description'], name
        if 'choices' in argument:
            assert argument['default_value'] in argument['choices'], name
        if name.endswith('params_file'):
            assert Path(argument['default_value']).is_file()
    variable, = (entity for entity in entities if entity.kind == 'SetEnvironmentVariable')
    assert variable.args[0] == 'FASTDDS_DEFAULT_PROFILES_FILE'
    profile = arguments['fastdds_profile']['default_value']
    assert profile.args[0] == variable.args[0]  # what the user has set stays
    assert Path(profile.kwargs['default_value']).is_file()


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_configuration_that_is_read_is_declared(launch, path):
    read = {node.args[0].value for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'LaunchConfiguration'
            and isinstance(node.args[0], ast.Constant)}
    assert read <= set(declared(launch(path)))


def node_of(entities, **values):
    context = {name: argument['default_value'] for name, argument in declared(entities).items()}
    function, = (entity for entity in entities if entity.kind == 'OpaqueFunction')
    node, = function.kwargs['function'](context | values)
    return node.kwargs


def test_what_is_left_empty_is_left_to_the_parameter_file(launch):
    node = node_of(launch(ROOT / 'launch/caption_node.launch.py'))
    assert node['parameters'] == [str(ROOT / 'config/caption_node.yaml'), {},
                                  {'use_sim_time': False, 'autostart': True}]
    assert node['remappings'] == [] and node['executable'] == 'caption_node'


def test_arguments_become_parameters_and_remappings(launch):
    node = node_of(launch(ROOT / 'launch/caption_node.launch.py'), model='blip',
                   mask='/seg/labels', image='/camera/image_raw', use_sim_time='true')
    assert node['parameters'][1] == {'model': 'blip'}
    assert node['parameters'][2]['use_sim_time'] is True
    assert ('mask', '/seg/labels') in node['remappings']
    assert ('image', '/camera/image_raw') in node['remappings']
    assert ('image/compressed', '/camera/image_raw/compressed') in node['remappings']


def test_overrides_are_parameters_of_the_node(launch):
    parameters = pytest.importorskip('caption_ros.ros.parameters')
    module = runpy.run_path(str(ROOT / 'launch/caption_node.launch.py'))
    specs = {spec.name: spec for spec in parameters.NODE_PARAMETERS}
    assert set(module['OVERRIDES']) <= set(specs)
    for name, choices in module['CHOICES'].items():
        assert tuple(choices) == ('', *specs[name].choices)
