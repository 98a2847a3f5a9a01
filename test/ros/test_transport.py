# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Camera frames get from process to process with the shipped profile, and not without it."""

import os

import pytest

from caption_ros import doctor
from caption_ros.errors import CaptionRosError
from caption_ros.resources import config_path

pytest.importorskip('rclpy')

from caption_ros.ros import transport_check  # noqa: E402
from caption_ros.ros.transport_check import TransportResult, check_transport  # noqa: E402

ATTEMPTS = 3


def environment(profile):
    env = {name: value for name, value in os.environ.items()
           if name not in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')}
    return env if profile is None else {
        **env, 'FASTDDS_DEFAULT_PROFILES_FILE': str(config_path(profile))}


@pytest.mark.parametrize(('profile', 'width', 'height', 'rate_hz'), [
    ('fastdds.xml', 640, 480, 30.0), ('fastdds.xml', 1920, 1080, 15.0),
    ('fastdds_local.xml', 640, 480, 30.0)])
def test_no_frame_is_lost_with_the_shipped_profile(profile, width, height, rate_hz):
    # A busy machine loses a frame now and then for a lack of time; a transport without room
    # loses frames each time.
    for _ in range(ATTEMPTS):
        result = check_transport(width, height, rate_hz, 2.0, environment(profile))
        assert result.sent == round(2 * rate_hz)
        if not result.lost:
            break
    assert result.lost == 0


def test_without_a_profile_the_doctor_counts_losses_and_names_the_fix(monkeypatch):
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    finding, = doctor.check_frames(seconds=1.0)
    if finding.level == doctor.OK:
        pytest.skip('this middleware gets large images through by default')
    assert finding.level == doctor.PROBLEM
    assert 'of 30 best-effort 640x480 images' in finding.text
    assert f'FASTDDS_DEFAULT_PROFILES_FILE={config_path("fastdds.xml")}' in finding.fix


def test_small_frames_need_no_profile():
    assert check_transport(320, 240, 30.0, 1.0, environment(None)).lost == 0


def test_a_process_that_cannot_start_ros_is_an_error_and_no_hang():
    env = {**environment(None), 'RMW_IMPLEMENTATION': 'rmw_of_nobody'}
    with pytest.raises(CaptionRosError, match='did not find each other'):
        check_transport(env=env)


def test_lost_is_what_was_sent_and_did_not_come(monkeypatch):
    result = TransportResult(640, 480, 30.0, sent=60, received=3, median_s=0.003)
    assert result.lost == 57
    monkeypatch.setattr(transport_check, 'check_transport', lambda *_: result)
    finding, = doctor.check_frames()
    assert finding.level == doctor.PROBLEM and '3 of 60' in finding.text
