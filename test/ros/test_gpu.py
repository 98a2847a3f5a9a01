# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of the device and of the settings that are for speed."""

import pytest
import torch
from nodebench import FakeCaptioner, wait_for

from caption_ros.captioners.acceleration import Acceleration
from caption_ros.ros.parameters import NODE_PARAMETERS

OK, WARN = 0, 1


@pytest.mark.parametrize('hip, label', [('7.1', 'rocm:0'), (None, 'cuda:0')])
def test_diagnostics_and_log_tell_rocm_from_cuda(make_bench, monkeypatch, hip, label):
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(torch.version, 'cuda', None if hip else '13.0')
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (6 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda device: 1 << 30)
    monkeypatch.setattr(FakeCaptioner, 'device', 'cuda:0')
    bench = make_bench()
    logged = []
    monkeypatch.setattr(bench.node.get_logger(), 'info', logged.append)
    bench.start()
    assert f'loaded tabletop on {label}, float32' in logged
    wait_for(lambda: bench.value('model', 'GPU memory MiB') == '2048 of 8192')
    assert bench.value('model', 'device') == label
    assert {bench.status(part).hardware_id for part in ('model', 'input', 'inference')} == {label}


def test_settings_for_speed_reach_the_model(make_bench, tmp_path):
    bench = make_bench(attention='math', compile='default', tunable_op='use',
                       miopen_find_mode='fast', cache_folder=str(tmp_path)).start()
    assert bench.accelerations == [Acceleration('math', 'default', 'use', 'fast', str(tmp_path))]
    bench.wait_for_status('model', OK, 'tabletop is loaded')
    assert bench.value('model', 'compile') == 'none'  # what the captioner says of itself


def test_settings_left_alone_ask_nothing_of_a_loader(make_bench):
    assert make_bench().start().accelerations == [None]


def test_a_setting_that_is_none_fails_configure(make_bench):
    bench = make_bench(compile='fast')
    assert not bench.change('configure')
    bench.wait_for_status('model', 2, 'compile must be one of none, default, reduce-overhead, '
                          "max-autotune, got 'fast'")


def test_what_came_out_otherwise_than_asked_for_is_a_warning(make_bench):
    bench = make_bench().start()
    bench.wait_for_status('model', OK)
    bench.captioner.shortcomings = ['memory allows 4 caption(s) in a batch: lower max_regions']
    bench.wait_for_status('model', WARN, 'tabletop is loaded; memory allows 4 caption(s)')


def test_a_filtered_captioner_says_the_same(make_bench):
    bench = make_bench(filter='blip-itm').start()
    bench.captioner.shortcomings = ['the encoder could not be compiled and runs uncompiled']
    bench.wait_for_status('model', WARN, 'could not be compiled')
    assert bench.value('model', 'compile') == 'none'


def test_parameters_and_settings_have_the_same_defaults():
    specs = {spec.name: spec for spec in NODE_PARAMETERS}
    defaults = Acceleration()
    assert {name: specs[name].default for name in Acceleration.__dataclass_fields__} == {
        name: getattr(defaults, name) for name in Acceleration.__dataclass_fields__}
