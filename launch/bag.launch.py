# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Play a recording into caption_node, by the recording's clock; end with it.

ros2 launch caption_ros bag.launch.py bag:=drive_17 image:=/camera/image_raw mask:=/labels

Takes the arguments of caption.launch.py, too.
"""

import os

from ament_index_python.packages import get_package_prefix, get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from launch import LaunchDescription


def _play(context):
    value = {name: LaunchConfiguration(name).perform(context)
             for name in ('bag', 'rate', 'start', 'loop')}
    program = os.path.join(get_package_prefix('caption_ros'), 'lib', 'caption_ros', 'caption-ros')
    player = ExecuteProcess(
        cmd=[program, 'replay', value['bag'], '--rate', value['rate'], '--start', value['start'],
             *(['--loop'] if value['loop'] == 'true' else [])],
        name='replay', output='screen')
    return [
        # Not before a model has been loaded: the beginning would go by unseen.
        RegisterEventHandler(OnStateTransition(goal_state='active', entities=[player],
                                               handle_once=True)),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[
            EmitEvent(event=Shutdown(reason='the recording has ended'))])),
    ]


def generate_launch_description():
    """Return the launch description."""
    share = get_package_share_directory('caption_ros')
    config = os.path.join(share, 'config')
    return LaunchDescription([
        DeclareLaunchArgument('bag', description='Recording: a rosbag2 folder, .mcap, .db3 or a '
                              'ROS 1 .bag.'),
        DeclareLaunchArgument('rate', default_value='1.0',
                              description='Seconds of the recording per second.'),
        DeclareLaunchArgument('start', default_value='0.0',
                              description='Second of the recording to begin at.'),
        DeclareLaunchArgument('loop', default_value='false', choices=['true', 'false'],
                              description='Begin again at the end.'),
        DeclareLaunchArgument('use_sim_time', default_value='true', choices=['true', 'false'],
                              description='Take the time from /clock, which the player sends.'),
        DeclareLaunchArgument('image', default_value='image', description='Recorded image topic.'),
        DeclareLaunchArgument('mask', default_value='mask', description='Recorded mask topic.'),
        DeclareLaunchArgument('namespace', default_value='', description='Namespace.'),
        DeclareLaunchArgument('params_file',
                              default_value=os.path.join(config, 'caption_node.yaml'),
                              description='Parameter file of caption_node.'),
        OpaqueFunction(function=_play),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            os.path.join(share, 'launch', 'caption.launch.py'))),
    ])
