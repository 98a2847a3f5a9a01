# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the table of known models says, held against the architectures themselves."""

import pytest
import torch
from safetensors import safe_open
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from caption_ros.captioners import FILTERS, KNOWN, local_checkpoint

_LARGE = {'hidden_size': 1024, 'num_hidden_layers': 24, 'num_attention_heads': 16,
          'intermediate_size': 4096}


def _vit_gpt2():
    return VisionEncoderDecoderModel(
        config=VisionEncoderDecoderConfig.from_encoder_decoder_configs(
            ViTConfig(), GPT2Config(is_decoder=True, add_cross_attention=True)))


def _blip(model_class=BlipForConditionalGeneration, width=768, **vision):
    return model_class(BlipConfig(
        vision_config={'image_size': 384, **vision},
        text_config={'vocab_size': 30524, 'encoder_hidden_size': width}))


def _alpha_clip_llava():
    return LlavaForConditionalGeneration(LlavaConfig(
        vision_config=CLIPVisionConfig(**_LARGE, image_size=336, patch_size=14,
                                       projection_dim=768, num_channels=4),
        text_config=LlamaConfig(vocab_size=32064)))


_MAKERS = {
    'vit-gpt2': _vit_gpt2, 'blip': _blip,
    'blip-large': lambda: _blip(width=1024, **_LARGE),
    'blip-itm': lambda: _blip(BlipForImageTextRetrieval),
    'alpha-clip-llava': _alpha_clip_llava,
}


@pytest.mark.parametrize('name', sorted({*KNOWN, *FILTERS} - {'tabletop'}))
def test_a_card_says_how_many_weights_are_in_memory(name):
    with torch.device('meta'):  # shapes without memory
        model = _MAKERS[name]()
        model.tie_weights()
    assert {**KNOWN, **FILTERS}[name].parameters == sum(p.numel() for p in model.parameters())


def test_the_card_of_the_shipped_model_says_what_its_file_holds():
    card = KNOWN['tabletop']
    with safe_open(local_checkpoint(card) / 'model.safetensors', 'pt') as file:
        held = sum(file.get_tensor(name).numel() for name in file.keys()
                   if not name.endswith('lm_head.weight'))  # a copy of the embeddings
    assert card.parameters == held
