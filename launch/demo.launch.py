# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Start the simulated camera and segmenter together with caption_node.

ros2 launch caption_ros demo.launch.py, then in another terminal: ros2 topic echo /caption
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription

PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'


def generate_launch_description():
    """Return the launch description."""
    config = os.path.join(get_package_share_directory('caption_ros'), 'config')
    use_sim_time = ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)
    remappings = [(name, LaunchConfiguration(name)) for name in ('image', 'mask')]
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
        DeclareLaunchArgument('mask', default_value='mask', description='Mask topic.'),
        DeclareLaunchArgument('use_sim_time', default_value='false', choices=['true', 'false'],
                              description='Take the time from /clock.'),
        # Not fastdds_local.xml: "ros2 topic echo" from a shell without a profile must find the
        # nodes.
        DeclareLaunchArgument('fastdds_profile',
                              default_value=EnvironmentVariable(
                                  PROFILE_VARIABLE,
                                  default_value=os.path.join(config, 'fastdds.xml')),
                              description='Fast DDS profile of both nodes.'),
        SetEnvironmentVariable(PROFILE_VARIABLE, LaunchConfiguration('fastdds_profile')),
        Node(
            package='caption_ros', executable='scene_camera', name='scene_camera',
            namespace=LaunchConfiguration('namespace'), output='screen',
            remappings=remappings,
            parameters=[LaunchConfiguration('camera_params_file'), {
                'use_sim_time': use_sim_time,
                'seed': ParameterValue(LaunchConfiguration('seed'), value_type=int),
                'rate_hz': ParameterValue(LaunchConfiguration('rate_hz'), value_type=float),
                'scene_period_s': ParameterValue(LaunchConfiguration('scene_period_s'),
                                                 value_type=float),
            }]),
        LifecycleNode(
            package='caption_ros', executable='caption_node', name='caption_node',
            namespace=LaunchConfiguration('namespace'), output='screen', emulate_tty=True,
            remappings=remappings,
            parameters=[LaunchConfiguration('params_file'), {
                'use_sim_time': use_sim_time,
                'autostart': True,
                'model': ParameterValue(LaunchConfiguration('model'), value_type=str),
                'describe': ParameterValue(LaunchConfiguration('describe'), value_type=str),
            }]),
    ])
