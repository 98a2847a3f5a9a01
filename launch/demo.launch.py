# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Start the simulated camera and segmenter together with caption_node.

ros2 launch caption_ros demo.launch.py, then in another terminal: ros2 topic echo /narration

Takes the arguments of caption.launch.py, too.
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'


def _number(name, kind):
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def generate_launch_description():
    """Return the launch description."""
    share = get_package_share_directory('caption_ros')
    config = os.path.join(share, 'config')
    use_sim_time = _number('use_sim_time', bool)
    remappings = [(name, LaunchConfiguration(name)) for name in ('image', 'mask')]
    remappings.append(('image/compressed', [LaunchConfiguration('image'), '/compressed']))
    return LaunchDescription([
        DeclareLaunchArgument('namespace', default_value='', description='Namespace.'),
        DeclareLaunchArgument('params_file',
                              default_value=os.path.join(config, 'caption_node.yaml'),
                              description='Parameter file of caption_node.'),
        DeclareLaunchArgument('camera_params_file',
                              default_value=os.path.join(config, 'scene_camera.yaml'),
                              description='Parameter file of scene_camera.'),
        DeclareLaunchArgument('model', default_value='tabletop',
                              description='Model; tabletop knows what the camera shows.'),
        DeclareLaunchArgument('describe', default_value='both',
                              choices=['auto', 'scene', 'regions', 'both'],
                              description='What to caption.'),
        DeclareLaunchArgument('seed', default_value='3', description='Seed of the first scene.'),
        DeclareLaunchArgument('rate_hz', default_value='15.0',
                              description='Camera rate in Hz, 0.1 to 200.'),
        DeclareLaunchArgument('scene_period_s', default_value='5.0',
                              description='Seconds until the next scene; 0 stays with the first.'),
        DeclareLaunchArgument('image', default_value='image', description='Image topic.'),
        DeclareLaunchArgument('image_transport', default_value='raw',
                              choices=['raw', 'compressed'],
                              description='What the camera publishes and caption_node takes.'),
        DeclareLaunchArgument('mask', default_value='mask', description='Mask topic.'),
        DeclareLaunchArgument('narration', default_value='narration',
                              description='Topic for sentences when what is seen has changed.'),
        DeclareLaunchArgument('speak', default_value='false', choices=['true', 'false'],
                              description='Say the narration aloud with espeak-ng.'),
        DeclareLaunchArgument('use_sim_time', default_value='false', choices=['true', 'false'],
                              description='Take the time from /clock.'),
        # Not fastdds_local.xml: "ros2 topic echo" from a shell without a profile must find the
        # nodes.
        DeclareLaunchArgument('fastdds_profile',
                              default_value=EnvironmentVariable(
                                  PROFILE_VARIABLE,
                                  default_value=os.path.join(config, 'fastdds.xml')),
                              description='Fast DDS profile of the nodes.'),
        SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration('fastdds_profile')),
        Node(
            package='caption_ros', executable='scene_camera', name='scene_camera',
            namespace=LaunchConfiguration('namespace'), output='screen',
            remappings=remappings,
            parameters=[LaunchConfiguration('camera_params_file'), {
                'use_sim_time': use_sim_time, 'seed': _number('seed', int),
                'rate_hz': _number('rate_hz', float),
                'image_transport': LaunchConfiguration('image_transport'),
                'scene_period_s': _number('scene_period_s', float)}]),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            os.path.join(share, 'launch', 'caption.launch.py'))),
        Node(
            package='caption_ros', executable='speak', name='speak',
            namespace=LaunchConfiguration('namespace'), output='screen',
            remappings=[('narration', LaunchConfiguration('narration'))],
            condition=IfCondition(LaunchConfiguration('speak'))),
    ])
