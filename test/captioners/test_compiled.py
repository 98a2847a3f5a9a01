# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Encoders through torch.compile: the same captions, few sizes, and a way back when it fails."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.acceleration import Acceleration
from caption_ros.captioners.compiled import CompiledEncoder
from caption_ros.errors import OptionError

OPTIONS = CaptionOptions(max_new_tokens=6)


class Doubler(torch.nn.Module):
    """A model of one part, which counts the sizes it sees."""

    def __init__(self):
        super().__init__()
        self.part = torch.nn.Identity()
        self.sizes = []

    def encode(self, pixels):
        self.sizes.append(len(pixels))
        return 2 * self.part(pixels)[:, :, 0]


@pytest.fixture
def compiles(monkeypatch):
    """Let torch.compile hand back a marked copy of the module; return the calls."""
    calls = []

    def compiled(module, **settings):
        calls.append(settings)
        return torch.nn.Sequential(module)

    monkeypatch.setattr(torch, 'compile', compiled)
    return calls


def encoder(model):
    return CompiledEncoder('tiny', model, 'part', model.encode, 'reduce-overhead')


@pytest.mark.parametrize('count, sizes', [
    (1, [1]), (2, [2]), (3, [4]), (5, [8]), (16, [16]), (19, [16, 4])])
def test_a_batch_is_filled_up_to_a_power_of_two(compiles, count, sizes):
    model = Doubler()
    pixels = torch.arange(count * 6.).reshape(count, 3, 2)
    assert torch.equal(encoder(model)(pixels), 2 * pixels[:, :, 0])
    assert model.sizes == sizes
    assert compiles == [{'mode': 'reduce-overhead', 'dynamic': False}]


def test_results_of_recorded_graphs_are_copied(compiles, monkeypatch):
    model = Doubler()
    place = torch.zeros(1, 3)
    encode = encoder(model)
    monkeypatch.setattr(encode, '_encode', lambda pixels: place.copy_(pixels[:, :, 0]))
    first = encode(torch.full((1, 3, 2), 1.))
    encode(torch.full((1, 3, 2), 2.))
    assert torch.equal(first, torch.ones(1, 3))


def test_what_fails_to_compile_runs_uncompiled_and_is_said_once(monkeypatch, caplog):
    class Broken(torch.nn.Module):
        def forward(self, pixels):
            raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError('no g++'),
                                                          None)

    model = Doubler()
    plain = model.part
    monkeypatch.setattr(torch, 'compile', lambda module, **_: Broken())
    encode = encoder(model)
    assert model.part is not plain
    pixels = torch.ones(3, 3, 2)
    for _ in range(2):
        assert torch.equal(encode(pixels), 2 * pixels[:, :, 0])
    assert model.part is plain
    assert 'no g++' in encode.failure
    said, = [record.getMessage() for record in caplog.records]
    assert said.startswith("the encoder of model 'tiny' cannot be compiled and runs uncompiled")
    assert 'no g++' in said


def test_out_of_memory_is_no_failure_of_the_compiler(compiles, monkeypatch):
    model = Doubler()
    encode = encoder(model)

    def full(pixels):
        raise torch.cuda.OutOfMemoryError('HIP out of memory')

    monkeypatch.setattr(encode, '_encode', full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encode(torch.ones(4, 3, 2))
    assert not encode.failure


def test_a_fault_of_the_model_itself_is_not_hidden(compiles, monkeypatch):
    encode = encoder(Doubler())

    def broken(pixels):
        raise RuntimeError('shapes do not fit')

    monkeypatch.setattr(encode, '_encode', broken)
    with pytest.raises(RuntimeError, match='shapes do not fit'):
        encode(torch.ones(1, 3, 2))


def test_layers_packed_for_the_cpu_are_left_alone(compiles, caplog):
    model = Doubler()
    plain = model.part
    plain.packed_numbers = 9
    encode = encoder(model)
    assert compiles == [] and model.part is plain
    assert 'packed for the CPU' in encode.failure and len(caplog.records) == 1
    assert torch.equal(encode(torch.ones(3, 3, 2)), torch.full((3, 3), 2.))
    assert model.sizes == [3]


def test_close_puts_the_module_back(compiles):
    model = Doubler()
    plain = model.part
    encode = encoder(model)
    encode.close()
    assert model.part is plain


@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs g++ on the CPU')
@pytest.mark.parametrize('kind, focus, count', [
    ('vit-gpt2', 'crop', 1), ('blip', 'crop', 2), ('alpha-clip-llava', 'alpha', 1)])
def test_a_compiled_captioner_says_the_same(checkpoint, captioner, rgb, regions, tmp_path, kind,
                                            focus, count, monkeypatch):
    # As torch itself would set it, which gives way.
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', f'{tempfile.gettempdir()}/torchinductor_me')
    compiled = load_captioner(checkpoint(kind), device='cpu', acceleration=Acceleration(
        compile='default', cache_folder=str(tmp_path)))
    try:
        options = CaptionOptions(max_new_tokens=6, focus=focus)
        with ThreadPoolExecutor(1) as pool:  # the node loads on one thread and runs on another
            captions = pool.submit(compiled.caption, rgb, regions[:count], options).result()
        assert [c.text for c in captions] == [
            c.text for c in captioner(kind).caption(rgb, regions[:count], options)]
        assert compiled.problems() == []
        assert compiled.facts()['compile'] == 'default'
        assert any(path.is_file() for path in (tmp_path / 'inductor').rglob('*'))
    finally:
        compiled.close()


def test_a_captioner_whose_encoder_cannot_be_compiled_works_and_says_so(
        checkpoint, captioner, rgb, regions, tmp_path, monkeypatch):
    def refuse(module, **_):
        class Broken(type(module)):
            def forward(self, *args, **kwargs):
                raise RuntimeError('no C++ compiler')
        broken = Broken.__new__(Broken)
        broken.__dict__ = dict(module.__dict__)
        return broken

    monkeypatch.setattr(torch, 'compile', refuse)
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    made = load_captioner(checkpoint('vit-gpt2'), device='cpu', acceleration=Acceleration(
        compile='default', cache_folder=str(tmp_path)))
    assert [c.text for c in made.caption(rgb, regions, OPTIONS)] == [
        c.text for c in captioner('vit-gpt2').caption(rgb, regions, OPTIONS)]
    assert made.facts()['compile'] == 'failed: RuntimeError: no C++ compiler'
    assert made.problems() == ['the encoder could not be compiled and runs uncompiled']
    made.close()


def test_a_family_without_an_encoder_of_its_own_is_refused_by_name(checkpoint, tmp_path):
    from tiny_vision_language import MAKERS

    with pytest.raises(OptionError, match="compile 'default' cannot be used with model .*: of the "
                       'vision-language family nothing is compiled; set compile to none'):
        load_captioner(checkpoint(next(iter(MAKERS))), device='cpu', acceleration=Acceleration(
            compile='default', cache_folder=str(tmp_path)))
