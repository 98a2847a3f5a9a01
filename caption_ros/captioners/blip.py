# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""BLIP as a captioner, with or without a text prefix (Li et al., ICML 2022, arXiv:2201.12086)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caption_ros.captioner import CaptionOptions
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
from caption_ros.errors import CheckpointError, OptionError

_CLASS_TOKENS = 1


def restore_cross_attention_mask(model: Any) -> int:
    """Make BLIP's cross-attention heed its mask.

    transformers 4.54 to 5.23 hands the mask on as ``attention_mask`` where the module looks for
    ``encoder_attention_mask``, so it has no effect at all. Once that is mended, this does nothing.

    Returns:
        Number of attention modules that were given the hook.
    """
    from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention

    def hand_on(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get('encoder_hidden_states') is not None \
                and kwargs.get('encoder_attention_mask') is None:
            kwargs['encoder_attention_mask'] = kwargs.get('attention_mask')
        return args, kwargs

    modules = [m for m in model.modules() if isinstance(m, BlipTextSelfAttention)]
    for module in modules:
        module.register_forward_pre_hook(hand_on, with_kwargs=True)
    return len(modules)


class BlipCaptioner(VisionTextCaptioner):
    """A BlipForConditionalGeneration; ``prompt`` is the beginning of the caption."""

    family = 'blip'
    encoder_part = 'vision_model'
    decoder_part = 'text_decoder'

    def __init__(self, name: str, model: Any, tokenizer: Any, view: View, *, device: str,
                 grid: tuple[int, int]) -> None:
        """Take a loaded model over; see VisionTextCaptioner."""
        super().__init__(name, model, view, focus_modes=('crop', 'attention'), device=device,
                         grid=grid, class_tokens=_CLASS_TOKENS)
        self._tokenizer = tokenizer
        text = model.config.text_config
        ends = token_ids(text.sep_token_id, named='sep_token_id', model=name)
        self._start = token_ids(text.bos_token_id, named='bos_token_id', model=name)[0]
        self._search = search_config(model.text_decoder.generation_config,
                                     eos=text.sep_token_id, pad=text.pad_token_id)
        model.text_decoder.generation_config = self._search
        self._max_positions = int(text.max_position_embeddings)
        restore_cross_attention_mask(model)
        if can_search(model.text_decoder, self._search):
            self._greedy = GreedySearch(model.text_decoder, ends)

    @classmethod
    def load(cls, folder: Path, *, name: str, device: str, dtype: str) -> BlipCaptioner:
        """Load a checkpoint folder.

        Raises:
            CheckpointError: If it is damaged or of another family.
            OptionError: If the device cannot compute in dtype.
        """
        from transformers import BlipForConditionalGeneration

        vision = check_family(folder, 'blip').get('vision_config') or {}
        side, patch = int(vision.get('image_size', 384)), int(vision.get('patch_size', 16))
        view = View(load_processor(folder), (side, side))
        tokenizer = load_tokenizer(folder)
        model = load_fast(lambda number: load_model(BlipForConditionalGeneration, folder, number),
                          folder, device, dtype, encoder=cls.encoder_part)
        if tokenizer.sep_token_id is None:
            raise CheckpointError(f'{folder} holds a tokenizer without a separator token; wanted '
                                  "BLIP's own, a BertTokenizer")
        return cls(name, model, tokenizer, view, device=device, grid=(side // patch,) * 2)

    def _prefix(self, prompt: str) -> list[int]:
        if not prompt:
            return []
        return list(self._tokenizer(prompt, add_special_tokens=False)['input_ids'])

    def _check_prompt(self, prompt: str) -> None:
        limit = self._max_positions - 2  # the start token, and one to say
        if len(self._prefix(prompt)) > limit:
            raise OptionError(f'prompt of {len(self._prefix(prompt))} tokens is too long: model '
                              f'{self.name!r} takes {limit}')

    def _encode(self, pixels: Any) -> Any:
        pixels = pixels.to(self.device, self._encoder_dtype)
        return self._model.vision_model(pixel_values=pixels)[0].to(self._decoder_dtype)

    def _decode(self, hidden: Any, rows: list[int], mask: Any | None,
                options: CaptionOptions) -> Decoded:
        return self._say([self._start, *self._prefix(options.prompt)], self._model.text_decoder,
                         hidden, rows, mask, options)

    def _text(self, tokens: list[int], prompt: str) -> str:
        return str(self._tokenizer.decode([*self._prefix(prompt), *tokens],
                                          skip_special_tokens=True)).strip()
