# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints, written by transformers' own classes in the layouts users meet."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BeitConfig,
    BeitImageProcessor,
    BertConfig,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

SPECIAL = ('<pad>', '<start>', '<end>', '<unknown>')
PAD, START, END = 0, 1, 2
VOCABULARY = 40
HALF = {'mean': [0.5] * 3, 'std': [0.5] * 3}


def _tokenizer():
    words = [*SPECIAL, *(f'w{i}' for i in range(VOCABULARY - len(SPECIAL)))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unknown>'))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token='<pad>', bos_token='<start>',
                                   eos_token='<end>', unk_token='<unknown>')


def _loud(model, seed):
    """Give random weights enough spread for captions to differ from each other."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.35, generator=generator)
            if 'position_embeddings' in name or 'wpe' in name:
                weight.mul_(3)
    return model


def _encoder_decoder(folder, encoder, decoder, processor, seed):
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    torch.manual_seed(seed)
    model = _loud(VisionEncoderDecoderModel(config=config), seed)
    # Specials decode to nothing; a caption that opens with the end would be empty.
    model.generation_config.update(
        decoder_start_token_id=START, eos_token_id=END, pad_token_id=PAD, max_length=7,
        num_beams=4, suppress_tokens=[PAD, START, 3], begin_suppress_tokens=[END])
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    processor.save_pretrained(folder)


def _gpt2(width=24):
    return GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=width, n_layer=2, n_head=2,
                      bos_token_id=START, eos_token_id=END, pad_token_id=PAD, is_decoder=True,
                      add_cross_attention=True)


_TINY = {'num_hidden_layers': 2, 'num_attention_heads': 2, 'intermediate_size': 32}


def vit_gpt2(folder, seed=1, **vit):
    encoder = ViTConfig(**{'hidden_size': 16, 'image_size': 32, 'patch_size': 8, **_TINY, **vit})
    processor = ViTImageProcessor(size={'height': 32, 'width': 32}, image_mean=HALF['mean'],
                                  image_std=HALF['std'])
    _encoder_decoder(folder, encoder, _gpt2(), processor, seed)


def clip_gpt2(folder, seed=2):
    encoder = CLIPVisionConfig(hidden_size=24, image_size=32, patch_size=8, **_TINY)
    processor = CLIPImageProcessor(size={'shortest_edge': 32},
                                   crop_size={'height': 32, 'width': 32})
    _encoder_decoder(folder, encoder, _gpt2(), processor, seed)


def beit_bert(folder, seed=3):
    encoder = BeitConfig(hidden_size=16, image_size=32, patch_size=8,
                         use_relative_position_bias=True, **_TINY)
    decoder = BertConfig(vocab_size=VOCABULARY, hidden_size=24, max_position_embeddings=32,
                         is_decoder=True, add_cross_attention=True, **_TINY)
    processor = BeitImageProcessor(size={'height': 32, 'width': 32}, do_center_crop=False)
    _encoder_decoder(folder, encoder, decoder, processor, seed)


def alpha_vit_gpt2(folder, seed=4):
    """Write the layout of the tabletop checkpoint: four channels, not square."""
    encoder = ViTConfig(hidden_size=16, image_size=[128, 160], patch_size=16, num_channels=4,
                        **_TINY)
    processor = ViTImageProcessor(size={'height': 128, 'width': 160}, resample=4,
                                  image_mean=HALF['mean'], image_std=HALF['std'])
    _encoder_decoder(folder, encoder, _gpt2(), processor, seed)


def _blip_config():
    text = {'vocab_size': VOCABULARY, 'hidden_size': 24, 'encoder_hidden_size': 16,
            'max_position_embeddings': 32, 'bos_token_id': START, 'pad_token_id': PAD,
            'eos_token_id': END, 'sep_token_id': END, **_TINY}
    vision = {'hidden_size': 16, 'image_size': 32, 'patch_size': 8, **_TINY}
    return BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=12)


def _blip_folder(folder, model):
    """Write BLIP's layout: a BertTokenizer whose start token stands beside its usual ones."""
    words = ['[PAD]', '[DEC]', '[SEP]', '[UNK]', '[CLS]', '[MASK]', 'a', 'photo', 'of']
    words += [f'w{i}' for i in range(VOCABULARY - len(words))]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    BertTokenizer(vocab=str(folder / 'vocab.txt')).save_pretrained(folder)
    model.save_pretrained(folder)
    BlipImageProcessor(size={'height': 32, 'width': 32}).save_pretrained(folder)


def blip(folder, seed=5):
    """Write a BLIP captioner."""
    torch.manual_seed(seed)
    model = _loud(BlipForConditionalGeneration(_blip_config()), seed)
    bias = model.text_decoder.cls.predictions.bias
    with torch.no_grad():  # BLIP's search takes no list of tokens to avoid
        bias[[PAD, START, 3, 4, 5]] = -100.0
        bias[END] = -4.0
    _blip_folder(folder, model)


def blip_itm(folder, seed=6):
    """Write BLIP's filter."""
    torch.manual_seed(seed)
    _blip_folder(folder, _loud(BlipForImageTextRetrieval(_blip_config()), seed))


MAKERS = {'vit-gpt2': vit_gpt2, 'clip-gpt2': clip_gpt2, 'beit-bert': beit_bert,
          'alpha-vit-gpt2': alpha_vit_gpt2, 'blip': blip}
