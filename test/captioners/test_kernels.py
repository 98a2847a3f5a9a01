# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny_checkpoints
import torch
from torch import nn

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import kernels, linears, load_captioner, loading
from caption_ros.captioners.devices import has_avx512_bfloat16, has_vnni
from caption_ros.captioners.kernel_linears import KernelInt8Linear, KernelLinear, fits
from caption_ros.captioners.kernels import load_kernels
from caption_ros.captioners.linears import Int8Linear, PackedLinear

KINDS = [pytest.param(KernelLinear, marks=pytest.mark.skipif(
             not has_avx512_bfloat16(), reason='this CPU has no AVX512-BF16')),
         pytest.param(KernelInt8Linear, marks=pytest.mark.skipif(
             not has_vnni(), reason='this CPU has no AVX512-VNNI'))]
has_kernels = pytest.mark.skipif(
    not kernels._kinds() or shutil.which('c++') is None, reason='nothing to compile kernels for')
DTYPES = {KernelLinear: torch.bfloat16, KernelInt8Linear: torch.float32}
ERRORS = {KernelLinear: 0.004, KernelInt8Linear: 0.012}  # of the result's length


@pytest.fixture(autouse=True)
def _loaded():
    load_kernels()


def _weights(outs, ins, seed=0):
    torch.manual_seed(seed)
    return torch.randn(outs, ins), torch.randn(outs)


def _error(found, wanted):
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def _wanted(x, weight, bias):
    wanted = x.double() @ weight.double().t()
    return wanted if bias is None else wanted + bias.double()


@has_kernels
def test_where_the_cpu_and_a_compiler_allow_there_are_kernels():
    assert load_kernels() == '' and kernels.kernels_state() == 'compiled for this CPU'
    assert kernels.has_kernel('linear_bfloat16') is has_avx512_bfloat16()
    assert kernels.has_kernel('linear_int8') is has_vnni()


@has_kernels
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('outs, ins', [(1, 4), (15, 8), (64, 32), (65, 20), (200, 100),
                                        (130, 516)])
@pytest.mark.parametrize('rows', [1, 2, 5, 6, 7, 13, 48, 49, 101])
def test_a_kernel_computes_what_a_linear_layer_does(kind, outs, ins, rows):
    weight, bias = _weights(outs, ins)
    weight = weight.to(DTYPES[kind])
    x = torch.randn(rows, ins).to(DTYPES[kind])
    for add in (bias, None):
        layer = kind(weight, add)
        with torch.inference_mode():
            found = layer(x)
            assert found.dtype == x.dtype and found.shape == (rows, outs)
            assert _error(found, _wanted(x, weight, add)) < ERRORS[kind] * (4 if ins < 32 else 1)
            assert torch.equal(torch.jit.script(layer)(x), found)


@has_kernels
@pytest.mark.parametrize('kind', KINDS)
def test_a_rows_result_does_not_depend_on_the_other_rows(kind):
    layer = kind(*_weights(200, 512))
    x = torch.randn(7, 19, 512)
    x[0] *= 1000
    with torch.inference_mode():
        found = layer(x.to(DTYPES[kind]))
        for rows in (1, 2, 3, 4, 5, 6, 19):
            for i in range(0, 19 - rows + 1, rows):
                part = layer(x[:, i:i + rows].to(DTYPES[kind]))  # not contiguous
                assert torch.equal(part, found[:, i:i + rows])


@has_kernels
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('threads', [1, 2, 3])
def test_the_result_does_not_depend_on_the_number_of_threads(kind, threads):
    layer, x = kind(*_weights(300, 64)), torch.randn(70, 64).to(DTYPES[kind])
    before = torch.get_num_threads()
    wanted = layer(x)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(layer(x), wanted)
    finally:
        torch.set_num_threads(before)


@has_kernels
@pytest.mark.parametrize('kind', KINDS)
def test_what_is_no_number_shows_in_its_row_only(kind):
    weight, bias = _weights(70, 40)
    layer = kind(weight, bias)
    for broken in (float('nan'), float('inf'), -float('inf')):
        x = torch.randn(9, 40)
        x[4, 7] = broken
        found = layer(x.to(DTYPES[kind]))
        assert not torch.isfinite(found[4]).any()
        assert torch.isfinite(found[:4]).all() and torch.isfinite(found[5:]).all()
    for size in (0.0, 1e-30, 1e30):
        x = torch.full((2, 40), size).to(DTYPES[kind])
        found = layer(x)
        assert _error(found, _wanted(x, weight, bias)) < 0.01


@has_kernels
@pytest.mark.parametrize('kind', KINDS)
def test_what_does_not_fit_is_refused(kind):
    layer = kind(*_weights(70, 40))
    for shape in ((3, 44), (3, 36), (3, 0), ()):
        with pytest.raises(RuntimeError, match='inputs'):
            layer(torch.zeros(shape, dtype=DTYPES[kind]))
    assert layer(torch.zeros(0, 40, dtype=DTYPES[kind])).shape == (0, 70)
    for outs in (0, 64, 69, 129):
        layer.outs = outs
        with pytest.raises(RuntimeError, match='do not fit|as many numbers'):
            layer(torch.zeros(3, 40, dtype=DTYPES[kind]))


@has_kernels
def test_other_number_types_are_refused():
    if has_avx512_bfloat16():
        layer = KernelLinear(*_weights(70, 40))
        with pytest.raises(RuntimeError, match='must be bfloat16'):
            torch.ops.caption_ros.linear_bfloat16(torch.zeros(3, 40), layer.weight, layer.bias, 70)
    if has_vnni():
        with pytest.raises(RuntimeError, match='must be float32'):
            KernelInt8Linear(*_weights(70, 40))(torch.zeros(3, 40).double())


@has_kernels
@pytest.mark.skipif(not has_vnni(), reason='this CPU has no AVX512-VNNI')
def test_inputs_of_one_side_have_all_8_bits():
    weight, bias = _weights(256, 512)
    x = nn.functional.gelu(torch.randn(20, 512))
    halves = Int8Linear(weight, bias)
    halves.by_token = True
    wanted = _wanted(x, weight, bias)
    assert _error(KernelInt8Linear(weight, bias)(x), wanted) < 0.8 * _error(halves(x), wanted)


@has_kernels
@pytest.mark.skipif(not has_avx512_bfloat16(), reason='this CPU has no AVX512-BF16')
def test_weights_come_back_as_they_were():
    weight = torch.randn(70, 40).bfloat16()
    assert torch.equal(KernelLinear(weight, None).dense(), weight)
    assert torch.equal(PackedLinear(weight, None).dense(), weight)


def test_only_what_the_kernels_take_fits():
    assert fits(torch.empty(9, 32_768, device='meta'))
    for shape in ((9, 32_772), (9, 6), (9, 0), (9,), (2, 4, 4)):
        assert not fits(torch.empty(shape, device='meta'))


@has_kernels
@pytest.mark.parametrize('dtype, amx, kinds', [
    ('int8', False, {'KernelInt8Linear'}), ('bfloat16', False, {'PackedLinear', 'KernelLinear'}),
    ('bfloat16', True, {'PackedLinear'}), ('float32', False, {'PackedLinear'})])
@pytest.mark.parametrize('make', [tiny_checkpoints.vit_gpt2, tiny_checkpoints.blip],
                         ids=['gpt2', 'blip'])
def test_few_rows_go_through_kernels(make, dtype, amx, kinds, rgb, tmp_path, monkeypatch):
    make(tmp_path)
    monkeypatch.setattr(loading, 'LARGE', 0)
    monkeypatch.setattr(linears, 'has_amx', lambda: amx)
    captioner = load_captioner(str(tmp_path), device='cpu', dtype=dtype)
    found = {type(module).__name__: name for name, module in captioner._model.named_modules()
             if hasattr(module, 'packed_numbers')}
    assert set(found) == kinds and captioner.dtype == dtype
    if 'KernelLinear' in kinds:
        assert not any(isinstance(module, KernelLinear) for module in
                       captioner._model.get_submodule(captioner.encoder_part).modules())
    assert captioner.caption(rgb, [None], CaptionOptions(max_new_tokens=5))
    assert captioner.caption(rgb, [None], CaptionOptions(max_new_tokens=5, num_beams=2))
    kept = captioner.facts().get('kernels')
    assert kept == (None if dtype == 'float32' else 'compiled for this CPU')


def _load_apart(folder, **env):
    """Load the kernels in a process of its own; return its last line and its log."""
    done = subprocess.run([sys.executable, '-c', (
        'import logging, sys; logging.basicConfig(level=logging.INFO)\n'
        'from pathlib import Path\n'
        'from caption_ros.captioners import kernels\n'
        'kernels.keep_kernels_in(Path(sys.argv[1]))\n'
        'why_not = kernels.load_kernels()\n'
        "print(why_not or 'loaded', kernels.has_kernel('linear_int8'))"), str(folder)],
        capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=True)
    return done.stdout.splitlines()[-1], done.stderr


@has_kernels
def test_kernels_are_compiled_once_and_by_several_at_the_same_time(tmp_path):
    folder = tmp_path / 'new' / 'kernels'
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(_load_apart, [folder, folder]))
    assert {line for line, _ in said} == {f'loaded {has_vnni()}'}
    assert [path.suffix for path in (folder / 'cpu').iterdir()] == ['.so']
    line, log = _load_apart(folder)
    assert line == f'loaded {has_vnni()}' and 'compiling' not in log


@has_kernels
def test_kernels_that_were_cut_off_are_compiled_anew(tmp_path):
    _load_apart(tmp_path)
    kept, = (tmp_path / 'cpu').iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(b'')
    line, log = _load_apart(tmp_path)
    assert line.startswith('loaded') and 'compiling' in log
    assert len(kept.read_bytes()) == len(whole)


@has_kernels
@pytest.mark.parametrize('broken', ['exit 1', 'echo "x.cpp:1:1: error: of some kind" >&2; exit 1',
                                    'sleep 999'])
def test_a_compiler_that_fails_leaves_torchs_layers(broken, tmp_path, monkeypatch):
    tools = tmp_path / 'tools'
    tools.mkdir()
    compiler = tools / 'c++'
    compiler.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo 1.0; exit; fi\n'
                        f'{broken}\n')
    compiler.chmod(0o755)
    monkeypatch.setattr(shutil, 'which', lambda name: str(compiler))
    monkeypatch.setattr(kernels, '_SECONDS', 2)
    monkeypatch.setattr(kernels, '_state', {})
    monkeypatch.setattr(kernels, '_folder', tmp_path / 'kept')
    why_not = load_kernels()
    assert 'timed out' in why_not if 'sleep' in broken else 'ended with 1' in why_not
    assert 'echo' not in broken or 'of some kind' in why_not
    assert not list((tmp_path / 'kept' / 'cpu').iterdir())
    assert kernels.kernels_state() == why_not


@has_kernels
def test_why_there_are_no_kernels_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, 'off')
    assert kernels._load(tmp_path) == 'CAPTION_ROS_KERNELS is off'
    monkeypatch.delenv(kernels.SWITCH)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'which', lambda name: None)
        assert 'install g++' in kernels._load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, 'has_vnni', lambda: False)
        patch.setattr(kernels, 'has_avx512_bfloat16', lambda: False)
        assert 'neither AVX512-BF16 nor AVX512-VNNI' in kernels._load(tmp_path)
    monkeypatch.setattr(kernels, '_compile', lambda command, path: path.touch(0o700))
    for mode in (0o770, 0o707):
        (tmp_path / 'cpu').mkdir(exist_ok=True)
        (tmp_path / 'cpu').chmod(mode)
        assert f'{tmp_path}/cpu can be written to by others' in kernels._load(tmp_path)
    (tmp_path / 'cpu').chmod(0o755)
    kept, = (tmp_path / 'cpu').iterdir()
    kept.chmod(0o722)
    assert f'{kept} can be written to by others' in kernels._load(tmp_path)
    (tmp_path / 'file').touch()
    monkeypatch.setattr(kernels, '_state', {})
    monkeypatch.setattr(kernels, '_folder', tmp_path / 'file' / 'kernels')
    assert 'Not a directory' in load_kernels()


@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_without_kernels_captions_are_torchs(dtype, rgb, tmp_path, monkeypatch):
    tiny_checkpoints.vit_gpt2(tmp_path)
    monkeypatch.setattr(loading, 'LARGE', 0)
    monkeypatch.setattr(linears, 'has_kernel', lambda name: False)
    monkeypatch.setattr(kernels, '_state', {'why not': 'of a test'})
    captioner = load_captioner(str(tmp_path), device='cpu', dtype=dtype)
    assert not any(isinstance(module, (KernelLinear, KernelInt8Linear))
                   for module in captioner._model.modules())
    assert captioner.caption(rgb, [None], CaptionOptions(max_new_tokens=5))
    assert captioner.facts()['kernels'] == 'of a test'
