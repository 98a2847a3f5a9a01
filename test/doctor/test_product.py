# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Products of a GPU in a process of their own, whose torch is made for the test."""

from types import SimpleNamespace

import pytest

from caption_ros.doctor import product, torch_build

TORCH = """
import os, signal, sys, time
from contextlib import nullcontext
from types import SimpleNamespace

float32, float16, bfloat16 = 1, 2, 3
cuda = SimpleNamespace(device=lambda index: nullcontext(), is_bf16_supported=lambda **_: True)


class Ones:
    def __matmul__(self, other):
        return self

    def float(self):
        return self

    sum = float

    def item(self):
        return 4096


def ones(shape, dtype, device):
    {body}
    return Ones()
"""


@pytest.fixture
def torch_that(tmp_path, monkeypatch):
    """Return a function that has child processes import a torch whose ones() does something."""
    def make(body):
        (tmp_path / 'torch.py').write_text(TORCH.format(body=body))
        root = str(product.__file__).rpartition('/caption_ros/')[0]
        monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{root}')
    return make


def test_types_and_failures_come_back(torch_that):
    torch_that('assert device == "cuda:3"\n    if dtype == 3: raise RuntimeError("no kernel")')
    assert product.gpu_types_apart(3) == (['float32', 'float16'], {'bfloat16': 'no kernel'})


@pytest.mark.parametrize('body, said', [
    pytest.param('print("a line", "rocBLAS error: Cannot read TensileLibrary.dat for GPU arch : '
                 'gfx900", "List of files", sep="\\n", file=sys.stderr, flush=True); os.abort()',
                 'SIGABRT: rocBLAS error: Cannot read TensileLibrary.dat for GPU arch : gfx900',
                 id='rocBLAS has no code'),
    pytest.param('os.kill(os.getpid(), signal.SIGSEGV)', 'SIGSEGV', id='without a word'),
    pytest.param('sys.exit("done for")', 'status 1: done for', id='an exit')])
def test_a_product_that_ends_its_process_is_a_failure(torch_that, body, said):
    torch_that(body)
    types, failures = product.gpu_types_apart(0)
    assert types == [] and failures == {'float32': f'it ended the process, {said}'}


def test_a_product_that_stands_still_is_a_failure(torch_that):
    torch_that('time.sleep(600)')
    assert product.gpu_types_apart(0, 1.5) == ([], {'float32': 'it had no result after 1.5 s'})


def test_the_doctor_goes_on_after_a_product_that_ends_its_process(torch_that):
    torch_that('os.abort()')
    gpu = SimpleNamespace(name='Radeon', gcnArchName='gfx900', total_memory=8 << 30)
    fake = SimpleNamespace(cuda=SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda i: gpu))
    finding, = torch_build._check_gpus(fake, 'rocm')
    assert finding.level == 'error' and 'SIGABRT' in finding.text
    assert 'device:=cpu' in finding.fix
