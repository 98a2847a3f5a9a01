# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job, as a user starts it: processes of their own over real DDS."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from caption_ros.demo import DemoSummary, _Watcher
from caption_ros.scenes import scene_frame


@pytest.mark.timeout(240)
def test_the_demo_captions_what_the_camera_shows(tmp_path):
    env = {key: value for key, value in os.environ.items()
           if key not in ('FASTDDS_DEFAULT_PROFILES_FILE', 'ROS_DOMAIN_ID')}
    done = subprocess.run(
        [sys.executable, '-m', 'caption_ros.cli', 'demo', '--seconds', '5', '--out',
         str(tmp_path / 'out')], capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'scene: a ' in done.stdout and 'region 1: a ' in done.stdout
    assert 'inference: OK' in done.stdout
    pictures = sorted((tmp_path / 'out').glob('*.png'))
    assert pictures and Image.open(pictures[0]).width == 640
    wrote = [line.split(' wrote ')[1] for line in done.stdout.splitlines() if ' wrote ' in line]
    assert [Path(path) for path in wrote] == pictures


@pytest.mark.timeout(120)
def test_a_demo_without_a_model_ends_at_once_and_removes_nothing(tmp_path):
    pytest.importorskip('rclpy')
    (tmp_path / 'caption_00.png').write_bytes(b'of the last run')
    done = subprocess.run(
        [sys.executable, '-m', 'caption_ros.cli', 'demo', '--out', str(tmp_path), '--model',
         'bilp'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "caption-ros: the node has no model: model 'bilp' is unknown" in done.stderr
    assert (tmp_path / 'caption_00.png').exists()


def test_pictures_of_the_last_run_make_room_for_the_first_of_this_one(tmp_path):
    pytest.importorskip('rclpy')
    for name in ('caption_00.png', 'caption_05.png', 'mine.png'):
        (tmp_path / name).write_bytes(b'of the last run')
    watcher = _Watcher(SimpleNamespace(create_subscription=lambda *words: None), tmp_path, print)
    frame = scene_frame(0)
    watcher._on_image(_message(frame.rgb, 'rgb8'))
    watcher._on_mask(_message(frame.labels, 'mono8'))
    stamp = {'sec': 7, 'nanosec': 0}
    watcher._on_reference(SimpleNamespace(data=json.dumps(
        {'stamp': stamp, 'scene': 'a mug', 'regions': {'1': 'a mug'}})))
    watcher._on_captions(SimpleNamespace(data=json.dumps(
        {'stamp': stamp, 'age_s': 0.1, 'captions': [{'text': 'a mug', 'region': {'label': 1}}]})))
    watcher.judge()
    assert watcher.summary.pictures == [tmp_path / 'caption_00.png']
    assert Image.open(tmp_path / 'caption_00.png').size == (640, 480)
    assert {path.name for path in tmp_path.iterdir()} == {'caption_00.png', 'mine.png'}


def _message(pixels, encoding):
    header = SimpleNamespace(stamp=SimpleNamespace(sec=7, nanosec=0))
    pixels = pixels.astype('uint8')
    return SimpleNamespace(header=header, height=480, width=640, step=pixels.strides[0],
                           encoding=encoding, is_bigendian=0, data=pixels.tobytes())


@pytest.mark.parametrize('captions, matching, succeeded', [(0, 0, False), (10, 7, False),
                                                           (10, 8, True)])
def test_the_demo_succeeds_only_when_captions_match(captions, matching, succeeded):
    summary = DemoSummary(captions=captions, matching=matching)
    assert summary.succeeded is succeeded
    assert succeeded or str(captions or 'no caption') in summary.reason()
