# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Tiny random-weight checkpoints of the real classes, written to disk as users have them."""

from __future__ import annotations

import json

import torch
from transformers import (
    BeitConfig,
    BertConfig,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    CLIPVisionConfig,
    GPT2Config,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from caption_ros.training.model import new_trainee, word_tokenizer
from caption_ros.training.samples import tabletop_captions
from caption_ros.training.train import save_checkpoint

SIDE, PATCH, WIDTH = 32, 8, 32
WORDS = [f'{colour}{thing}' for colour in ('red', 'blue', 'pale', 'dark')
         for thing in ('cat', 'cup', 'car', 'hat', 'dog', 'pen')]
_ENCODER = {'hidden_size': WIDTH, 'num_hidden_layers': 2, 'num_attention_heads': 2,
            'intermediate_size': 64, 'image_size': SIDE, 'patch_size': PATCH}


def _bert_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'of', *WORDS, '[DEC]']
    (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n')
    return BertTokenizer(vocab=str(folder / 'vocab.txt')), len(vocabulary)


def _spread(model):
    """Make random weights speak: small ones give every token the same chance."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1:
                value.normal_(0, 0.25)
            elif 'norm' in name.lower() or 'ln_' in name:
                value.add_(torch.randn_like(value) * 0.1)
    return model


def _save_pair(folder, encoder, decoder, tokenizer, start, end, pad):
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = start, end, pad
    model = _spread(VisionEncoderDecoderModel(config=config))
    model.generation_config.update(decoder_start_token_id=start, eos_token_id=end,
                                   pad_token_id=pad)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ViTImageProcessor(size={'height': SIDE, 'width': SIDE}).save_pretrained(folder)
    return folder


def _gpt2(folder, encoder):
    tokenizer = word_tokenizer([' '.join(WORDS)])
    decoder = GPT2Config(vocab_size=len(tokenizer), n_positions=40, n_embd=WIDTH, n_layer=2,
                         n_head=2, bos_token_id=1, eos_token_id=2, is_decoder=True,
                         add_cross_attention=True)
    return _save_pair(folder, encoder, decoder, tokenizer, 1, 2, 0)


def vit_gpt2(folder):
    return _gpt2(folder, ViTConfig(**_ENCODER))


def clip_gpt2(folder):
    return _gpt2(folder, CLIPVisionConfig(**_ENCODER))


def beit_bert(folder):
    tokenizer, size = _bert_tokenizer(folder)
    decoder = BertConfig(vocab_size=size, hidden_size=WIDTH, num_hidden_layers=2,
                         num_attention_heads=2, intermediate_size=64, is_decoder=True,
                         add_cross_attention=True, max_position_embeddings=40)
    return _save_pair(folder, BeitConfig(**_ENCODER), decoder, tokenizer, 2, 3, 0)


def alpha_gpt2(folder):
    trainee = new_trainee(tabletop_captions(), width=64, encoder_layers=1, decoder_layers=1)
    _spread(trainee.model)
    save_checkpoint(trainee, folder)
    return folder


def blip(folder):
    tokenizer, size = _bert_tokenizer(folder)
    text = {'vocab_size': size, 'hidden_size': WIDTH, 'encoder_hidden_size': WIDTH,
            'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 64,
            'max_position_embeddings': 40, 'bos_token_id': size - 1, 'sep_token_id': 3,
            'eos_token_id': 3, 'pad_token_id': 0, 'projection_dim': 16}
    model = _spread(BlipForConditionalGeneration(BlipConfig(
        text_config=text, vision_config={**_ENCODER, 'projection_dim': 16},
        image_text_hidden_size=16, projection_dim=16)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessor(size={'height': SIDE, 'width': SIDE}).save_pretrained(folder)
    return folder


MAKERS = {maker.__name__: maker for maker in (vit_gpt2, clip_gpt2, beit_bert, alpha_gpt2, blip)}


def edit_json(path, **changes):
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
