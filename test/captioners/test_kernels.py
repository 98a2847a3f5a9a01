# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_checkpoints
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import kernels, linears, load_captioner, loading
from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.devices import has_avx512_bfloat16, has_vnni
from caption_ros.captioners.kernel_linears import (
    KernelInt4Linear,
    KernelInt8Linear,
    KernelLinear,
    fits,
    seen_size,
)
from caption_ros.captioners.kernels import load_kernels
from caption_ros.captioners.linears import Int8Linear, PackedLinear

KINDS = [pytest.param(KernelLinear, marks=pytest.mark.skipif(
             not has_avx512_bfloat16(), reason='this CPU has no AVX512-BF16')),
         *(pytest.param(kind, marks=pytest.mark.skipif(
             not has_vnni(), reason='this CPU has no AVX512-VNNI'))
           for kind in (KernelInt8Linear, KernelInt4Linear))]
has_kernels = pytest.mark.skipif(
    not kernels._kinds() or shutil.which('c++') is None, reason='nothing to compile kernels for')
DTYPES = {KernelLinear: torch.bfloat16, KernelInt8Linear: torch.float32,
          KernelInt4Linear: torch.float32}
# Of the result's length. Weights of 4 bits are compared with what they were rounded to.
ERRORS = {KernelLinear: 0.004, KernelInt8Linear: 0.012, KernelInt4Linear: 0.012}


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
            rounded = layer.dense() if kind is KernelInt4Linear else weight
            assert _error(found, _wanted(x, rounded, add)) < ERRORS[kind] * (4 if ins < 32 else 1)
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
        rounded = layer.dense() if kind is KernelInt4Linear else weight
        assert _error(found, _wanted(x, rounded, bias)) < 0.01


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
@pytest.mark.skipif(not has_vnni(), reason='this CPU has no AVX512-VNNI')
@pytest.mark.parametrize('outs, ins', [(1, 4), (65, 20), (130, 516), (4200, 64)])
def test_rounded_weights_are_near_what_they_were(outs, ins):
    weight = torch.randn(outs, ins)
    weight[0] *= 1000  # other outputs do not suffer from it
    eight = KernelInt8Linear(weight, None)
    near = torch.cat(list(eight.slices()))
    assert near.shape == weight.shape
    assert ((near - weight).abs() <= 0.51 / 127 * weight.abs().amax(1, keepdim=True)).all()
    four, both = KernelInt4Linear(weight, None), KernelInt4Linear(eight.slices(), None)
    assert (four.outs, four.ins) == (both.outs, both.ins) == (outs, ins)
    for wanted, found in ((weight, four.dense()), (near, both.dense())):
        for some, same in zip(wanted.split(64, 1), found.split(64, 1)):  # each has its scale
            assert ((same - some).abs() <= 0.51 / 7 * some.abs().amax(1, keepdim=True)).all()


@has_kernels
@pytest.mark.skipif(not has_avx512_bfloat16(), reason='this CPU has no AVX512-BF16')
def test_weights_come_back_as_they_were():
    weight = torch.randn(70, 40).bfloat16()
    assert torch.equal(KernelLinear(weight, None).dense(), weight)
    assert torch.equal(PackedLinear(weight, None).dense(), weight)


has_attention = pytest.mark.skipif(not has_avx512_bfloat16(),
                                   reason='this CPU has no AVX512-BF16')


def _seen(images, tokens, heads, depth):
    """Return keys and values, (images, tokens, 2, heads, depth), and the same in order."""
    both = torch.randn(images, tokens, 2, heads, depth).bfloat16()
    # What is left of an earlier batch must not show.
    seen = torch.full((images, heads, seen_size(tokens, depth)), float('nan')).bfloat16()
    torch.ops.caption_ros.order_seen(both, seen)
    return both, seen


def _attention(query, both, picks, keep):
    keys, values = both[picks].double().permute(2, 0, 3, 1, 4)
    result = nn.functional.scaled_dot_product_attention(
        query.double().transpose(1, 2), keys, values,
        attn_mask=None if keep is None else keep.double()[:, None, None])
    return result.transpose(1, 2).flatten(2)


@has_kernels
@has_attention
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('picks, steps', [([0], 1), ([0], 8), ([0, 0, 0], 3), ([0, 1, 2], 1),
                                          ([2, 0, 1, 0, 0, 2, 2], 4)])
@pytest.mark.parametrize('tokens, depth', [(1, 2), (9, 12), (64, 64), (65, 80), (197, 64),
                                           (578, 130)])
def test_the_kernel_attends_as_torch_does(tokens, depth, picks, steps, masked):
    torch.manual_seed(tokens)
    both, seen = _seen(3, tokens, 2, depth)
    query = (3 * torch.randn(len(picks), steps, 2, depth)).bfloat16()
    keep = torch.zeros(len(picks), tokens)
    if masked:
        keep[torch.rand(keep.shape) < 0.5] = -float('inf')
        keep[:, tokens // 2] = 0
    wanted = _attention(query, both, torch.tensor(picks), keep)
    some = torch.tensor(picks)
    found = torch.ops.caption_ros.attend(query, seen, some, keep, tokens)
    assert found.dtype == torch.float32 and _error(found, wanted) < 0.004
    if not masked:
        assert torch.equal(found, torch.ops.caption_ros.attend(query, seen, some, torch.empty(0),
                                                               tokens))
    for row in range(len(picks)):  # whatever the others are
        alone = torch.ops.caption_ros.attend(query[row:row + 1, -1:].contiguous(), seen,
                                             some[row:row + 1], keep[row:row + 1], tokens)
        assert torch.equal(alone[0, 0], found[row, -1])


def _own_attention(query, key, value, scale):
    heads = (x.double().transpose(1, 2) for x in (query, key, value))
    return nn.functional.scaled_dot_product_attention(*heads, scale=scale).transpose(1, 2)


@has_kernels
@has_attention
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
@pytest.mark.parametrize('tokens, depth', [(1, 2), (9, 12), (64, 64), (65, 80), (197, 64),
                                           (578, 130)])
def test_the_tokens_of_an_image_attend_to_one_another_as_in_torch(tokens, depth, dtype):
    torch.manual_seed(tokens)
    side_by_side = (2 * torch.randn(2, tokens, 3, 3, depth)).to(dtype)  # as of one layer
    of_a_matrix = (2 * torch.randn(3, 2, tokens, 3, depth)).to(dtype)
    of_heads = (2 * torch.randn(3, 2, 3, tokens, depth)).to(dtype).transpose(2, 3)
    for query, key, value in (side_by_side.unbind(2), of_a_matrix, of_heads):
        found = torch.ops.caption_ros.attend_own(query, key, value, 0.1)
        assert found.dtype == dtype and found.is_contiguous() and found.shape == query.shape
        assert _error(found, _own_attention(query, key, value, 0.1)) < 0.006
        alone = torch.ops.caption_ros.attend_own(query[1:], key[1:], value[1:], 0.1)
        assert torch.equal(alone, found[1:])  # whatever other images there are


@has_kernels
@has_attention
def test_tokens_that_cannot_attend_to_one_another_are_refused():
    x = torch.randn(2, 9, 3, 8)
    attend = torch.ops.caption_ros.attend_own
    attend(x, x, x, 1.0)
    for wrong in ((x, x[:1], x), (x, x, x[:, :8]), (x[:, :, :2], x, x), (x, x[..., :4], x),
                  (x, x.bfloat16(), x), (x.half(), x.half(), x.half()), (x[0], x[0], x[0]),
                  (x, x.transpose(1, 3).contiguous().transpose(1, 3), x),
                  (x[..., :7], x[..., :7], x[..., :7]), (x[..., :0], x[..., :0], x[..., :0])):
        with pytest.raises(RuntimeError, match='must be'):
            attend(*wrong, 1.0)
    assert attend(x[:0], x[:0], x[:0], 1.0).shape == (0, 9, 3, 8)
    broken = x.clone()
    broken[0, 2, 1, 3] = float('nan')  # of a query: its own result alone
    found = attend(broken, x, x, 1.0)
    assert not torch.isfinite(found[0, 2, 1]).any()
    found[0, 2, 1] = 0
    assert torch.isfinite(found).all()


@has_kernels
@has_attention
def test_scores_far_apart_and_what_is_no_number():
    both, seen = _seen(1, 40, 1, 8)
    query = (1000 * torch.randn(1, 5, 1, 8)).bfloat16()
    pick, keep = torch.zeros(1, dtype=torch.long), torch.zeros(1, 40)
    attend = torch.ops.caption_ros.attend
    assert _error(attend(query, seen, pick, keep, 40), _attention(query, both, [0], keep)) < 0.004
    broken = query.clone()
    broken[0, 2, 0, 3] = float('nan')
    found = attend(broken, seen, pick, keep, 40)
    assert not torch.isfinite(found[0, 2]).any() and torch.isfinite(found[0, [0, 1, 3, 4]]).all()
    # With nothing to look at there is no mean, as in torch.
    assert not torch.isfinite(attend(query, seen, pick, keep - float('inf'), 40)).any()


@has_kernels
@has_attention
def test_keys_values_and_queries_that_do_not_fit_are_refused():
    both, seen = _seen(2, 9, 2, 8)
    query, picks = torch.zeros(3, 1, 2, 8).bfloat16(), torch.tensor([0, 1, 1])
    keep = torch.empty(0)
    order, attend = torch.ops.caption_ros.order_seen, torch.ops.caption_ros.attend
    for wrong in (both[:1], both[:, :8], both[:, :, :1], both.float(), both.transpose(0, 1)):
        with pytest.raises(RuntimeError, match='keys and values|place does not fit'):
            order(wrong, seen)
    for wrong in (seen[:, :, 1:], seen[:1].contiguous(), seen.float(), seen[:, :1].contiguous()):
        with pytest.raises(RuntimeError, match='place does not fit'):
            order(both, wrong)
    attend(query, seen, picks, keep, 9)
    for wrong in ((query.float(), seen, picks, keep, 9), (query[0], seen, picks, keep, 9),
                  (query, seen, picks - 1, keep, 9), (query, seen, picks + 1, keep, 9),
                  (query, seen, picks[:2], keep, 9), (query, seen, picks.int(), keep, 9),
                  (query, seen, picks, torch.zeros(3, 8), 9), (query, seen, picks, keep, 70),
                  (query, seen, picks, keep, 0), (query, seen, picks, keep, -1),
                  (query[..., :4].contiguous(), seen, picks, keep, 9)):
        with pytest.raises(RuntimeError, match='query must|picks must|does not fit|as many'):
            attend(*wrong)


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
    assert kept == 'compiled for this CPU'


def _load_apart(folder, **env):
    """Load the kernels in a process of its own; return its last line and its log."""
    done = subprocess.run([sys.executable, '-c', (
        'import logging, sys; logging.basicConfig(level=logging.INFO)\n'
        'from caption_ros.captioners import kernels\n'
        'from caption_ros.captioners.acceleration import Acceleration\n'
        'kernels.keep_kernels_as(Acceleration(cache_folder=sys.argv[1]))\n'
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
                                    'sleep 987'])
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
    kept = Acceleration(cache_folder=str(tmp_path / 'kept'))
    monkeypatch.setattr(kernels, '_acceleration', kept)
    why_not = load_kernels()
    assert 'timed out' in why_not if 'sleep' in broken else 'ended with 1' in why_not
    assert 'echo' not in broken or 'of some kind' in why_not
    assert not list((tmp_path / 'kept' / 'cpu').iterdir())
    assert kernels.kernels_state() == why_not
    if 'sleep' in broken:  # nor is what it has started
        assert not any(b'sleep\x00987' in path.read_bytes() for path in _command_lines())


def _command_lines():
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            path.read_bytes()
        except OSError:  # it has just ended
            continue
        yield path


@has_kernels
def test_why_there_are_no_kernels_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, 'off')
    assert kernels._load(tmp_path) == 'CAPTION_ROS_KERNELS is off'
    monkeypatch.delenv(kernels.SWITCH)
    monkeypatch.setattr(kernels.ctypes, 'CDLL', lambda path: None)  # this process has them
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'which', lambda name: None)
        assert 'install g++' in kernels._load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, 'has_vnni', lambda: False)
        patch.setattr(kernels, 'has_avx512_bfloat16', lambda: False)
        assert 'neither AVX512-BF16 nor AVX512-VNNI' in kernels._load(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(torch, '__version__', torch.torch_version.TorchVersion('2.9.1+cpu'))
        assert kernels._load(tmp_path) == 'torch 2.9.1+cpu is older than 2.10, which they need'
    kernels._load(tmp_path)
    kept, = (tmp_path / 'cpu').iterdir()
    assert kept.stat().st_mode & 0o777 == kept.parent.stat().st_mode & 0o777 == 0o700
    for mode in (0o720, 0o702):
        kept.chmod(mode)
        assert f'{kept} can be written to by others' in kernels._load(tmp_path)
    kept.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'geteuid', lambda: 54_321)
        if os.getuid():
            assert f'{kept} can be written to by others' in kernels._load(tmp_path)
    kept.rename(tmp_path / 'elsewhere')
    kept.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(OSError, match='symbolic links'):
        kernels._open(kept)
    (tmp_path / 'file').touch()
    for folder, why in (('file', 'Not a directory'), ('', 'home directory')):
        monkeypatch.setattr(kernels, '_state', {})
        monkeypatch.setattr(kernels, '_acceleration', Acceleration(
            cache_folder=folder and str(tmp_path / 'file' / 'kernels')))
        monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
        monkeypatch.delenv('HOME', raising=False)
        monkeypatch.setattr(os, 'getuid', lambda: 123_456)  # whom nobody knows
        assert why in load_kernels()


@pytest.mark.usefixtures('layers')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_layers_that_are_asked_for_their_weights_type_work(dtype):
    """T5 turns its inputs into the type of a layer's weights."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=40, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2,
        decoder_start_token_id=0)).to(dtype).eval()
    asked = {'input_ids': torch.arange(1, 9)[None], 'decoder_input_ids': torch.tensor([[0, 5, 7]])}
    with torch.inference_mode():
        wanted = model(**asked).logits
        linears.pack_linears(model, int8=dtype == torch.float32)
        found = model(**asked).logits
    assert _error(found, wanted.double()) < 0.05


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
