# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from caption_ros.cli import app
from caption_ros.errors import CheckpointError, OptionError


@pytest.fixture(scope='module')
def pth(tmp_path_factory):
    """An Alpha-CLIP tower of one block, width 64, patches of 8 px, 16 px."""
    block = {'attn.in_proj': (192, 64), 'attn.out_proj': (64, 64), 'mlp.c_fc': (256, 64),
             'mlp.c_proj': (64, 256)}
    shapes = {'class_embedding': (64,), 'positional_embedding': (5, 64), 'proj': (64, 20),
              'conv1.weight': (64, 3, 8, 8), 'conv1_alpha.weight': (64, 1, 8, 8)}
    for name, shape in block.items():
        shapes[f'transformer.resblocks.0.{name}.weight'] = shape
        shapes[f'transformer.resblocks.0.{name}.bias'] = shape[:1]
    for name in ('ln_pre', 'ln_post', *(f'transformer.resblocks.0.ln_{i}' for i in (1, 2))):
        shapes |= {f'{name}.weight': (64,), f'{name}.bias': (64,)}
    path = tmp_path_factory.mktemp('pth') / 'clip.pth'
    torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, path)
    return path


def _run(*words):
    return CliRunner().invoke(app, ['convert', 'alpha-clip', *map(str, words)])


def test_it_writes_the_folder_and_says_the_licence(pth, tmp_path):
    done = _run(pth, tmp_path / 'out')
    assert done.exit_code == 0, done.output
    assert 'width 64, 1 layers, 16 px in patches of 8 px' in done.stdout
    assert 'research use only' in done.stdout
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'config.json', 'model.safetensors']
    from caption_ros.captioners.alpha_clip import alpha_clip_vision_tower
    out = alpha_clip_vision_tower(tmp_path / 'out')(torch.zeros(1, 3, 16, 16))
    assert out.last_hidden_state.shape == (1, 5, 64)


def test_others_may_read_the_weights(pth, tmp_path):
    assert _run(pth, tmp_path / 'out').exit_code == 0
    assert len({path.stat().st_mode for path in (tmp_path / 'out').iterdir()}) == 1


def test_a_folder_that_cannot_be_made_is_told(pth, tmp_path):
    (tmp_path / 'file').touch()
    done = _run(pth, tmp_path / 'file' / 'out')
    assert isinstance(done.exception, OptionError)
    assert 'out cannot be written' in str(done.exception)


def test_it_overwrites_only_with_force(pth, tmp_path):
    assert _run(pth, tmp_path / 'out').exit_code == 0
    written = (tmp_path / 'out' / 'model.safetensors').stat().st_mtime_ns
    again = _run(pth, tmp_path / 'out')
    assert isinstance(again.exception, OptionError) and '--force' in str(again.exception)
    assert (tmp_path / 'out' / 'model.safetensors').stat().st_mtime_ns == written
    assert _run(pth, tmp_path / 'out', '--force').exit_code == 0
    assert (tmp_path / 'out' / 'model.safetensors').stat().st_mtime_ns > written


def test_bad_input_leaves_nothing_behind(tmp_path):
    torch.save({'a': torch.ones(1)}, tmp_path / 'other.pth')
    done = _run(tmp_path / 'other.pth', tmp_path / 'out')
    assert isinstance(done.exception, CheckpointError)
    assert [path.name for path in tmp_path.iterdir()] == ['other.pth']


def test_bad_input_is_one_line_and_status_2(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'caption_ros.cli', 'convert', 'alpha-clip', tmp_path / 'no.pth',
         tmp_path / 'out'], capture_output=True, text=True, timeout=150)
    assert done.returncode == 2 and not done.stdout
    line, = done.stderr.splitlines()
    assert 'no.pth is not there; wanted an Alpha-CLIP checkpoint' in line
