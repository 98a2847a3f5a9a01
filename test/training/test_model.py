# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from caption_ros.captioners import load_captioner
from caption_ros.errors import CheckpointError, OptionError
from caption_ros.region import regions_from_labels
from caption_ros.training.model import Collate, check_captions, load_trainee, new_trainee
from caption_ros.training.samples import Sample

_TINY = {'num_hidden_layers': 1, 'num_attention_heads': 2, 'intermediate_size': 32}
_WORDS = ['[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]', 'a', 'mug']


@pytest.fixture
def folder(tmp_path):
    """A CLIP that crops the centre of RGB and alpha, and a BERT, whose tokenizer has no end."""
    encoder = CLIPVisionConfig(hidden_size=16, image_size=32, patch_size=8, num_channels=4,
                               **_TINY)
    decoder = BertConfig(vocab_size=len(_WORDS), hidden_size=24, max_position_embeddings=8,
                         is_decoder=True, add_cross_attention=True, **_TINY)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    VisionEncoderDecoderModel(config=config).save_pretrained(tmp_path)
    (tmp_path / 'vocab.txt').write_text('\n'.join(_WORDS) + '\n')
    BertTokenizer(vocab=str(tmp_path / 'vocab.txt')).save_pretrained(tmp_path)
    CLIPImageProcessor(size={'shortest_edge': 32},
                       crop_size={'height': 32, 'width': 32}).save_pretrained(tmp_path)
    return tmp_path


def _samples():
    rgb = np.random.default_rng(3).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    mask = np.zeros((40, 90), np.bool_)
    mask[5:20, 30:50] = True
    return [Sample(rgb, None, 'a mug'), Sample(rgb, mask, 'a mug')]


def test_training_looks_at_a_region_as_the_captioner_does(folder):
    samples = _samples()
    (region,) = regions_from_labels(samples[1].mask)
    shown = load_captioner(folder, device='cpu')._with_alpha(samples[0].rgb, [None, region])
    assert torch.equal(Collate(load_trainee(folder))(samples)['pixel_values'], shown)


def test_the_end_is_the_models_where_the_tokenizer_has_none(folder):
    trainee = load_trainee(folder)
    assert (trainee.start, trainee.end, trainee.tokenizer.eos_token_id) == (1, 2, None)
    assert Collate(trainee)(_samples())['labels'].tolist() == [[5, 6, 2]] * 2


def test_a_checkpoint_without_a_start_is_refused(folder):
    for name in ('config.json', 'generation_config.json'):
        config = json.loads((folder / name).read_text())
        config.pop('decoder_start_token_id', None)
        config.get('decoder', {}).pop('bos_token_id', None)
        (folder / name).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match='names no start or end token'):
        load_trainee(folder)


@pytest.mark.parametrize('text, problem', [
    ('a red mug', "no token for red, first in 'a red mug'; train from scratch"),
    ('a mug a mug a mug a', 'has 7 tokens, and the decoder has room for 6; shorten it')])
def test_captions_that_could_not_be_learnt_are_refused(text, problem, folder):
    with pytest.raises(OptionError, match=problem):
        check_captions(load_trainee(folder), ['a mug', text])


def test_a_new_model_knows_all_words_of_its_captions():
    texts = ['a rod, a  groon', 'ein Fass\nvoll Öl']
    check_captions(new_trainee(texts, width=64, encoder_layers=1, decoder_layers=1), texts)
