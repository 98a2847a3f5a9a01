# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What of the Hugging Face cache is taken for a model; the snapshots are made for the test."""

import json

import pytest
from huggingface_hub import constants

from caption_ros.captioners import KNOWN, checkpoint_folder, local_checkpoint

CARD = KNOWN['vit-gpt2']
COMMIT = '0123456789' * 4
REPOSITORY = ('README.md', 'config.json', 'model.safetensors', 'pytorch_model.bin')
SHARDS = ('config.json', 'model.safetensors.index.json', 'model-00001-of-00002.safetensors',
          'model-00002-of-00002.safetensors')


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """Return a function that makes a snapshot of files, with the repository's list or without."""
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path / 'models'))
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))

    def make(files, listed):
        store = tmp_path / f'models--{CARD.checkpoint.replace("/", "--")}'
        folder = store / 'snapshots' / COMMIT
        for path in (folder, store / 'refs', store / 'trees'):
            path.mkdir(parents=True)
        (store / 'refs' / 'main').write_text(COMMIT)
        for name in files:
            (folder / name).write_text('{}')
        if listed:
            entry = {'size': 2, 'blob_id': '0' * 40}
            (store / 'trees' / f'{COMMIT}.json').write_text(json.dumps(
                {'format_version': 1, 'files': dict.fromkeys(listed, entry)}))
        return folder
    return make


@pytest.mark.parametrize('files, listed', [
    pytest.param(('config.json', 'model.safetensors'), REPOSITORY, id='safetensors alone'),
    pytest.param(('config.json', 'pytorch_model.bin'), REPOSITORY, id='bin alone'),
    pytest.param(('config.json', 'pytorch_model.bin'),
                 ('README.md', 'config.json', 'pytorch_model.bin'), id='no safetensors'),
    pytest.param(REPOSITORY, REPOSITORY, id='whole'),
    pytest.param(SHARDS, SHARDS, id='shards'),
    pytest.param(('config.json', 'model.safetensors'), (), id='no list'),
    pytest.param(('config.json', 'pytorch_model.bin'), (), id='no list, bin'),
])
def test_a_snapshot_with_all_that_is_needed_is_found(snapshot, files, listed):
    folder = snapshot(files, listed)
    assert local_checkpoint(CARD) == folder
    assert checkpoint_folder(CARD.checkpoint) == folder


@pytest.mark.parametrize('files, listed', [
    pytest.param(('config.json',), REPOSITORY, id='no weights'),
    pytest.param(('config.json',), (), id='no weights, no list'),
    pytest.param(('model.safetensors', 'tokenizer.json'), (*REPOSITORY, 'tokenizer.json'),
                 id='no config'),
    pytest.param(('config.json', 'model.safetensors'), (*REPOSITORY, 'vocab.json'),
                 id='no tokenizer'),
    pytest.param(SHARDS[:3], SHARDS, id='half of the weights'),
])
def test_a_download_that_was_cut_off_is_not_taken_for_whole(snapshot, files, listed):
    snapshot(files, listed)
    assert local_checkpoint(CARD) is None
