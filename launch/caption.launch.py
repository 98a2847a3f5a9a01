# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Start caption_node beside a running camera and segmenter.

ros2 launch caption_ros caption.launch.py image:=/camera/image_raw mask:=/segmenter/labels
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchDescription

PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
RESPAWN_DELAY_S = 2.0
# Launch arguments that set the parameter of the same name; left empty, the file decides.
OVERRIDES = {
    'model': 'Model: known name, checkpoint folder or hub id.',
    'device': 'Where the model runs: auto, rocm, cuda or cpu.',
    'dtype': 'Number type of the weights: auto, bfloat16, float16, float32 or int8.',
    'focus': 'How the model looks at a region: auto, alpha, attention or crop.',
    'describe': 'What to caption: auto, scene, regions or both.',
    'image_transport': 'raw or compressed.',
}
CHOICES = {
    'device': ['', 'auto', 'rocm', 'cuda', 'cpu'],
    'dtype': ['', 'auto', 'bfloat16', 'float16', 'float32', 'int8'],
    'focus': ['', 'auto', 'alpha', 'attention', 'crop'],
    'describe': ['', 'auto', 'scene', 'regions', 'both'],
    'image_transport': ['', 'raw', 'compressed'],
}
REMAPPINGS = {
    'image': 'Camera topic; image_transport:=compressed adds /compressed.',
    'mask': 'Label image topic of the segmenter.',
    'caption': 'Topic for plain captions.',
    'captions': 'Topic for captions as JSON.',
    'narration': 'Topic for sentences when what is seen has changed.',
}


def _node(context):
    value = {name: LaunchConfiguration(name).perform(context) for name in (
        *OVERRIDES, *REMAPPINGS, 'name', 'namespace', 'params_file', 'log_level')}
    is_true = {name: LaunchConfiguration(name).perform(context) == 'true'
               for name in ('use_sim_time', 'autostart', 'respawn')}
    respawn = is_true.pop('respawn')
    parameters = {name: value[name] for name in OVERRIDES if value[name]}
    remappings = [(name, value[name]) for name in REMAPPINGS if value[name] != name]
    if ('image', value['image']) in remappings:
        remappings.append(('image/compressed', f'{value["image"]}/compressed'))
    return [LifecycleNode(
        package='caption_ros', executable='caption_node', name=value['name'],
        namespace=value['namespace'], output='screen', emulate_tty=True,
        respawn=respawn, respawn_delay=RESPAWN_DELAY_S,
        parameters=[value['params_file'], parameters, is_true], remappings=remappings,
        arguments=['--ros-args', '--log-level', value['log_level']])]


def generate_launch_description():
    """Return the launch description."""
    config = os.path.join(get_package_share_directory('caption_ros'), 'config')
    arguments = [
        DeclareLaunchArgument('name', default_value='caption_node', description='Node name.'),
        DeclareLaunchArgument('namespace', default_value='', description='Namespace.'),
        DeclareLaunchArgument('params_file',
                              default_value=os.path.join(config, 'caption_node.yaml'),
                              description='Parameter file.'),
        DeclareLaunchArgument('use_sim_time', default_value='false', choices=['true', 'false'],
                              description='Take the time from /clock.'),
        DeclareLaunchArgument('autostart', default_value='true', choices=['true', 'false'],
                              description='Configure and activate at start-up; false leaves that '
                              'to a lifecycle manager.'),
        DeclareLaunchArgument('respawn', default_value='false', choices=['true', 'false'],
                              description='Start the node again when it ends by itself.'),
        DeclareLaunchArgument('log_level', default_value='info',
                              choices=['debug', 'info', 'warn', 'error', 'fatal'],
                              description='Least level of log messages.'),
        DeclareLaunchArgument('fastdds_profile',
                              default_value=EnvironmentVariable(
                                  PROFILE_VARIABLE,
                                  default_value=os.path.join(config, 'fastdds.xml')),
                              description='Fast DDS profile. The process that publishes the '
                              'images needs it too.'),
    ]
    for name, description in OVERRIDES.items():
        extra = {'choices': CHOICES[name]} if name in CHOICES else {}
        arguments.append(DeclareLaunchArgument(
            name, default_value='', description=f'{description} Empty: as in params_file.',
            **extra))
    arguments += [DeclareLaunchArgument(name, default_value=name, description=description)
                  for name, description in REMAPPINGS.items()]
    return LaunchDescription([
        *arguments,
        SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration('fastdds_profile')),
        OpaqueFunction(function=_node),
    ])
