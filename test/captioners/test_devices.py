# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest
import torch

from caption_ros.captioners import devices
from caption_ros.captioners.devices import resolve_device, resolve_dtype
from caption_ros.errors import OptionError

SMALL, LARGE = 4_000_000, 240_000_000


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes torch look like a build with some GPUs."""
    def make(hip=None, cuda=None, gpus=0):
        monkeypatch.setattr(torch.version, 'hip', hip)
        monkeypatch.setattr(torch.version, 'cuda', cuda)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    return make


@pytest.mark.parametrize('build, device, name', [
    pytest.param({}, 'auto', 'cpu', id='no gpu'),
    pytest.param({'cuda': '13.0', 'gpus': 1}, 'cpu', 'cpu', id='cpu although there is a gpu'),
    pytest.param({'cuda': '13.0', 'gpus': 1}, 'auto', 'cuda:0', id='nvidia'),
    pytest.param({'cuda': '13.0', 'gpus': 2}, 'cuda:1', 'cuda:1', id='second nvidia'),
    pytest.param({'hip': '7.1', 'gpus': 1}, 'auto', 'cuda:0', id='amd'),
    pytest.param({'hip': '7.1', 'gpus': 1}, 'rocm', 'cuda:0', id='amd by name'),
    pytest.param({'hip': '7.1', 'gpus': 0}, 'auto', 'cpu', id='rocm build without gpu'),
])
def test_a_device_becomes_torchs_name(machine, build, device, name):
    machine(**build)
    assert resolve_device(device) == name


@pytest.mark.parametrize('build, device, text', [
    pytest.param({}, 'rocm', 'needs a rocm build.*is a cpu build', id='rocm on cpu build'),
    pytest.param({'hip': '7.1', 'gpus': 1}, 'cuda', 'is a rocm build; use rocm', id='wrong kind'),
    pytest.param({'cuda': '13.0', 'gpus': 1}, 'cuda:1', r'sees 1 GPU', id='no second'),
    pytest.param({'cuda': '13.0'}, 'cuda', r'sees 0 GPU', id='no gpu'),
    pytest.param({}, 'tpu', 'one of auto, rocm, cuda, cpu', id='unknown'),
    pytest.param({}, 'cpu:0', "got 'cpu:0'", id='cpu has no number'),
    pytest.param({}, 'cuda:x', "got 'cuda:x'", id='no number'),
])
def test_a_device_that_is_not_there_is_refused(machine, build, device, text):
    machine(**build)
    with pytest.raises(OptionError, match=text):
        resolve_device(device)


@pytest.mark.parametrize('fast, parameters, dtype', [
    (True, SMALL, torch.float32), (True, LARGE, torch.bfloat16), (False, LARGE, torch.float32)])
def test_auto_on_a_cpu_takes_bfloat16_where_it_pays(monkeypatch, fast, parameters, dtype):
    monkeypatch.setattr(devices, 'cpu_has_bfloat16', lambda: fast)
    assert resolve_dtype('auto', 'cpu', parameters) is dtype


@pytest.mark.parametrize('has, dtype', [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_a_gpu_takes_half_the_memory(monkeypatch, has, dtype):
    monkeypatch.setattr(devices, '_gpu_has_bfloat16', lambda device: has)
    assert resolve_dtype('auto', 'cuda:0', SMALL) is dtype


@pytest.mark.parametrize('target, dtype', [
    ('gfx1100:xnack-', torch.bfloat16), ('gfx90a', torch.bfloat16), ('gfx942', torch.bfloat16),
    ('gfx1201', torch.bfloat16), ('gfx1030', torch.float16), ('gfx906:sramecc+', torch.float16),
    ('gfx90c', torch.float16), ('gfx1010', torch.float16)])
def test_auto_on_rocm_asks_the_target_and_not_torch(machine, monkeypatch, target, dtype):
    machine(hip='7.1', gpus=1)
    monkeypatch.setattr(devices, '_gpu_has_bfloat16', lambda device: True)  # of every AMD GPU
    monkeypatch.setattr(torch.cuda, 'get_device_properties',
                        lambda device: SimpleNamespace(gcnArchName=target))
    assert resolve_dtype('auto', 'cuda:0', SMALL) is dtype
    assert resolve_dtype('bfloat16', 'cuda:0', SMALL) is torch.bfloat16  # slow, and works


def test_a_type_that_the_device_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(devices, '_gpu_has_bfloat16', lambda device: False)
    with pytest.raises(OptionError, match="'bfloat16' is not supported by cuda:0; use float16"):
        resolve_dtype('bfloat16', 'cuda:0', SMALL)
    with pytest.raises(OptionError, match='dtype must be one of auto, bfloat16'):
        resolve_dtype('int4', 'cpu', SMALL)
    with pytest.raises(OptionError, match="'int8' is for the CPU, and the device is cuda:0"):
        resolve_dtype('int8', 'cuda:0', SMALL)


def test_a_named_type_is_that_type():
    assert resolve_dtype('float16', 'cpu', SMALL) is torch.float16
    assert resolve_dtype('bfloat16', 'cpu', SMALL) is torch.bfloat16


@pytest.mark.parametrize('build, device, name', [
    ({'hip': '7.1', 'gpus': 2}, 'cuda:1', 'rocm:1'), ({'cuda': '13.0'}, 'cuda:1', 'cuda:1'),
    ({}, 'cpu', 'cpu')])
def test_messages_tell_rocm_from_cuda(machine, monkeypatch, build, device, name):
    machine(**build)
    assert devices.device_label(device) == name
    if device != 'cpu':
        with pytest.raises(OptionError, match=f"'int8' is for the CPU, and the device is {name}"):
            resolve_dtype('int8', device, SMALL)


def test_cuda_builds_do_not_pass_for_rocm(machine):
    machine(cuda='13.0', gpus=1)
    with pytest.raises(OptionError, match='needs a rocm build.* is a cuda build; use cuda or'):
        resolve_device('rocm')
