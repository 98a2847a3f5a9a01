# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is set in torch and its libraries, with the GPU replaced at torch's edge."""

import inspect
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from caption_ros.captioners import load_captioner
from caption_ros.captioners.acceleration import (
    Acceleration,
    attention_by,
    prepare,
    save_tuning,
)
from caption_ros.errors import OptionError

MIOPEN = ('MIOPEN_USER_DB_PATH', 'MIOPEN_CUSTOM_CACHE_DIR')


class Tunable:
    """Stands for torch.cuda.tunable and keeps what was set."""

    def __init__(self):
        self.enabled = self.tuning = None
        self.filename, self.max_ms, self.written = '', 0, 0

    def enable(self, value=True):
        self.enabled = value

    def tuning_enable(self, value=True):
        self.tuning = value

    def is_enabled(self):
        return bool(self.enabled)

    def tuning_is_enabled(self):
        return bool(self.tuning)

    def set_filename(self, name, insert_device_ordinal=False):
        self.filename = name.replace('.', '0.') if insert_device_ordinal else name

    def get_filename(self):
        return self.filename

    def set_max_tuning_duration(self, duration):
        self.max_ms = duration

    def write_file(self):
        self.written += 1


@pytest.fixture
def rocm(monkeypatch):
    """Make torch look like a HIP build with one Radeon; return its TunableOp."""
    monkeypatch.setattr(torch.version, 'hip', '7.1')
    monkeypatch.setattr(torch.version, 'cuda', None)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda device: SimpleNamespace(
        gcnArchName='gfx1100:sramecc-:xnack-'))
    tunable = Tunable()
    monkeypatch.setattr(torch.cuda, 'tunable', tunable)
    return tunable


def test_the_stand_in_for_tunable_op_takes_what_torchs_takes():
    from torch.cuda import tunable

    for name in set(vars(Tunable)) - {'write_file'}:  # which newer ones have no more
        if not name.startswith('_'):
            wanted = list(inspect.signature(getattr(tunable, name)).parameters)
            stands = list(inspect.signature(getattr(Tunable, name)).parameters)[1:]
            assert len(stands) == len(wanted), name


@pytest.mark.parametrize('values, text', [
    ({'attention': 'fast'}, "attention must be one of auto, flash, efficient, math, got 'fast'"),
    ({'compile': 'yes'}, 'compile must be one of none, default, reduce-overhead, max-autotune'),
    ({'tunable_op': True}, 'tunable_op must be one of none, use, tune, got True'),
    ({'miopen_find_mode': 'slow'}, 'miopen_find_mode must be one of auto, normal, fast'),
    ({'cache_folder': None}, 'cache_folder must be a path, got None'),
])
def test_values_are_checked(values, text):
    with pytest.raises(OptionError, match=text):
        Acceleration(**values)


def test_results_are_kept_in_the_users_cache_unless_a_folder_is_named(monkeypatch):
    monkeypatch.setenv('HOME', '/home/ann')
    assert str(Acceleration().folder({})) == '/home/ann/.cache/caption_ros/kernels'
    assert str(Acceleration().folder({'XDG_CACHE_HOME': '/x'})) == '/x/caption_ros/kernels'
    assert str(Acceleration(cache_folder='~/k').folder({'XDG_CACHE_HOME': '/x'})) == '/home/ann/k'


def test_defaults_touch_nothing_on_a_cpu(tmp_path):
    env = {'XDG_CACHE_HOME': str(tmp_path)}
    prepared = prepare(Acceleration(), 'cpu', env)
    assert prepared.facts == {'attention': 'auto', 'compile': 'none'} and not prepared.problem
    assert env == {'XDG_CACHE_HOME': str(tmp_path)} and not list(tmp_path.iterdir())


def test_defaults_on_rocm_keep_miopens_results_and_leave_tunable_op_alone(rocm, tmp_path):
    env = {'XDG_CACHE_HOME': str(tmp_path)}
    prepared = prepare(Acceleration(), 'cuda:0', env)
    folder = tmp_path / 'caption_ros/kernels'
    assert {name: env[name] for name in MIOPEN} == dict.fromkeys(MIOPEN, str(folder / 'miopen'))
    assert (folder / 'miopen').is_dir()
    assert set(env) == {'XDG_CACHE_HOME', *MIOPEN}
    assert rocm.enabled is None
    assert prepared.facts == {'attention': 'auto', 'compile': 'none', 'cache folder': str(folder),
                              'MIOpen find mode': 'auto', 'TunableOp': 'none'}


@pytest.mark.parametrize('wish, tuning', [('use', False), ('tune', True)])
def test_tunable_op_has_a_file_for_each_kind_of_gpu(rocm, tmp_path, wish, tuning):
    asked = Acceleration(tunable_op=wish, cache_folder=str(tmp_path))
    path = tmp_path / 'tunableop_gfx1100.csv'
    assert prepare(asked, 'cuda:0', {}).facts['TunableOp'] == (
        f'{wish}, {path}, which is not there yet')
    assert (rocm.enabled, rocm.tuning, rocm.filename) == (True, tuning, str(path))
    assert rocm.max_ms == 30
    path.touch()
    assert prepare(asked, 'cuda:0', {}).facts['TunableOp'] == f'{wish}, {path}'


def test_tuning_is_written_where_torch_would_do_it_at_exit_only(rocm, tmp_path):
    for wish, written in (('none', 0), ('use', 0), ('tune', 1)):
        prepare(Acceleration(tunable_op=wish, cache_folder=str(tmp_path)), 'cuda:0', {})
        save_tuning()
        assert rocm.written == written


def test_what_the_user_has_set_stays(rocm, tmp_path):
    env = {'MIOPEN_USER_DB_PATH': '/mine', 'MIOPEN_FIND_MODE': 'FAST',
           'PYTORCH_TUNABLEOP_ENABLED': '1', 'TORCHINDUCTOR_CACHE_DIR': '/my/inductor',
           'TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL': '0'}
    before = dict(env)
    prepared = prepare(Acceleration('flash', 'default', 'tune', 'hybrid', str(tmp_path)),
                       'cuda:0', env)
    assert env == {**before, 'MIOPEN_CUSTOM_CACHE_DIR': str(tmp_path / 'miopen')}
    assert prepared.facts['MIOpen find mode'] == 'fast'
    assert prepared.facts['TunableOp'] == 'as PYTORCH_TUNABLEOP_ENABLED=1 says'
    assert rocm.enabled is None


def test_a_file_of_tunable_op_that_the_user_has_named_stays(rocm, tmp_path):
    env = {'PYTORCH_TUNABLEOP_FILENAME': '/mine/found.csv'}
    asked = Acceleration(tunable_op='use', cache_folder=str(tmp_path))
    assert prepare(asked, 'cuda:0', env).facts['TunableOp'].startswith('use, /mine/found0.csv')
    assert rocm.filename == '/mine/found0.csv'  # where torch by itself keeps it, for GPU 0
    prepare(Acceleration(cache_folder=str(tmp_path)), 'cuda:0', env)
    assert rocm.enabled is False


def test_find_mode_compiled_results_and_attention_of_radeons_are_set(rocm, tmp_path):
    env = {}
    prepare(Acceleration('flash', 'default', 'none', 'dynamic_hybrid', str(tmp_path)),
            'cuda:0', env)
    assert env['MIOPEN_FIND_MODE'] == 'DYNAMIC_HYBRID'
    assert env['TORCHINDUCTOR_CACHE_DIR'] == str(tmp_path / 'inductor')
    assert env['TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL'] == '1'


def test_torchs_own_folder_in_tmp_gives_way_to_one_that_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr('tempfile.tempdir', '/tmp')
    env = {'TORCHINDUCTOR_CACHE_DIR': '/tmp/torchinductor_ann'}
    prepare(Acceleration(compile='default', cache_folder=str(tmp_path)), 'cpu', env)
    assert env['TORCHINDUCTOR_CACHE_DIR'] == str(tmp_path / 'inductor')


@pytest.mark.parametrize('hip, device, label', [
    (None, 'cpu', 'cpu'), ('7.1', 'cpu', 'cpu'), (None, 'cuda:0', 'cuda:0')])
def test_what_only_rocm_can_do_is_said_elsewhere(monkeypatch, tmp_path, hip, device, label):
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(torch.version, 'cuda', None if hip else '13.0')
    env = {}
    prepared = prepare(Acceleration(tunable_op='tune', miopen_find_mode='fast',
                                    cache_folder=str(tmp_path)), device, env)
    assert prepared.problem == (f'tunable_op and miopen_find_mode asked for on {label}, and only '
                                'rocm can do that')
    assert env == {} and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_said_and_stops_nothing(rocm, tmp_path):
    (tmp_path / 'file').touch()
    env = {}
    prepared = prepare(Acceleration('flash', 'default', 'tune', 'fast',
                                    str(tmp_path / 'file/below')), 'cuda:0', env)
    assert 'file/below cannot be written (Not a directory), so nothing is kept' in prepared.problem
    assert prepared.facts['cache folder'] == 'none' == prepared.facts['TunableOp']
    assert env == {'MIOPEN_FIND_MODE': 'FAST', 'TORCH_ROCM_AOTRITON_ENABLE_EXPERIMENTAL': '1'}
    assert rocm.enabled is None


def test_a_folder_that_may_not_be_written_to_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(os, 'access', lambda *_: False)
    env = {}
    prepared = prepare(Acceleration(compile='default', tunable_op='use',
                                    cache_folder=str(tmp_path)), 'cpu', env)
    first, second = prepared.problem.split('; ', 1)
    assert first == 'tunable_op asked for on cpu, and only rocm can do that'
    assert second.startswith(f'cache_folder {tmp_path} cannot be written (Permission denied)')
    assert env == {}


def test_tunable_op_is_switched_off_again_and_anybody_elses_is_left_on(rocm, tmp_path):
    asked = Acceleration(tunable_op='tune', cache_folder=str(tmp_path))
    prepare(asked, 'cuda:0', {})
    prepare(Acceleration(cache_folder=str(tmp_path)), 'cuda:0', {})
    assert rocm.enabled is False
    rocm.enable(True)
    rocm.set_filename('/somewhere/mine.csv')
    prepare(Acceleration(cache_folder=str(tmp_path)), 'cuda:0', {})
    assert rocm.enabled is True


@pytest.mark.parametrize('attention, flags', [
    ('auto', (True, True, True)), ('flash', (True, False, True)),
    ('efficient', (False, True, True)), ('math', (False, False, True))])
def test_attention_is_limited_inside_only(attention, flags):
    def now():
        kinds = torch.backends.cuda
        return (kinds.flash_sdp_enabled(), kinds.mem_efficient_sdp_enabled(),
                kinds.math_sdp_enabled())

    before = now()
    with attention_by(attention):
        assert now() == flags
    assert now() == before


@pytest.mark.parametrize('attention', ['flash', 'efficient', 'math'])
def test_a_captioner_says_the_same_however_attention_is_computed(checkpoint, rgb, regions,
                                                                 attention, monkeypatch):
    from caption_ros.captioner import CaptionOptions

    options = CaptionOptions(max_new_tokens=6, focus='attention')
    plain = load_captioner(checkpoint('blip'), device='cpu')
    other = load_captioner(checkpoint('blip'), device='cpu',
                           acceleration=Acceleration(attention=attention))
    seen = []
    look = other._look
    monkeypatch.setattr(other, '_look', lambda *args: seen.append(
        torch.backends.cuda.flash_sdp_enabled()) or look(*args))
    assert [c.text for c in other.caption(rgb, regions, options)] == [
        c.text for c in plain.caption(rgb, regions, options)]
    assert seen == [attention == 'flash']
    assert other.facts()['attention'] == attention and other.problems() == []


def test_settings_can_be_made_without_torch():
    code = ('import sys; from caption_ros.captioners.acceleration import Acceleration; '
            'Acceleration(); print("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
