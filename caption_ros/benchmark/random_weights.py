# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of full size with random weights: speed does not depend on what weights say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from caption_ros.errors import OptionError


def write_random(name: str, folder: Path) -> None:
    """Write a checkpoint folder of a known architecture with random weights.

    Args:
        name: One of RANDOM.
        folder: Where to; created.

    Raises:
        OptionError: If the name is not one of those.
    """
    if name not in RANDOM:
        raise OptionError(f'there is no random {name!r}; wanted one of {", ".join(RANDOM)}')
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    with torch.no_grad():
        RANDOM[name](folder)


def _vit_gpt2(folder: Path) -> None:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    decoder = GPT2Config(is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(), decoder)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = \
        decoder.eos_token_id
    model = VisionEncoderDecoderModel(config=config)
    model.generation_config.update(
        decoder_start_token_id=decoder.eos_token_id, eos_token_id=decoder.eos_token_id,
        pad_token_id=decoder.eos_token_id)
    model.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    _words(decoder.vocab_size, end=decoder.eos_token_id).save_pretrained(folder)


def _blip_base(folder: Path) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    config = BlipConfig(vision_config={'image_size': 384},
                        text_config={'vocab_size': 30524, 'encoder_hidden_size': 768})
    text = config.text_config
    model = BlipForConditionalGeneration(config)
    model.save_pretrained(folder)
    BlipImageProcessor().save_pretrained(folder)
    _words(text.vocab_size, end=text.sep_token_id, start=text.bos_token_id,
           pad=text.pad_token_id).save_pretrained(folder)


RANDOM: dict[str, Callable[[Path], None]] = {'vit-gpt2': _vit_gpt2, 'blip-base': _blip_base}


def _words(count: int, *, end: int, start: int | None = None, pad: int | None = None) -> Any:
    """Return a tokenizer of so many numbered words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({f'w{i}': i for i in range(count)}, unk_token='w0'))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=f'w{end}', sep_token=f'w{end}', unk_token='w0',
        bos_token=f'w{end if start is None else start}',
        pad_token=f'w{end if pad is None else pad}')
