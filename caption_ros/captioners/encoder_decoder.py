# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Captioners of the kind image encoder and language model, such as ViT with GPT-2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caption_ros.captioner import CaptionOptions, check_prompt
from caption_ros.captioners.decoding import Decoded, search_config, token_ids
from caption_ros.captioners.greedy import GreedySearch, can_search
from caption_ros.captioners.loading import (
    check_family,
    load_fast,
    load_model,
    load_processor,
    load_tokenizer,
)
from caption_ros.captioners.view import View
from caption_ros.captioners.vision_text import VisionTextCaptioner
from caption_ros.errors import CheckpointError

_MODEL_TYPE = 'vision-encoder-decoder'
# Encoders whose tokens are row-major patches, with the number of tokens before them. An encoder
# of another kind, such as Swin with its windows, is captioned by crop alone.
CLASS_TOKENS = {'vit': 1, 'deit': 2, 'beit': 1, 'clip_vision_model': 1, 'dinov2': 1,
                'siglip_vision_model': 0}


class EncoderDecoderCaptioner(VisionTextCaptioner):
    """A VisionEncoderDecoderModel; one with four input channels sees the mask as alpha."""

    family = 'encoder-decoder'
    encoder_part = 'encoder'
    decoder_part = 'decoder'
    takes_prompt = False

    def __init__(self, name: str, model: Any, tokenizer: Any, view: View, *,
                 focus_modes: tuple[str, ...], device: str, grid: tuple[int, int],
                 class_tokens: int) -> None:
        """Take a loaded model over; see VisionTextCaptioner."""
        super().__init__(name, model, view, focus_modes=focus_modes, device=device, grid=grid,
                         class_tokens=class_tokens)
        self._tokenizer = tokenizer
        self._start, ends = start_and_ends(name, model, tokenizer)
        decoder = model.config.decoder
        config = model.generation_config
        pad = _first(config.pad_token_id, model.config, decoder, 'pad_token_id',
                     tokenizer.pad_token_id)
        self._search = search_config(config, eos=ends if len(ends) > 1 else ends[0], pad=pad)
        # generate() fills gaps from here: the decoder's own max_length among them.
        model.decoder.generation_config = self._search
        self._max_positions = int(getattr(decoder, 'max_position_embeddings', 512))
        if can_search(model.decoder, self._search):
            self._greedy = GreedySearch(model.decoder, ends)

    @classmethod
    def load(cls, folder: Path, *, name: str, device: str, dtype: str) -> EncoderDecoderCaptioner:
        """Load a checkpoint folder.

        Raises:
            CheckpointError: If it is damaged or of another family.
            OptionError: If the device cannot compute in dtype.
        """
        from transformers import VisionEncoderDecoderModel

        config = check_family(folder, _MODEL_TYPE)
        encoder = config.get('encoder') or {}
        channels = int(encoder.get('num_channels', 3))
        if channels not in (3, 4):
            raise CheckpointError(f'{folder / "config.json"} holds an encoder of {channels} '
                                  'channels, wanted 3 (RGB) or 4 (RGB and alpha)')
        view = View(load_processor(folder), pair(encoder.get('image_size', 224)))
        tokenizer = load_tokenizer(folder)
        model = load_fast(lambda number: load_model(VisionEncoderDecoderModel, folder, number),
                          folder, device, dtype, encoder=cls.encoder_part)
        kind = str(encoder.get('model_type'))
        rows, cols = pair(encoder.get('patch_size', 16))
        focus_modes: tuple[str, ...] = ('crop',)
        if channels == 4:
            focus_modes = ('alpha',)
        elif kind in CLASS_TOKENS:
            focus_modes = ('crop', 'attention')
        return cls(name, model, tokenizer, view, focus_modes=focus_modes, device=device,
                   grid=(view.size[0] // rows, view.size[1] // cols),
                   class_tokens=CLASS_TOKENS.get(kind, 0))

    def _check_prompt(self, prompt: str) -> None:
        check_prompt(self, prompt)

    def _encode(self, pixels: Any) -> Any:
        model = self._model
        pixels = pixels.to(self.device, self._encoder_dtype)
        hidden = model.encoder(pixel_values=pixels)[0].to(self._decoder_dtype)
        if (model.encoder.config.hidden_size != model.decoder.config.hidden_size
                and getattr(model.decoder.config, 'cross_attention_hidden_size', None) is None):
            hidden = model.enc_to_dec_proj(hidden)
        return hidden

    def _decode(self, hidden: Any, rows: list[int], mask: Any | None,
                options: CaptionOptions) -> Decoded:
        return self._say([self._start], self._model.decoder, hidden, rows, mask,
                         options)

    def _text(self, tokens: list[int], prompt: str) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def start_and_ends(name: str, model: Any, tokenizer: Any) -> tuple[int, list[int]]:
    """Return the token that a caption starts with and those that end it, at least one.

    Raises:
        CheckpointError: If the checkpoint names none, or something else.
    """
    decoder, config = model.config.decoder, model.generation_config
    eos = _first(config.eos_token_id, model.config, decoder, 'eos_token_id',
                 tokenizer.eos_token_id)
    start = _first(config.decoder_start_token_id, model.config, decoder,
                   'decoder_start_token_id', None)
    start = decoder.bos_token_id if start is None else start
    if start is None or eos is None:
        raise CheckpointError(f'model {name!r} names no start or end token; wanted '
                              'decoder_start_token_id and eos_token_id in config.json')
    return (token_ids(start, named='decoder_start_token_id', model=name)[0],
            token_ids(eos, named='eos_token_id', model=name))


def pair(size: Any) -> tuple[int, int]:
    """Return rows and columns of a size that a config gives as one number or as two."""
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[1])
    return int(size), int(size)


def _first(value: Any, config: Any, decoder: Any, name: str, last: Any) -> Any:
    """Return the first that is set: generation config, config, decoder's config, last."""
    for candidate in (value, getattr(config, name, None), getattr(decoder, name, None)):
        if candidate is not None:
            return candidate
    return last
