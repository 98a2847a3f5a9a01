# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""LLaVA-1.5 that sees a region through Alpha-CLIP's vision tower, and answers questions on it.

The alpha channel enters at the tower's first layer, so each region has a pass of its own.
Sun et al., CVPR 2024, arXiv:2312.03818; Liu et al., CVPR 2024, arXiv:2310.03744.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import models_folder
from caption_ros.captioners.alpha_clip import CHANNELS, alpha_clip_vision_tower
from caption_ros.captioners.base import BaseCaptioner
from caption_ros.captioners.decoding import Decoded, search, search_config
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
from caption_ros.region import Region, alpha_channel, region_cover

NAME = 'alpha-clip-llava'
QUESTION = 'Provide a one-sentence caption for the provided image.'  # as LLaVA-1.5 learnt it
PAD_COLOUR = (122, 116, 104)  # the mean of CLIP's images, which it sees as nothing
_CLASS_TOKENS = 1


class SquareView(View):
    """A view of the image in the middle of a square; what is added belongs to no region."""

    def pixels(self, rgb: npt.NDArray[np.uint8]) -> Any:
        """Return the encoder's input for an image, shape (3, height, width), float32."""
        height, width = rgb.shape[:2]
        side, top, left = _square(height, width)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = PAD_COLOUR
        square[top:top + height, left:left + width] = rgb
        return super().pixels(square)

    def region(self, region: Region) -> Region:
        """Return a region as it lies in what the model sees."""
        side, top, left = _square(*region.image_size)
        x0, y0, x1, y1 = region.box
        return super().region(Region(region.label, (x0 + left, y0 + top, x1 + left, y1 + top),
                                     region.mask, region.area_px, (side, side)))


def _square(height: int, width: int) -> tuple[int, int, int]:
    """Return the side of the square around an image, and the image's top and left in it."""
    side = max(height, width)
    return side, (side - height) // 2, (side - width) // 2


class LlavaCaptioner(VisionTextCaptioner):
    """LLaVA-1.5 behind a vision tower with an alpha channel; ``prompt`` is the question."""

    family = 'alpha-clip-llava'
    encoder_part = 'model.vision_tower'

    def __init__(self, name: str, model: Any, tokenizer: Any, view: View, *,
                 device: str) -> None:
        """Take a loaded model over, whose vision tower has four channels.

        Raises:
            CheckpointError: If the tokenizer has no place for the image.
        """
        config = model.config
        patches = view.size[0] // config.vision_config.patch_size
        super().__init__(name, model, view, focus_modes=('alpha',), device=device,
                         grid=(patches, patches), class_tokens=_CLASS_TOKENS)
        self._tokenizer = tokenizer
        self._image_token = int(config.image_token_index)
        text = config.text_config
        eos = model.generation_config.eos_token_id
        eos = text.eos_token_id if eos is None else eos
        self._search = search_config(model.generation_config, eos=eos, pad=text.pad_token_id)
        model.generation_config = self._search  # generate() fills gaps from here
        self._max_positions = int(text.max_position_embeddings)
        if self._question('').count(self._image_token) != 1:
            raise CheckpointError(f'model {name!r} holds a tokenizer that does not know the image '
                                  f'token {self._image_token} of config.json; wanted the '
                                  "tokenizer of the LLaVA checkpoint itself, with '<image>'")

    @classmethod
    def load(cls, folder: Path, *, name: str, device: str, dtype: str) -> BaseCaptioner:
        """Load a LLaVA-1.5 folder together with an Alpha-CLIP tower.

        The tower is LLaVA's own where that has four channels already. Otherwise it is what lies
        beside LLaVA's weights: a ``.pth`` file, or a converted folder named ``alpha_clip``. For
        the known name it may also lie alone in that model's own folder, so that LLaVA itself can
        stay in the Hugging Face cache. A LLaVA with no such tower is an image-text model like
        others, unless it was asked for by the known name.

        Raises:
            CheckpointError: If either is missing, damaged or does not fit the other.
            OptionError: If the device cannot compute in dtype.
        """
        check_family(folder, 'llava')
        config = _config(folder)
        vision = config.vision_config
        path = None
        if getattr(vision, 'num_channels', 3) != CHANNELS:
            places = [folder, models_folder() / NAME] if name == NAME else [folder]
            path = next(filter(None, map(find_alpha_clip, places)), None)
            if path is None and name != NAME:
                from caption_ros.captioners.vision_language import VisionLanguageCaptioner

                return VisionLanguageCaptioner.load(folder, name=name, device=device, dtype=dtype)
            if path is None:
                raise CheckpointError(f'{folder} holds a LLaVA without Alpha-CLIP; put its .pth '
                                      '(weights for research use only) or a folder alpha_clip, '
                                      'made of it by caption-ros convert alpha-clip, into '
                                      f'{places[-1]}')
        if vision.model_type != 'clip_vision_model':
            raise CheckpointError(f'{folder / "config.json"} holds a LLaVA with a vision tower of '
                                  f"model_type {vision.model_type!r}, wanted 'clip_vision_model'")
        view = SquareView(load_processor(folder), (vision.image_size, vision.image_size))
        tokenizer = load_tokenizer(folder)
        model = load_fast(lambda number: _load(folder, path, vision, number), folder, device,
                          dtype)
        return cls(name, model, tokenizer, view, device=device)

    def _question(self, prompt: str) -> list[int]:
        """Return the tokens of a question, with the image's token once."""
        image = self._tokenizer.convert_ids_to_tokens(self._image_token)
        text = f'USER: {image}\n{prompt.strip() or QUESTION} ASSISTANT:'
        return list(self._tokenizer(text)['input_ids'])

    def _check_prompt(self, prompt: str) -> None:
        tokens = self._question(prompt)
        if tokens.count(self._image_token) != 1:
            raise OptionError(f'prompt {prompt!r} holds the token that stands for the image; '
                              f'model {self.name!r} puts that in by itself')
        room = self._max_positions - self._grid[0] * self._grid[1] - _CLASS_TOKENS - 1
        if len(tokens) > room:
            raise OptionError(f'prompt is too long: with it the question has {len(tokens)} '
                              f'tokens, model {self.name!r} takes {room}')

    def _encode(self, pixels: Any) -> Any:
        import torch

        core, config = getattr(self._model, 'model', self._model), self._model.config
        states = core.vision_tower(pixels.to(self.device, self._dtype),
                                   output_hidden_states=True).hidden_states
        layers = config.vision_feature_layer
        layers = [layers] if isinstance(layers, int) else layers
        chosen = torch.cat([states[layer] for layer in layers], -1)
        if config.vision_feature_select_strategy == 'default':
            chosen = chosen[:, _CLASS_TOKENS:]
        return core.multi_modal_projector(chosen)  # (batch, patches, width)

    def _decode(self, hidden: Any, rows: list[int], mask: Any | None,
                options: CaptionOptions) -> Decoded:
        import torch

        hidden = hidden[rows]
        tokens = self._question(options.prompt)
        place = tokens.index(self._image_token)
        embed = self._model.get_input_embeddings()
        before, after = (embed(torch.tensor([part], device=self.device)).repeat(len(hidden), 1, 1)
                         for part in (tokens[:place], tokens[place + 1:]))
        # As embeddings, so that a region's image is encoded once and not once a beam.
        inputs = torch.cat([before, hidden.to(before.dtype), after], 1)
        return search(self._model, self._search, options,
                      self._max_positions - inputs.shape[1], 0, inputs_embeds=inputs,
                      attention_mask=inputs.new_ones(inputs.shape[:2], dtype=torch.int64))

    def _alpha(self, region: Region | None) -> npt.NDArray[np.float32]:
        if region is None:
            return super()._alpha(region)
        cover = region_cover(self._view.region(region), self._view.size)
        # Alpha-CLIP was trained on masks of two values. Half of the fullest pixel, not of one,
        # so that a region thinner than the tower's pixels stays.
        return alpha_channel(cover >= cover.max() / 2)[0]

    def _text(self, tokens: list[int], prompt: str) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def find_alpha_clip(folder: Path) -> Path | None:
    """Return the folder alpha_clip or the one ``.pth`` in a folder, or None.

    Raises:
        CheckpointError: If there are several ``.pth``.
    """
    if (folder / 'alpha_clip').is_dir():
        return folder / 'alpha_clip'
    files = sorted(folder.glob('*.pth'))
    if len(files) > 1:
        raise CheckpointError(f'{folder} holds several .pth files '
                              f'({", ".join(file.name for file in files)}), wanted the one '
                              'Alpha-CLIP checkpoint')
    return files[0] if files else None


def lacks_alpha_clip(folder: Path) -> bool:
    """Tell whether a LLaVA cannot be the known model, for want of an Alpha-CLIP."""
    try:
        return (getattr(_config(folder).vision_config, 'num_channels', 3) != CHANNELS
                and not any(map(find_alpha_clip, (folder, models_folder() / NAME))))
    except CheckpointError:  # loading it says what is wrong
        return False


def _load(folder: Path, alpha_clip: Path | None, vision: Any, dtype: Any) -> Any:
    """Load a LLaVA, with the Alpha-CLIP at a path in the place of its tower."""
    from transformers import LlavaForConditionalGeneration

    if alpha_clip is None:
        return load_model(LlavaForConditionalGeneration, folder, dtype)
    # The tower first: it is the smaller of the two, so a mistake shows before the long load.
    tower = alpha_clip_vision_tower(alpha_clip, dtype).vision
    if _sizes(tower.config) != _sizes(vision):
        raise CheckpointError(f'{alpha_clip} holds an Alpha-CLIP tower of {_sizes(tower.config)}, '
                              f'wanted {_sizes(vision)} as the LLaVA in {folder} has it')
    model = load_model(LlavaForConditionalGeneration, folder, dtype)
    getattr(model, 'model', model).vision_tower = tower
    model.config.vision_config = tower.config
    return model


def _config(folder: Path) -> Any:
    from transformers import LlavaConfig

    try:
        return LlavaConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a value of a wrong type, a part of an unknown kind, ...
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(f'{folder / "config.json"} is no config of a LLaVA: '
                              f'{reason}') from error


def _sizes(vision: Any) -> str:
    return (f'width {vision.hidden_size}, {vision.num_hidden_layers} layers, '
            f'{vision.image_size} px in patches of {vision.patch_size} px')
