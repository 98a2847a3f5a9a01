# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint is taken whole or refused in one sentence that names the file."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from caption_ros import CaptionOptions, load_captioner
from caption_ros.errors import CaptionError, CheckpointError, OptionError


@pytest.fixture
def folder(checkpoint, tmp_path):
    return shutil.copytree(checkpoint('vit-gpt2'), tmp_path / 'model')


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _drop(folder, *names):
    weights = load_file(folder / 'model.safetensors')
    for name in names:
        del weights[name]
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match="'bilp' is unknown; wanted one of tabletop, vit"):
        load_captioner('bilp')


@pytest.mark.parametrize('name, text', [
    ('', "model is ''; name one of tabletop"), ('/no/such/folder', 'does not exist; wanted the')])
def test_no_name_and_no_folder_are_told_as_what_they_are(name, text):
    with pytest.raises(CheckpointError, match=text):
        load_captioner(name)


def test_a_known_model_that_is_not_here_says_what_to_download_and_where(tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        load_captioner('vit-gpt2')
    assert 'nlpconnect/vit-gpt2-image-captioning' in str(error.value)
    assert str(tmp_path / 'vit-gpt2') in str(error.value)


def test_a_known_model_put_into_the_folder_is_found(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    os.symlink(checkpoint('blip'), tmp_path / 'blip')
    assert load_captioner('blip').family == 'blip'


def test_a_missing_weight_is_named(folder):
    _drop(folder, 'encoder.layernorm.weight')
    with pytest.raises(CheckpointError, match='lacks weights.*encoder.layernorm.weight'):
        load_captioner(folder)


def test_a_missing_head_is_not_taken_for_a_tied_one(folder):
    config = json.loads((folder / 'config.json').read_text())
    config['decoder']['tie_word_embeddings'] = False
    (folder / 'config.json').write_text(json.dumps(config))
    if 'decoder.lm_head.weight' in load_file(folder / 'model.safetensors'):
        _drop(folder, 'decoder.lm_head.weight')
    with pytest.raises(CheckpointError, match='lacks weights.*decoder.lm_head.weight'):
        load_captioner(folder)


def test_an_older_layout_loads_with_the_same_captions(folder, captioner, rgb):
    # transformers 4 wrote these names and buffers, as nlpconnect's checkpoint has them.
    weights = load_file(folder / 'model.safetensors')
    for layer in range(2):
        weights[f'decoder.transformer.h.{layer}.attn.bias'] = torch.ones(1, 1, 32, 32)
        weights[f'decoder.transformer.h.{layer}.attn.masked_bias'] = torch.tensor(-1e4)
    weights['decoder.lm_head.weight'] = weights['decoder.transformer.wte.weight'].clone()
    torch.save(weights, folder / 'pytorch_model.bin')
    (folder / 'model.safetensors').unlink()
    old, = load_captioner(folder, device='cpu').caption(rgb, [None], CaptionOptions())
    new, = captioner('vit-gpt2').caption(rgb, [None], CaptionOptions())
    assert old.text == new.text and old.score == pytest.approx(new.score)


def test_a_weight_of_another_shape_is_named(folder):
    weights = load_file(folder / 'model.safetensors')
    name = 'decoder.transformer.ln_f.weight'
    save_file({**weights, name: weights[name][:-1].clone()}, folder / 'model.safetensors',
              metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match=f'holds weights of other shapes for .*: {name}$'):
        load_captioner(str(folder))


@pytest.mark.parametrize('name, value', [
    ('eos_token_id', []), ('eos_token_id', ['2']), ('decoder_start_token_id', -1),
    ('decoder_start_token_id', 1.5)])
def test_a_token_that_is_none_is_named(folder, name, value):
    edit_json(folder / 'generation_config.json', **{name: value})
    with pytest.raises(CheckpointError, match=f'for {name}, wanted a token id, 0 or more'):
        load_captioner(str(folder))


def test_a_start_token_may_be_a_list(folder, captioner, rgb):
    config = json.loads((folder / 'generation_config.json').read_text())
    edit_json(folder / 'generation_config.json',
              decoder_start_token_id=[config['decoder_start_token_id']])
    options = CaptionOptions(max_new_tokens=4)
    assert (load_captioner(str(folder), device='cpu').caption(rgb, [None], options)[0].text
            == captioner('vit-gpt2').caption(rgb, [None], options)[0].text)


def test_what_is_no_number_is_no_caption(folder, rgb):
    weights = load_file(folder / 'model.safetensors')
    weights['decoder.transformer.ln_f.weight'][:] = float('nan')
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    for beams in (1, 2):
        with pytest.raises(CaptionError, match='computed no number in float32 on |failed on '):
            load_captioner(str(folder), device='cpu').caption(
                rgb, [None], CaptionOptions(max_new_tokens=4, num_beams=beams))


def test_an_extra_weight_is_named(folder):
    weights = load_file(folder / 'model.safetensors')
    weights['decoder.lora_A'] = weights['encoder.layernorm.weight'].clone()
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(CheckpointError, match='no place for.*decoder.lora_A'):
        load_captioner(folder)


def test_a_truncated_file_is_named(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match='model.safetensors cannot be loaded'):
        load_captioner(folder)


@pytest.mark.parametrize('patterns, text', [
    (['model.safetensors'], 'holds no weights; wanted one of model.safetensors'),
    (['tokenizer*', 'vocab*', 'special*'], 'holds no tokenizer'),
    (['*processor_config.json'], 'holds no image processor'),
    (['config.json'], 'holds no config.json'),
])
def test_a_missing_file_is_named(folder, patterns, text):
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
    with pytest.raises(CheckpointError, match=text):
        load_captioner(folder)


def test_another_family_is_named(folder):
    edit_json(folder / 'config.json', model_type='bert')
    with pytest.raises(CheckpointError, match="holds model_type 'bert', wanted one of"):
        load_captioner(folder)


def test_a_processor_of_another_size_is_refused(folder):
    edit_json(folder / 'preprocessor_config.json', size={'height': 64, 'width': 64})
    with pytest.raises(CheckpointError, match='preprocessor_config.json and config.json'):
        load_captioner(folder).caption(np.zeros((9, 9, 3), np.uint8), [None], CaptionOptions())


def test_a_hub_id_without_network_is_one_sentence(monkeypatch, tmp_path):
    import huggingface_hub

    def refuse(*_, local_files_only=False, **__):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError('not cached')
        raise OSError('Network is unreachable')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', refuse)
    with pytest.raises(CheckpointError, match='neither a folder nor in the Hugging Face cache'):
        load_captioner('someone/some-model')


@pytest.mark.parametrize('settings, text', [
    ({'device': 'tpu'}, 'tpu'), ({'dtype': 'int3'}, 'int3'), ({'device': 'rocm'}, '(?i)rocm')])
def test_a_device_or_dtype_that_is_not_there_is_refused(folder, settings, text):
    with pytest.raises(OptionError, match=text):
        load_captioner(folder, **settings)
