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
            'DeclareLaunchArgument', 'EmitEvent', 'ExecuteProcess', 'IncludeLaunchDescription',
            'OpaqueFunction', 'RegisterEventHandler', 'SetEnvironmentVariable')},
        'launch.conditions': {'IfCondition': recorder('IfCondition')},
        'launch.event_handlers': {'OnProcessExit': recorder('OnProcessExit')},
        'launch.events': {'Shutdown': recorder('Shutdown')},
        'launch.launch_description_sources': {
            'PythonLaunchDescriptionSource': lambda path: Path(path)},
        'launch.substitutions': {'LaunchConfiguration': Configuration,
                                 'EnvironmentVariable': recorder('EnvironmentVariable')},
        'launch_ros': {},
        'launch_ros.actions': {name: recorder(name) for name in ('LifecycleNode', 'Node')},
        'launch_ros.event_handlers': {'OnStateTransition': recorder('OnStateTransition')},
        'launch_ros.parameter_descriptions': {'ParameterValue': recorder('ParameterValue')},
        'ament_index_python': {},
        'ament_index_python.packages': {'get_package_share_directory': lambda name: str(ROOT),
                                        'get_package_prefix': lambda name: '/prefix'},
    }
    for name, attributes in names.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return described


def described(path):
    """Return what a launch file describes, with what it includes."""
    entities = []
    for entity in runpy.run_path(str(path))['generate_launch_description']():
        entities += (described(entity.args[0]) if entity.kind == 'IncludeLaunchDescription'
                     else [entity])
    return entities


def declared(entities):
    # What was declared first counts, as in launch.
    return {entity.args[0]: entity.kwargs for entity in reversed(entities)
            if entity.kind == 'DeclareLaunchArgument'}


def given(entities):
    return {name: argument.get('default_value') for name, argument in declared(entities).items()}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_arguments_are_described_and_files_exist(launch, path):
    entities = launch(path)
    arguments = declared(entities)
    assert {'use_sim_time', 'namespace', 'params_file', 'image', 'mask'} <= set(arguments)
    for name, argument in arguments.items():
        assert argument['description'], name
        if 'default_value' not in argument:
            assert (path.name, name) == ('bag.launch.py', 'bag')  # nothing else has to be given
        if 'choices' in argument:
            assert argument['default_value'] in argument['choices'], name
        if name.endswith('params_file'):
            assert Path(argument['default_value']).is_file()
    variable = next(entity for entity in entities if entity.kind == 'SetEnvironmentVariable')
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
    context = given(entities)
    function, = (entity for entity in entities if entity.kind == 'OpaqueFunction')
    node, = function.kwargs['function'](context | values)
    return node.kwargs


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_choices_are_given_where_there_are_any(launch, path):
    arguments = declared(launch(path))
    for name in ('device', 'dtype', 'focus', 'describe', 'image_transport', 'log_level',
                 'autostart', 'respawn', 'use_sim_time'):
        assert len(arguments[name]['choices']) > 1, name


def test_what_is_left_empty_is_left_to_the_parameter_file(launch):
    node = node_of(launch(ROOT / 'launch/caption.launch.py'))
    assert node['parameters'] == [str(ROOT / 'config/caption_node.yaml'), {},
                                  {'use_sim_time': False, 'autostart': True}]
    assert node['remappings'] == [] and node['executable'] == 'caption_node'
    assert node['respawn'] is False


def test_a_lifecycle_manager_or_a_respawn_is_asked_for(launch):
    node = node_of(launch(ROOT / 'launch/caption.launch.py'), autostart='false', respawn='true',
                   log_level='debug', namespace='left')
    assert node['parameters'][2]['autostart'] is False and node['respawn'] is True
    assert node['arguments'] == ['--ros-args', '--log-level', 'debug']
    assert node['namespace'] == 'left'


def test_demo_starts_camera_node_and_on_demand_speech(launch):
    entities = launch(ROOT / 'launch/demo.launch.py')
    nodes = {entity.kwargs['executable']: entity.kwargs for entity in entities
             if entity.kind == 'Node'}
    assert set(nodes) == {'scene_camera', 'speak'}
    assert nodes['speak']['condition'].args[0].name == 'speak'
    assert given(entities)['speak'] == 'false'
    node = node_of(entities)
    assert node['parameters'][1] == {'model': 'tabletop', 'describe': 'both',
                                     'image_transport': 'raw'}
    camera = nodes['scene_camera']['parameters'][1]
    cameras = pytest.importorskip('caption_ros.ros.scene_camera').CAMERA_PARAMETERS
    assert camera['image_transport'].name == 'image_transport'  # what the node takes
    assert set(camera) - {'use_sim_time'} <= {spec.name for spec in cameras}


def test_a_recording_plays_once_the_node_is_active_and_ends_the_launch(launch):
    entities = launch(ROOT / 'launch/bag.launch.py')
    functions = [entity.kwargs['function'] for entity in entities
                 if entity.kind == 'OpaqueFunction']
    context = given(entities) | {'bag': 'drive_17', 'loop': 'true', 'rate': '2.0'}
    assert context['use_sim_time'] == 'true'
    starts, ends = functions[0](context)
    active, over = starts.args[0].kwargs, ends.args[0].kwargs
    player, = active['entities']
    assert active['goal_state'] == 'active' and over['target_action'] is player
    assert over['on_exit'][0].kwargs['event'].kind == 'Shutdown'
    assert player.kwargs['cmd'] == ['/prefix/lib/caption_ros/caption-ros', 'replay', 'drive_17',
                                    '--rate', '2.0', '--start', '0.0', '--loop']



def test_arguments_become_parameters_and_remappings(launch):
    node = node_of(launch(ROOT / 'launch/caption.launch.py'), model='blip',
                   mask='/seg/labels', image='/camera/image_raw', use_sim_time='true')
    assert node['parameters'][1] == {'model': 'blip'}
    assert node['parameters'][2]['use_sim_time'] is True
    assert ('mask', '/seg/labels') in node['remappings']
    assert ('image', '/camera/image_raw') in node['remappings']
    assert ('image/compressed', '/camera/image_raw/compressed') in node['remappings']


def test_overrides_are_parameters_of_the_node(launch):
    parameters = pytest.importorskip('caption_ros.ros.parameters')
    module = runpy.run_path(str(ROOT / 'launch/caption.launch.py'))
    specs = {spec.name: spec for spec in parameters.NODE_PARAMETERS}
    assert set(module['OVERRIDES']) <= set(specs)
    for name, choices in module['CHOICES'].items():
        assert tuple(choices) == ('', *specs[name].choices)
