# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Image-text models of transformers as captioners: SmolVLM, Qwen2.5-VL, Florence-2, BLIP-2, GIT.

All of AutoModelForImageTextToText go one way: the processor makes inputs of images and a prompt,
by its chat template where it has one, and generate() answers. A region is shown as a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.captioner import CaptionOptions, Frame
from caption_ros.captioners.base import BaseCaptioner
from caption_ros.captioners.decoding import Decoded, search, search_config
from caption_ros.captioners.loading import load_fast, load_model, read_config
from caption_ros.captioners.still_processor import load_still_processor
from caption_ros.captioners.view import cropped
from caption_ros.errors import CaptionError, CheckpointError, OptionError
from caption_ros.region import Region, crop_box

_CHAT_PROMPT = 'Describe this image in one short sentence.'
# Of models without a chat template that caption only when they are told to.
_PROMPTS = {'florence2': '<CAPTION>'}


class VisionLanguageCaptioner(BaseCaptioner):
    """An image-text model; ``prompt`` is the question or the task, and the text its answer."""

    family = 'vision-language'

    def __init__(self, name: str, model: Any, processor: Any, *, device: str) -> None:
        """Take a loaded model over.

        Args:
            name: The name or path it was loaded by.
            model: The model, on its device.
            processor: Its processor, for images and text.
            device: torch's name of the device.
        """
        super().__init__(name, model, focus_modes=('crop',), device=device)
        self._processor = processor
        self._tokenizer = tokenizer = processor.tokenizer
        self._template = getattr(processor, 'chat_template', None) or getattr(
            tokenizer, 'chat_template', None)
        if isinstance(self._template, dict):  # one for each purpose, such as tool_use
            self._template = self._template.get('default')
        self._default = _CHAT_PROMPT if self._template else _PROMPTS.get(
            model.config.model_type, '')
        text = model.config.get_text_config()
        self._continues = not model.config.is_encoder_decoder
        self._queries = int(getattr(model.config, 'num_query_tokens', 0))
        # BLIP-2 hands over to its language model, which then reads its own generation config.
        speaker: Any = getattr(model, 'language_model', None)
        if getattr(speaker, 'generation_config', None) is None:
            speaker = model
        config = speaker.generation_config
        eos = _first(config.eos_token_id, text.eos_token_id, tokenizer.eos_token_id,
                     tokenizer.sep_token_id)
        pad = _first(config.pad_token_id, text.pad_token_id, tokenizer.pad_token_id)
        self._search = search_config(config, eos=eos, pad=pad)
        # generate() fills gaps from here: the checkpoint's own length among them.
        speaker.generation_config = self._search
        self._max_positions = int(getattr(text, 'max_position_embeddings', None) or 1 << 20)
        # What is said goes on from the end of the row; an encoder counts from its beginning.
        tokenizer.padding_side = 'left' if self._continues else 'right'
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @classmethod
    def load(cls, folder: Path, *, name: str, device: str, dtype: str) -> VisionLanguageCaptioner:
        """Load a checkpoint folder.

        Raises:
            CheckpointError: If it is damaged or no image-text model.
            OptionError: If the device cannot compute in dtype.
        """
        import transformers
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CLASSES,
        )

        from caption_ros.captioners import FAMILIES

        held = read_config(folder).get('model_type')
        model_type = str(held)
        if model_type not in CLASSES:
            raise CheckpointError(f'{folder / "config.json"} holds model_type {held!r}, '
                                  f'wanted one of {", ".join(FAMILIES)} or an image-text model '
                                  f'that transformers {transformers.__version__} knows, such as '
                                  'smolvlm, qwen2_5_vl, florence2, blip-2 or git')
        processor = load_still_processor(folder, model_type)
        model_class = getattr(transformers, CLASSES[model_type])
        model = load_fast(lambda number: load_model(model_class, folder, number),
                          folder, device, dtype)
        return cls(name, model, processor, device=device)

    def _check_prompt(self, prompt: str) -> None:
        placeholder = getattr(self._processor, 'image_token', None)
        if self._template and placeholder and str(placeholder) in prompt:
            raise OptionError(f'prompt {prompt!r} must not hold {placeholder}: the chat template '
                              'of the model puts the image in itself')

    def _look(self, frames: Sequence[Frame], focus: str, options: CaptionOptions) -> Decoded:
        inputs = self._inputs([self._shown(rgb, region) for rgb, regions in frames
                               for region in regions], options.prompt)
        given = self._given(inputs)
        room = self._max_positions - given
        if room < 1:
            raise OptionError(f'prompt is too long: with the image it takes {given} tokens, and '
                              f'model {self.name!r} holds {self._max_positions}')
        try:
            return search(self._model, self._search, options, room, given, **inputs)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and 'must match' not in str(error):
                raise  # out of memory, say
            # The image has another size, or more tokens than its places in the text.
            raise CheckpointError(f'model {self.name!r} cannot use what its processor makes, so '
                                  'preprocessor_config.json and config.json do not fit: '
                                  f'{" ".join(str(error).split())[:300]}') from error

    def _shown(self, rgb: npt.NDArray[np.uint8],
               region: Region | None) -> npt.NDArray[np.uint8]:
        """Return what of an image the processor gets, so that all of a region is seen."""
        if region is None:
            return rgb
        processor = self._processor.image_processor
        if not getattr(processor, 'do_center_crop', False):
            return cropped(rgb, region)
        # It keeps the middle square only, so the crop must be one: by context, then by padding.
        x0, y0, x1, y1 = crop_box(region)
        side = max(x1 - x0, y1 - y0)
        x0, y0, x1, y1 = crop_box(region, min_size_px=side)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = np.round(255 * np.asarray(processor.image_mean))  # nothing, once normalised
        top, left = (side - (y1 - y0)) // 2, (side - (x1 - x0)) // 2
        square[top:top + y1 - y0, left:left + x1 - x0] = rgb[y0:y1, x0:x1]
        return square

    def _inputs(self, pictures: list[npt.NDArray[np.uint8]], prompt: str) -> dict[str, Any]:
        """Return what generate() takes, one row for each picture, on the device."""
        from PIL import Image

        # Of an array 3 high, processors would take the rows for channels.
        images = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures]
        text = prompt.strip() or self._default
        settings: dict[str, Any] = {'return_tensors': 'pt'}
        if text:
            settings['padding'] = True
        shown: list[Any] = images
        try:
            if self._template:
                text = self._processor.apply_chat_template(
                    [{'role': 'user', 'content': [{'type': 'image'},
                                                  {'type': 'text', 'text': text}]}],
                    chat_template=self._template, add_generation_prompt=True, tokenize=False)
                bos = self._tokenizer.bos_token
                # The template writes the start itself, or leaves it to the tokenizer.
                settings['add_special_tokens'] = not (bos and text.startswith(bos))
                shown = [[image] for image in images]
            made = self._processor(images=shown, text=[text] * len(images) if text else None,
                                   **settings)
        except Exception as error:  # each template and processor has its own ways to fail
            kind, what = (OptionError, f'prompt {prompt!r}') if prompt else (
                CaptionError, 'an image without a prompt')
            raise kind(f'model {self.name!r} cannot use {what}: '
                       f'{" ".join(str(error).split())[:300]}') from error
        inputs = dict(made.to(self.device, self._dtype))
        if self._continues and not self._template:
            return self._started(inputs, len(images))
        return inputs

    def _started(self, inputs: dict[str, Any], count: int) -> dict[str, Any]:
        """Return inputs whose text, if any, is a beginning that can be gone on from."""
        import torch

        ids = inputs.get('input_ids')
        if ids is None:
            if self._queries:  # BLIP-2 writes the places of its image by itself
                return inputs
            ids = torch.full((count, 1), self._search.bos_token_id, device=self.device)
            return {**inputs, 'input_ids': ids, 'attention_mask': torch.ones_like(ids)}
        # A tokenizer of BERT's kind sets its end token behind a prompt.
        if int(ids[0, -1]) in (self._tokenizer.sep_token_id, self._tokenizer.eos_token_id):
            return {key: value[:, :-1] if value.shape == ids.shape else value
                    for key, value in inputs.items()}
        return inputs

    def _given(self, inputs: dict[str, Any]) -> int:
        """Return the number of tokens that generate() repeats in front of its answer."""
        if not self._continues:
            return 1
        return int(inputs['input_ids'].shape[1]) if 'input_ids' in inputs else self._queries + 1

    def _text(self, tokens: list[int], prompt: str) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
