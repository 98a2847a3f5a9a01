# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Build caption_ros with colcon (ament_python) and with pip alike."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = 'caption_ros'

# torch is no hard requirement of anything here, so that a ROCm build is never replaced.
EXTRAS = {
    'models': ['torch>=2.4', 'transformers>=4.56', 'safetensors'],
    'keep-torch': ['transformers>=4.56', 'safetensors'],  # models without torch
    'opencv': ['opencv-python-headless'],
    'ros': [
        'ros-rclpy[fastrtps]', 'ros-sensor-msgs', 'ros-std-msgs', 'ros-std-srvs',
        'ros-diagnostic-msgs', 'ros-lifecycle-msgs', 'ros-rcl-interfaces', 'ros-rosgraph-msgs',
    ],
    'bags': ['rosbags>=0.11', 'mcap'],
    'scores': ['pycocoevalcap'],
    'plots': ['matplotlib'],
    'fleet': ['rosbags>=0.11', 'mcap', 'ray', 'pyarrow', 'fsspec'],
    'web': ['gradio>=6.31'],  # css, footer_links and run_history are options of launch()
    'test': ['pytest', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'ruff', 'rosbags',
             'cv-bridge', 'matplotlib', 'ray', 'pyarrow', 'fsspec', 'gradio>=6.31', 'playwright',
             'mcap-ros2-support'],
}

setup(
    name=PACKAGE,
    version='0.1.0',
    description='Image captioning with region focus for ROS 2.',
    license='Apache-2.0',
    maintainer='caption_ros contributors',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['captioners/*.cpp', 'weights/*/*', 'bags/page/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', glob('launch/*.launch.py')),
        (f'share/{PACKAGE}/config', glob('config/*')),
    ],
    python_requires='>=3.10',
    install_requires=['numpy', 'pillow', 'rich', 'rosbags-image', 'typer'],
    extras_require=EXTRAS,
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'caption-ros = caption_ros.cli:main',
            'caption_node = caption_ros.ros.caption_node:main',
            'scene_camera = caption_ros.ros.scene_camera:main',
            'speak = caption_ros.ros.speak:main',
        ],
    },
)
