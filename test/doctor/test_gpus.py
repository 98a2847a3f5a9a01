# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor on machines with an AMD GPU: device files, sysfs and torch are made for the test."""

import grp
import os
import pwd
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from caption_ros.doctor import amd, check_gpu_access, check_targets, product, targets, torch_build

TORCH_71 = ('gfx900', 'gfx906', 'gfx908', 'gfx90a', 'gfx942', 'gfx1030', 'gfx1100', 'gfx1101',
            'gfx1102', 'gfx1200', 'gfx1201')


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that makes the files of a machine with an AMD card."""
    monkeypatch.setattr(os, 'geteuid', lambda: 4321)  # root may open everything
    monkeypatch.setattr(os, 'getegid', lambda: 4321)
    monkeypatch.setattr(os, 'getgroups', lambda: [4321])
    drm, dri = tmp_path / 'drm', tmp_path / 'dri'

    def make(kfd=True, render=True, mode=0o660, more=()):
        for name in ('card1', 'card1-DP-1', 'renderD128', *more):
            (drm / name / 'device').mkdir(parents=True)
            (drm / name / 'device' / 'vendor').write_text('0x1002\n')
        (drm / 'renderD129' / 'device').mkdir(parents=True)  # another maker's is none of ours
        (drm / 'renderD129' / 'device' / 'vendor').write_text('0x10de\n')
        dri.mkdir()
        for path, there in ((tmp_path / 'kfd', kfd), (dri / 'renderD128', render)):
            if there:
                path.touch()
                path.chmod(mode)
        return list(check_gpu_access(tmp_path / 'kfd', drm, lambda: True, dri,
                                     tmp_path / 'amdgpu'))
    return make


def member_of(monkeypatch, path):
    monkeypatch.setattr(os, 'getgroups', lambda: [path.stat().st_gid])


def test_a_user_in_the_groups_of_kfd_and_render_node_is_ok(machine, tmp_path, monkeypatch):
    member_of(monkeypatch, tmp_path)
    finding, = machine()
    assert finding.level == 'ok'
    assert 'kfd, ' in finding.text and 'renderD128 may be opened' in finding.text
    assert 'renderD129' not in finding.text


def test_a_closed_render_node_names_both_groups_and_its_number(machine, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, _: 'render' not in path.name)
    monkeypatch.setattr(amd, '_owner', lambda device: 104)
    finding, = machine()
    number = 104
    assert finding.level == 'error'
    assert 'renderD128 may not be opened: it belongs to group' in finding.text
    assert 'kfd may' not in finding.text
    assert 'render,video ' in finding.fix and f'--group-add {number}' in finding.fix


def test_nobody_is_told_to_join_the_group_of_root(machine, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_: False)
    monkeypatch.setattr(amd, '_owner', lambda device: 0)
    finding, = machine()
    assert finding.level == 'error' and 'belongs to group root' in finding.text
    assert 'GROUP="render"' in finding.fix and 'udevadm trigger' in finding.fix
    assert 'usermod -aG render,video ' in finding.fix and '--group-add 0' not in finding.fix


def test_a_group_without_a_name_is_shown_by_its_number(machine, tmp_path, monkeypatch):
    def unknown(number):
        raise KeyError(number)
    monkeypatch.setattr(grp, 'getgrgid', unknown)
    monkeypatch.setattr(os, 'access', lambda *_: False)
    finding, = machine()
    assert f'group {tmp_path.stat().st_gid}, and user' in finding.text


@pytest.mark.parametrize('is_open', [False, True])
def test_a_user_without_a_name_is_shown_by_its_number(machine, monkeypatch, is_open):
    def unknown(number):
        raise KeyError(number)
    for name in ('LOGNAME', 'USER', 'LNAME', 'USERNAME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, 'getpwuid', unknown)
    monkeypatch.setattr(os, 'getuid', lambda: 4321)
    monkeypatch.setattr(os, 'access', lambda *_: is_open)
    finding, = machine()
    assert 'user 4321 is not in' in finding.text
    assert 'video 4321 and log in again' in finding.fix


def test_access_that_goes_with_the_desktop_alone_is_a_warning(machine):
    finding, = machine()  # the files may be opened, and the user is in none of the groups
    assert finding.level == 'warn' and 'a service or ssh may not' in finding.text
    assert 'usermod -aG render,video' in finding.fix


def test_files_that_everybody_may_open_need_no_group(machine):
    finding, = machine(mode=0o666)
    assert finding.level == 'ok'


def test_kfd_without_its_render_node_is_a_container_without_dri(machine):
    finding, = machine(render=False)
    assert finding.level == 'error' and 'renderD128 is not there' in finding.text
    assert '--device=/dev/dri' in finding.fix


def test_a_container_that_was_given_one_gpu_of_two_is_fine(machine, tmp_path, monkeypatch):
    member_of(monkeypatch, tmp_path)
    hidden, access = machine(more=('renderD130',))
    assert hidden.level == 'info' and 'renderD130 is not there' in hidden.text
    assert 'renderD128' not in hidden.text
    assert access.level == 'ok' and 'renderD128 may be opened' in access.text


@pytest.mark.parametrize('loaded', [False, True])
def test_no_kfd_says_to_load_the_driver_unless_it_is_loaded(machine, tmp_path, loaded):
    if loaded:
        (tmp_path / 'amdgpu').mkdir()
    finding, = machine(kfd=False)
    assert finding.level == 'warn' and 'AMD GPU card1 is here' in finding.text
    assert ('modprobe amdgpu' in finding.fix) == (not loaded)
    assert ('driver is loaded' in finding.fix) == loaded
    assert '--device=/dev/kfd' in finding.fix


@pytest.mark.parametrize('build, cards, nvidia, said', [
    ('cpu', True, False, 'AMD GPU card0 is there, but this torch is a CPU build'),
    ('cuda', True, False, 'AMD GPU card0 is there, but this torch is a CUDA build'),
    ('cuda', True, True, None),  # a laptop with both
    ('rocm', True, False, None),
    ('rocm', False, True, 'nvidia is there, but this torch is a ROCm build'),
    ('cpu', False, True, 'nvidia is there, but this torch is a CPU build'),
    ('cpu', False, False, None)])
def test_a_wheel_for_another_maker_is_a_warning(tmp_path, build, cards, nvidia, said):
    if cards:
        (tmp_path / 'card0/device').mkdir(parents=True)
        (tmp_path / 'card0/device/vendor').write_text('0x1002\n')
    if nvidia:
        (tmp_path / 'nvidia').touch()
    fake = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    found = [finding for finding in torch_build._check_gpus(
        fake, build, tmp_path / 'kfd', tmp_path / 'nvidia', tmp_path)
        if 'sees no GPU' not in finding.text]
    if said is None:
        assert found == []
    else:
        finding, = found
        assert finding.level == 'warn' and said in finding.text
        assert f'its {"ROCm" if cards else "CUDA"} build' in finding.fix


@pytest.mark.parametrize('target, torch_says, told', [
    ('gfx906:sramecc+:xnack-', True, True), ('gfx1030', True, True), ('gfx1100', True, False),
    ('gfx90a:sramecc+:xnack-', True, False), ('', False, True), ('', True, False)])
def test_a_gpu_without_bfloat16_is_told_with_what_to_take(tmp_path, target, torch_says, told):
    ones = SimpleNamespace(float=lambda: ones, sum=lambda: ones, item=lambda: 16 ** 3)

    class Ones:
        def __matmul__(self, other):
            return ones

    gpu = SimpleNamespace(name='Radeon', gcnArchName=target, total_memory=16 << 30)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda i: gpu,
        device=lambda i: nullcontext(), is_bf16_supported=lambda **_: torch_says)
    fake = SimpleNamespace(cuda=cuda, ones=lambda *_, **__: Ones(), float32=0, float16=1,
                           bfloat16=2)
    (tmp_path / 'kfd').touch()
    found = list(torch_build._check_gpus(fake, 'rocm', tmp_path / 'kfd', tmp_path / 'no',
                                         tmp_path, lambda i: product.gpu_types(fake, i)))
    assert found[0].level == 'ok' and ': float32, float16' in found[0].text
    assert [(finding.level, finding.text) for finding in found[1:]] == [
        ('info', 'no bfloat16 in hardware')] * told
    assert not told or 'float16' in found[1].fix


def topology(tmp_path, *versions):
    for i, version in enumerate((0, *versions)):  # node 0 is the CPU
        node = tmp_path / 'nodes' / str(i)
        node.mkdir(parents=True)
        (node / 'properties').write_text(f'cpu_cores_count {0 if version else 16}\n'
                                         f'gfx_target_version {version}\nvendor_id 4098\n')
    return tmp_path / 'nodes'


def looked_at(tmp_path, *versions, override=None, built=TORCH_71, **env):
    if override is not None:
        env['HSA_OVERRIDE_GFX_VERSION'] = override
    return list(check_targets(topology(tmp_path, *versions), env, lambda: built))


@pytest.mark.parametrize('version, target', [
    (100300, 'gfx1030'), (110003, 'gfx1103'), (90010, 'gfx90a'), (90012, 'gfx90c'),
    (90402, 'gfx942'), (110501, 'gfx1151'), (120001, 'gfx1201')])
def test_the_kernels_number_is_a_target(tmp_path, version, target):
    assert targets.gpu_targets(topology(tmp_path, version)) == [target]


def test_gpus_keep_the_kernels_order(tmp_path):
    nodes = topology(tmp_path, *[110000] * 9, 100300)
    assert targets.gpu_targets(nodes) == ['gfx1100'] * 9 + ['gfx1030']  # 10 is after 9


@pytest.mark.parametrize('target, override', [
    ('gfx1031', '10.3.0'), ('gfx1036', '10.3.0'), ('gfx1103', '11.0.0'), ('gfx1151', '11.0.0'),
    ('gfx90c', '9.0.0'), ('gfx1200', '12.0.0'), ('gfx1010', ''), ('gfx803', ''),
    ('gfx940', '9.4.2')])
def test_the_override_is_of_the_same_family(target, override):
    assert targets.override_for(target, TORCH_71) == override


def test_the_nearest_of_a_family_is_taken():
    assert targets.override_for('gfx1151', ('gfx1100', 'gfx1150')) == '11.5.0'
    assert targets.override_for('gfx909', ('gfx90c',)) == '9.0.12'


def test_a_gpu_that_a_container_was_not_given_is_passed_over(tmp_path, monkeypatch):
    nodes = topology(tmp_path, 100300, 110000)
    read = Path.read_text

    def as_the_kernel_does(path):
        if path.parent.name == '1':
            raise PermissionError(1, 'Operation not permitted')
        return read(path)

    monkeypatch.setattr(Path, 'read_text', as_the_kernel_does)
    assert targets.gpu_targets(nodes) == ['gfx1100']


def test_code_of_a_later_version_is_no_override():
    assert targets.override_for('gfx1103', ('gfx1150', 'gfx1151')) == ''
    assert targets.override_for('gfx942', ('gfx950',)) == ''


def test_a_gpu_that_torch_has_code_for_is_ok(tmp_path):
    finding, = looked_at(tmp_path, 110000)
    assert (finding.level, finding.text) == ('ok', 'gfx1100, and this torch has code for it')


def test_a_generic_target_covers_its_family(tmp_path):
    finding, = looked_at(tmp_path, 110003, built=('gfx11-generic',))
    assert finding.level == 'ok'


def test_a_gpu_without_code_is_a_problem_with_the_right_override(tmp_path):
    finding, = looked_at(tmp_path, 100301)
    assert finding.level == 'error' and finding.text.startswith('gfx1031, and this torch has code')
    assert 'export HSA_OVERRIDE_GFX_VERSION=10.3.0 ' in finding.fix


def test_where_no_override_helps_none_is_named(tmp_path):
    finding, = looked_at(tmp_path, 80003)
    assert finding.level == 'error' and 'no override helps' in finding.fix
    assert 'export' not in finding.fix


def test_graphics_of_the_processor_beside_a_card_are_to_be_hidden(tmp_path):
    first, second = looked_at(tmp_path, 100306, 110000)
    assert first.level == 'warn' and 'HIP_VISIBLE_DEVICES=1 ' in first.fix
    assert second.level == 'ok'


@pytest.mark.parametrize('env, found', [
    ({}, ['warn', 'ok']),
    ({'HIP_VISIBLE_DEVICES': '1'}, ['ok']),
    ({'ROCR_VISIBLE_DEVICES': '1'}, ['ok']),
    ({'ROCR_VISIBLE_DEVICES': '1,0', 'HIP_VISIBLE_DEVICES': '0'}, ['ok']),
    ({'HIP_VISIBLE_DEVICES': '0'}, ['error']),
    ({'HIP_VISIBLE_DEVICES': 'GPU-1a2b'}, ['warn', 'ok'])])
def test_a_gpu_that_is_hidden_is_not_judged(tmp_path, env, found):
    assert [finding.level for finding in looked_at(tmp_path, 100306, 110000, **env)] == found


def test_a_gpu_is_hidden_by_the_number_that_hip_gives_it(tmp_path):
    findings = looked_at(tmp_path, 110000, 100306, 110001, HIP_VISIBLE_DEVICES='1,2')
    assert 'HIP_VISIBLE_DEVICES=2 ' in findings[0].fix
    findings = looked_at(tmp_path / 'b', 110000, 100306, 110001, ROCR_VISIBLE_DEVICES='1,2')
    assert 'HIP_VISIBLE_DEVICES=1 ' in findings[0].fix


@pytest.mark.parametrize('version, override, level, text, fix', [
    pytest.param(110000, '11.0.0', 'warn', 'gfx1100 needs none', 'unset', id='needs none'),
    pytest.param(110000, '10.3.0', 'warn', 'gfx1100 needs none', 'unset', id='wrong, needs none'),
    pytest.param(100301, '10.3.0', 'ok', 'gfx1031, run as gfx1030', '', id='right'),
    pytest.param(100301, '11.0.0', 'error', 'code of another family than gfx1031',
                 'HSA_OVERRIDE_GFX_VERSION=10.3.0', id='other family'),
    pytest.param(110003, '11.5.1', 'error', 'of another family than gfx1103, the GPU, or of a '
                 'later one', 'HSA_OVERRIDE_GFX_VERSION=11.0.0', id='later'),
    pytest.param(100301, '10.3.2', 'error', "is '10.3.2', which is gfx1032: this torch has code",
                 'HSA_OVERRIDE_GFX_VERSION=10.3.0', id='no code for it'),
    pytest.param(100301, 'gfx1030', 'error', 'wanted three numbers such as 10.3.0',
                 'HSA_OVERRIDE_GFX_VERSION=10.3.0', id='no version'),
    pytest.param(80003, '9.0.0', 'error', 'another family than gfx803',
                 'unset HSA_OVERRIDE_GFX_VERSION; install a torch build', id='hopeless'),
])
def test_an_override_is_judged(tmp_path, version, override, level, text, fix):
    finding, = looked_at(tmp_path, version, override=override)
    assert finding.level == level and text in finding.text
    assert fix in finding.fix if fix else not finding.fix


def test_without_an_amd_gpu_or_a_rocm_build_nothing_is_said(tmp_path):
    assert looked_at(tmp_path / 'a') == []
    assert looked_at(tmp_path / 'b', 110000, built=()) == []


def test_where_the_kernel_shows_nothing_torch_is_asked(tmp_path):
    finding, = check_targets(tmp_path, {}, lambda: TORCH_71, lambda: ['gfx1035'])
    assert finding.level == 'error' and 'HSA_OVERRIDE_GFX_VERSION=10.3.0' in finding.fix
    # What torch sees under an override is the override, which cannot be judged by it.
    finding, = check_targets(tmp_path, {'HSA_OVERRIDE_GFX_VERSION': '10.3.0'}, lambda: TORCH_71,
                             lambda: ['gfx1030'])
    assert finding.level == 'ok'


def test_torch_tells_its_targets_without_their_features(monkeypatch):
    monkeypatch.setattr(torch.version, 'hip', '7.1')
    monkeypatch.setattr(torch.cuda, 'get_arch_list', lambda: ['gfx90a:xnack-', 'gfx1100'])
    assert targets.built_targets() == ['gfx90a', 'gfx1100']
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr(torch.cuda, 'get_device_properties',
                        lambda index: SimpleNamespace(gcnArchName='gfx942:sramecc+:xnack-'))
    assert targets.seen_targets() == ['gfx942']
    monkeypatch.setattr(torch.version, 'hip', None)
    assert targets.built_targets() == [] == targets.seen_targets()


def test_cards_are_told_from_their_sockets(tmp_path):
    for name in ('card0', 'card0-HDMI-A-1', 'card1'):
        (tmp_path / name / 'device').mkdir(parents=True)
        (tmp_path / name / 'device/vendor').write_text('0x1002\n')
    assert amd.amd_cards(tmp_path) == ['card0', 'card1']
