# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor names each thing that is wrong together with its fix."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from caption_ros import doctor
from caption_ros.captioners import KNOWN, ready_checkpoint
from caption_ros.captioners.devices import torch_build as build_of_torch
from caption_ros.commands.doctor import doctor as command
from caption_ros.doctor import product, torch_build
from caption_ros.errors import CaptionRosError
from caption_ros.resources import config_path

ROOT = Path(__file__).parents[2]
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
    assert finding.level == 'warn'
    assert 'FASTDDS_DEFAULT_PROFILES_FILE is not set' in finding.text
    assert str(config_path('fastdds.xml')) in finding.fix
    assert 'process that publishes' in finding.fix


def test_a_missing_profile_is_a_warning(tmp_path):
    finding = profile_finding(tmp_path / 'gone.xml')
    assert finding.level == 'warn' and 'gone.xml, which is not there' in finding.text
    assert finding.fix


def test_a_small_segment_is_a_warning_with_both_sizes(tmp_path):
    path = write_profile(tmp_path / 'p.xml', '<segment_size>1048576</segment_size>')
    finding = profile_finding(path)
    assert finding.level == 'warn'
    assert '1024 KiB' in finding.text and '24300 KiB' in finding.text


def test_a_segment_without_a_size_has_the_default_of_fast_dds(tmp_path):
    assert doctor.segment_bytes(write_profile(tmp_path / 'p.xml')) == 512 << 10


def test_a_profile_that_is_not_the_default_sets_up_nothing(tmp_path):
    path = write_profile(tmp_path / 'p.xml', default='false')
    assert doctor.segment_bytes(path) is None
    assert profile_finding(path).level == 'warn'


def test_a_profile_that_is_no_xml_is_a_warning(tmp_path):
    path = tmp_path / 'p.xml'
    path.write_text('<dds>')
    with pytest.raises(CaptionRosError, match='cannot be read'):
        doctor.segment_bytes(path)
    assert profile_finding(path).level == 'warn'


def test_the_old_variable_counts():
    env = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(config_path('fastdds.xml'))}
    assert list(doctor.check_profile(env))[0].level == 'ok'


def test_another_middleware_needs_no_profile():
    finding, = doctor.check_profile({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'})
    assert finding.level == 'ok' and 'rmw_cyclonedds_cpp' in finding.text


def test_a_compute_device_that_may_not_be_opened_names_the_groups(tmp_path, monkeypatch):
    kfd = tmp_path / 'kfd'
    kfd.touch()
    monkeypatch.setattr(os, 'access', lambda *_: False)
    finding, = doctor.check_gpu_access(kfd)
    assert finding.level == 'error'
    assert 'usermod -aG' in finding.fix and 'render' in finding.fix and 'video' in finding.fix


def test_a_compute_device_that_may_be_opened_is_ok(tmp_path):
    kfd = tmp_path / 'kfd'
    kfd.touch()
    finding, = doctor.check_gpu_access(kfd)
    assert finding.level == 'ok'


def test_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    finding, = doctor.check_torch()
    assert finding.level == 'error' and 'cannot be imported' in finding.text and finding.fix


def test_torch_names_its_build():
    findings = {finding.name: finding for finding in doctor.check_torch()}
    build = {'rocm': 'ROCm', 'cuda': 'CUDA', 'cpu': 'CPU'}[build_of_torch()]
    assert build in findings['torch'].text
    assert findings['CPU types'].text.startswith('float32, bfloat16, float16;')


def drm_with(tmp_path, vendor):
    for name in ('card0', 'card0-HDMI-A-1', 'renderD128'):
        (tmp_path / name / 'device').mkdir(parents=True)
        (tmp_path / name / 'device' / 'vendor').write_text(f'{vendor}\n')
    return tmp_path


@pytest.mark.parametrize(('vendor', 'is_hip', 'level', 'said'), [
    ('0x1002', False, 'warn', 'AMD GPU card0 is here'),
    ('0x1002', True, 'warn', 'AMD GPU card0 is here'),
    ('0x8086', True, 'warn', 'torch is a ROCm build'),
    ('0x8086', False, 'info', 'no AMD GPU'),
])
def test_an_amd_gpu_or_a_rocm_torch_without_kfd_is_a_warning(tmp_path, vendor, is_hip, level,
                                                             said):
    drm = drm_with(tmp_path / 'drm', vendor)
    finding, = doctor.check_gpu_access(tmp_path / 'kfd', drm, lambda: is_hip)
    assert finding.level == level and said in finding.text
    assert ('--device=/dev/kfd' in finding.fix) == (level == 'warn')


def test_conversion_libraries_are_tried_on_a_pixel():
    found = {finding.name: finding for finding in doctor.check_conversion()}
    assert found['rosbags-image'].level == 'ok'
    assert found['cv_bridge'].level in ('ok', 'info')


def test_a_cv_bridge_that_does_not_import_is_information_only(tmp_path, monkeypatch):
    (tmp_path / 'cv_bridge.py').write_text("raise ImportError('_ARRAY_API not found')\n")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    code = ('import json; from caption_ros import doctor; '
            'print(json.dumps([f.to_dict() for f in doctor.check_conversion()]))')
    done = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path},
                          capture_output=True, text=True, check=True)
    found = {finding['name']: finding for finding in json.loads(done.stdout)}
    assert found['cv_bridge']['level'] == 'info' and found['cv_bridge']['fix']
    assert found['rosbags-image']['level'] == 'ok'


def test_both_sizes_of_camera_frames_get_through_with_the_shipped_profile(monkeypatch):
    pytest.importorskip('rclpy')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(config_path('fastdds_local.xml')))
    small, large = doctor.check_camera()
    assert (small.level, large.level) == ('ok', 'ok'), (small, large)
    assert '30 of 30 best-effort 640x480' in small.text
    assert '10 of 10 best-effort 1920x1080' in large.text


def test_both_sizes_of_camera_frames_without_a_profile_name_the_fix(monkeypatch):
    pytest.importorskip('rclpy')
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    small, large = doctor.check_camera()
    assert '640x480' in small.text and '1920x1080' in large.text
    for finding in (small, large):
        assert (finding.level == 'ok') == (not finding.fix)
        assert finding.level == 'ok' or str(config_path('fastdds.xml')) in finding.fix


def test_config_is_found_beside_the_package_and_nothing_else_is_promised(tmp_path):
    assert config_path('fastdds.xml').is_file()
    with pytest.raises(CaptionRosError, match='gone.xml was not found'):
        config_path('gone.xml')


def test_a_gpu_without_kernels_is_a_problem_with_a_fix():
    def refuse(*_, **__):
        raise RuntimeError('HIP error: no kernel image is available for execution\nmore')
    gpu = SimpleNamespace(name='Radeon', gcnArchName='gfx1100', total_memory=16 << 30)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1,
        get_device_properties=lambda index: gpu, device=lambda index: nullcontext(),
        is_bf16_supported=lambda **_: True)
    fake = SimpleNamespace(cuda=cuda, ones=refuse, float32=None, float16=None, bfloat16=None)
    finding, = torch_build._check_gpus(fake, 'rocm',
                                       types_of=lambda index: product.gpu_types(fake, index))
    assert finding.level == 'error' and 'no kernel image' in finding.text
    assert 'gfx1100' in finding.text and 'device:=cpu' in finding.fix


def test_rclpy_that_cannot_be_imported_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rclpy', None)
    monkeypatch.setenv('_ROS_WHEELS_BOOTSTRAP_COMPLETE', '1')
    finding, = doctor.check_ros()
    assert finding.level == 'error' and 'source a ROS 2' in finding.fix
    assert 'unset _ROS_WHEELS_BOOTSTRAP_COMPLETE' in finding.fix


@pytest.mark.parametrize('domain, is_told', [
    ('', False), ('0', False), ('232', False), ('233', True), ('banana', True), ('-1', True)])
def test_a_domain_that_is_none_is_a_problem(monkeypatch, domain, is_told):
    pytest.importorskip('rclpy')
    monkeypatch.setenv('ROS_DOMAIN_ID', domain)
    found = [finding for finding in doctor.check_ros() if finding.name == 'ROS domain']
    assert bool(found) == is_told
    assert all(finding.level == 'error' and finding.fix == 'unset ROS_DOMAIN_ID'
               for finding in found)


def test_models_that_are_not_here_say_where_to_put_them(monkeypatch, tmp_path):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    found = {finding.name: finding for finding in doctor.check_models()}
    assert found['model blip'].level == 'info'  # nobody asked for it
    assert str(tmp_path / 'blip') in found['model blip'].fix
    assert f'looked in {tmp_path / "blip"} and ' in found['model blip'].text


@pytest.mark.parametrize('channels, files, is_ready', [
    (3, [], False), (3, ['clip.pth'], True), (4, [], True)])
def test_a_llava_is_ready_with_an_alpha_clip_beside_it_or_in_it(monkeypatch, tmp_path, channels,
                                                                files, is_ready):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    folder = tmp_path / 'alpha-clip-llava'
    folder.mkdir()
    (folder / 'config.json').write_text(json.dumps({
        'model_type': 'llava',
        'vision_config': {'model_type': 'clip_vision_model', 'num_channels': channels}}))
    for name in files:
        (folder / name).touch()
    found = {finding.name: finding for finding in doctor.check_models()}[f'model {folder.name}']
    assert found.level == ('ok' if is_ready else 'info') and str(folder) in found.text
    assert is_ready or "is here without Alpha-CLIP's .pth" in found.text
    assert is_ready or found.fix == f'put it into {folder}'
    assert ready_checkpoint(KNOWN[folder.name]) == (folder if is_ready else None)


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch):
    def fail():
        raise OSError('no such thing')
    for name in ('check_torch', 'check_ros', 'check_frames', 'check_models'):
        monkeypatch.setattr(doctor, name, fail)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings['torch'].level == 'error' and 'no such thing' in findings['torch'].text
    assert findings['Python'].level == 'ok'


@pytest.mark.parametrize(('level', 'status'), [('ok', 0), ('info', 0), ('warn', 0), ('error', 1)])
def test_exit_status_is_one_only_when_something_is_broken(monkeypatch, level, status):
    findings = [doctor.Finding('torch', level, 'what came', 'what to do')]
    monkeypatch.setattr(doctor, 'examine', lambda say: findings)
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, ['--json'])
    assert done.exit_code == status
    assert json.loads(done.stdout) == [{'name': 'torch', 'level': level, 'message': 'what came',
                                        'fix': 'what to do'}]
    plain = CliRunner().invoke(app, [])
    assert 'torch: what came' in plain.stdout and 'what to do' in plain.stdout
