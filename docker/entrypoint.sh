#!/bin/bash
# Source ROS, then run what was asked for.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
exec "$@"
