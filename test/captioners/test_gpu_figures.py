# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Memory, load and temperature of a GPU, with torch.cuda and amdsmi replaced."""

import sys
import threading
import time
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest
import torch

from caption_ros.captioners.gpu_figures import GpuFigures

GIB = 1 << 30


class AmdSmiLibraryException(Exception):
    pass


def make_amdsmi(places=('0000:03:00.0', '0000:43:00.0')):
    """Return a module with amdsmi's names; a handle is its number."""
    module = ModuleType('amdsmi')
    module.AmdSmiTemperatureType = Enum('AmdSmiTemperatureType', 'EDGE JUNCTION')
    module.AmdSmiTemperatureMetric = Enum('AmdSmiTemperatureMetric', 'CURRENT')
    module.calls = []

    def temperature(handle, sensor, metric):
        assert metric is module.AmdSmiTemperatureMetric.CURRENT
        if sensor not in module.sensors:
            raise AmdSmiLibraryException('AMDSMI_STATUS_NOT_SUPPORTED')
        return module.sensors[sensor] + handle

    module.sensors = {module.AmdSmiTemperatureType.JUNCTION: 61}
    module.amdsmi_init = lambda: module.calls.append('init')
    module.amdsmi_get_processor_handles = lambda: list(range(len(places)))
    module.amdsmi_get_gpu_device_bdf = lambda handle: places[handle]
    module.amdsmi_get_gpu_activity = lambda handle: {
        'gfx_activity': 70 + handle, 'umc_activity': 'N/A', 'mm_activity': 'N/A'}
    module.amdsmi_get_temp_metric = temperature
    module.amdsmi_get_gpu_vram_usage = lambda handle: {'vram_total': 24560, 'vram_used': 5000}
    return module


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that makes torch see a GPU, and installs an amdsmi."""
    def make(hip='7.1', amdsmi=None, **properties):
        monkeypatch.setattr(torch.version, 'hip', hip)
        monkeypatch.setattr(torch.version, 'cuda', None if hip else '13.0')
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (6 * GIB, 8 * GIB))
        monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda device: 3 * GIB)
        monkeypatch.setattr(torch.cuda, 'get_device_properties',
                            lambda device: SimpleNamespace(**properties))
        monkeypatch.setitem(sys.modules, 'amdsmi', amdsmi)
        return amdsmi
    return make


PLACE = {'pci_domain_id': 0, 'pci_bus_id': 0x43, 'pci_device_id': 0}
OF_TORCH = {'GPU memory MiB': '2048 of 8192', 'GPU memory of this process MiB': '3072'}


def figures(device='cuda:0'):
    looker = GpuFigures(device)
    looker.read()
    looker._thread.join(5)
    return looker.read()


def test_a_cpu_costs_nothing():
    looker = GpuFigures('cpu')
    assert looker.read() == {} and looker._thread is None


def test_amdsmi_tells_load_temperature_and_memory_of_torchs_gpu(gpu):
    amdsmi = gpu(amdsmi=make_amdsmi(), **PLACE)
    assert figures() == {'GPU load %': '71', 'GPU temperature C': '62',
                         'GPU memory MiB': '5000 of 24560',
                         'GPU memory of this process MiB': '3072'}
    assert amdsmi.calls == ['init']


def test_the_gpu_is_found_once(gpu):
    amdsmi = gpu(amdsmi=make_amdsmi(), **PLACE)
    looker = GpuFigures('cuda:0')
    for _ in range(3):
        looker.read()
        looker._thread.join(5)
    assert amdsmi.calls == ['init']


def test_an_apu_has_its_temperature_at_the_edge(gpu):
    amdsmi = make_amdsmi()
    amdsmi.sensors = {amdsmi.AmdSmiTemperatureType.EDGE: 44}
    gpu(amdsmi=amdsmi, **PLACE)
    assert figures()['GPU temperature C'] == '45'


def test_without_amdsmi_torch_tells_the_memory_and_one_line_says_so(gpu):
    gpu(amdsmi=None, **PLACE)
    assert figures() == {**OF_TORCH,
                         'GPU sensors': 'amdsmi is not installed: no load and no temperature'}


def test_a_cuda_build_asks_no_amdsmi(gpu):
    amdsmi = gpu(hip=None, amdsmi=make_amdsmi(), **PLACE)
    assert figures() == OF_TORCH and amdsmi.calls == []


def fails(*_):
    raise AmdSmiLibraryException('AMDSMI_STATUS_DRIVER_NOT_LOADED\nmore')


def test_an_amdsmi_that_does_not_work_is_one_line(gpu):
    amdsmi = make_amdsmi()
    amdsmi.amdsmi_init = fails
    gpu(amdsmi=amdsmi, **PLACE)
    assert figures() == {**OF_TORCH, 'GPU sensors': 'amdsmi does not work: '
                         'AMDSMI_STATUS_DRIVER_NOT_LOADED more'}


def test_what_one_question_lacks_leaves_the_others(gpu):
    amdsmi = make_amdsmi()
    amdsmi.amdsmi_get_gpu_activity = lambda handle: {'gfx_activity': 'N/A'}
    amdsmi.amdsmi_get_temp_metric = amdsmi.amdsmi_get_gpu_vram_usage = fails
    gpu(amdsmi=amdsmi, **PLACE)
    assert figures() == {**OF_TORCH, 'GPU load %': 'unknown: amdsmi says N/A',
                         'GPU temperature C': 'unknown: AMDSMI_STATUS_DRIVER_NOT_LOADED more'}


@pytest.mark.parametrize('places, properties, said', [
    (('0000:03:00.0',), {}, None),  # an older torch does not tell the place, and there is one
    (('0000:03:00.0', '0000:43:00.0'), {},
     'amdsmi shows 2 GPUs, and this torch does not tell which is its'),
    (('0000:03:00.0',), PLACE, 'amdsmi shows GPUs at 0000:03:00.0 and none at 0000:43:00.*'),
    ((), PLACE, 'amdsmi shows GPUs at no place and none at 0000:43:00.*')])
def test_another_gpus_figures_are_never_shown(gpu, places, properties, said):
    gpu(amdsmi=make_amdsmi(places), **properties)
    shown = figures()
    assert shown.get('GPU sensors') == said
    assert ('GPU load %' in shown) == (said is None)


def test_a_torch_that_fails_is_one_line(gpu, monkeypatch):
    gpu(hip=None)

    def lost(device):
        raise RuntimeError('HIP error: device lost')

    monkeypatch.setattr(torch.cuda, 'mem_get_info', lost)
    assert figures() == {'GPU sensors': 'unknown: HIP error: device lost'}


def test_a_driver_that_does_not_answer_holds_nobody_up(gpu):
    amdsmi = make_amdsmi()
    answer = threading.Event()
    activity = amdsmi.amdsmi_get_gpu_activity
    amdsmi.amdsmi_get_gpu_activity = lambda handle: answer.wait(10) and activity(handle)
    gpu(amdsmi=amdsmi, **PLACE)
    looker = GpuFigures('cuda:0')
    started = time.monotonic()
    looker.read()
    assert looker.read() == {'GPU answer': 'none to the last 1 question(s)'}
    assert looker.read() == {'GPU answer': 'none to the last 2 question(s)'}
    assert time.monotonic() - started < 5
    answer.set()
    looker._thread.join(5)
    assert looker.read()['GPU load %'] == '71'
