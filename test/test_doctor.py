# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor names each thing that is wrong together with its fix."""

import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from caption_ros import doctor
from caption_ros.captioners.devices import torch_build
from caption_ros.commands.doctor import doctor as command
from caption_ros.errors import CaptionRosError
from caption_ros.resources import config_path

PROFILE = """<?xml version="1.0"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor>
      <transport_id>small</transport_id><type>SHM</type>{segment}
    </transport_descriptor>
    <transport_descriptor>
      <transport_id>unused</transport_id><type>SHM</type><segment_size>67108864</segment_size>
    </transport_descriptor>
  </transport_descriptors>
  <participant profile_name="one" is_default_profile="{default}">
    <rtps><userTransports><transport_id>small</transport_id></userTransports></rtps>
  </participant>
</profiles>
"""


def write_profile(path, segment='', default='true'):
    path.write_text(PROFILE.format(segment=segment, default=default))
    return path


def profile_finding(path):
    return list(doctor.check_profile({'FASTDDS_DEFAULT_PROFILES_FILE': str(path)}))[0]


@pytest.mark.parametrize('name', ['fastdds.xml', 'fastdds_local.xml'])
def test_the_shipped_profiles_have_room_for_images(name):
    assert doctor.segment_bytes(config_path(name)) == 64 << 20
    assert profile_finding(config_path(name)).level == 'ok'


def test_no_profile_is_a_warning_that_names_the_shipped_one():
    finding, = doctor.check_profile({})
    assert finding.level == 'warning'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE is not set' in finding.text
    assert str(config_path('fastdds.xml')) in finding.fix
    assert 'process that publishes' in finding.fix


def test_a_missing_profile_is_a_problem(tmp_path):
    finding = profile_finding(tmp_path / 'gone.xml')
    assert finding.level == 'problem' and 'gone.xml, which is not there' in finding.text
    assert finding.fix


def test_a_small_segment_is_a_warning_with_both_sizes(tmp_path):
    path = write_profile(tmp_path / 'p.xml', '<segment_size>1048576</segment_size>')
    finding = profile_finding(path)
    assert finding.level == 'warning'
    assert '1024 KiB' in finding.text and '12150 KiB' in finding.text


def test_a_segment_without_a_size_has_the_default_of_fast_dds(tmp_path):
    assert doctor.segment_bytes(write_profile(tmp_path / 'p.xml')) == 512 << 10


def test_a_profile_that_is_not_the_default_sets_up_nothing(tmp_path):
    path = write_profile(tmp_path / 'p.xml', default='false')
    assert doctor.segment_bytes(path) is None
    assert profile_finding(path).level == 'warning'


def test_a_profile_that_is_no_xml_is_a_problem(tmp_path):
    path = tmp_path / 'p.xml'
    path.write_text('<dds>')
    with pytest.raises(CaptionRosError, match='cannot be read'):
        doctor.segment_bytes(path)
    assert profile_finding(path).level == 'problem'


def test_the_old_variable_counts():
    env = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(config_path('fastdds.xml'))}
    assert list(doctor.check_profile(env))[0].level == 'ok'


def test_another_middleware_needs_no_profile():
    finding, = doctor.check_profile({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'})
    assert finding.level == 'ok' and 'rmw_cyclonedds_cpp' in finding.text


def test_a_compute_device_that_may_not_be_opened_names_the_groups(tmp_path, monkeypatch):
    kfd = tmp_path / 'kfd'
    kfd.touch()
    monkeypatch.setattr(doctor.os, 'access', lambda *_: False)
    finding, = doctor.check_gpu_access(kfd)
    assert finding.level == 'problem'
    assert 'usermod -aG' in finding.fix and 'render' in finding.fix and 'video' in finding.fix


def test_a_compute_device_that_may_be_opened_is_ok(tmp_path):
    kfd = tmp_path / 'kfd'
    kfd.touch()
    finding, = doctor.check_gpu_access(kfd)
    assert finding.level == 'ok'


def test_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    finding, = doctor.check_torch()
    assert finding.level == 'problem' and 'cannot be imported' in finding.text and finding.fix


def test_torch_names_its_build():
    findings = {finding.name: finding for finding in doctor.check_torch()}
    build = {'rocm': 'ROCm', 'cuda': 'CUDA', 'cpu': 'CPU'}[torch_build()]
    assert build in findings['torch'].text
    assert 'float32' in findings['CPU types'].text


def test_a_gpu_without_kernels_is_a_problem_with_a_fix():
    def refuse(*_, **__):
        raise RuntimeError('HIP error: no kernel image is available for execution\nmore')
    gpu = SimpleNamespace(name='Radeon', gcnArchName='gfx1100', total_memory=16 << 30)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1,
        get_device_properties=lambda index: gpu, device=lambda index: nullcontext(),
        is_bf16_supported=lambda **_: True)
    fake = SimpleNamespace(cuda=cuda, ones=refuse, float32=None, float16=None, bfloat16=None)
    finding, = doctor._check_gpus(fake, 'rocm')
    assert finding.level == 'problem' and 'no kernel image' in finding.text
    assert 'gfx1100' in finding.text and 'device:=cpu' in finding.fix


def test_rclpy_that_cannot_be_imported_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    monkeypatch.setenv('_ROS_WHEELS_BOOTSTRAP_COMPLETE', '1')
    finding, = doctor.check_ros()
    assert finding.level == 'problem' and 'source a ROS 2' in finding.fix
    assert 'unset _ROS_WHEELS_BOOTSTRAP_COMPLETE' in finding.fix


def test_models_that_are_not_here_say_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    found = {finding.name: finding for finding in doctor.check_models()}
    assert found['model blip'].level == 'ok'  # nobody asked for it
    assert str(tmp_path / 'blip') in found['model blip'].fix


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch):
    def fail():
        raise OSError('no such thing')
    for name in ('check_torch', 'check_ros', 'check_frames', 'check_models'):
        monkeypatch.setattr(doctor, name, fail)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings['torch'].level == 'problem' and 'no such thing' in findings['torch'].text
    assert findings['Python'].level == 'ok'


@pytest.mark.parametrize(('level', 'status'), [('ok', 0), ('warning', 0), ('problem', 1)])
def test_exit_status_is_one_only_when_something_is_broken(monkeypatch, level, status):
    findings = [doctor.Finding('torch', level, 'what came', 'what to do')]
    monkeypatch.setattr(doctor, 'examine', lambda say: findings)
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ['--json'])
    assert done.exit_code == status
    answer = json.loads(done.stdout)
    assert answer['healthy'] == (status == 0)
    assert answer['findings'] == [{'name': 'torch', 'level': level, 'text': 'what came',
                                   'fix': 'what to do'}]
    plain = CliRunner().invoke(app, [])
    assert 'torch: what came' in plain.stdout and 'what to do' in plain.stdout
