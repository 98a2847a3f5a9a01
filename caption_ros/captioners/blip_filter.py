# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""BLIP's image-text matching as a filter (Li et al., ICML 2022, arXiv:2201.12086)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.captioners.batches import Batches
from caption_ros.captioners.devices import device_label
from caption_ros.captioners.loading import (
    check_family,
    load_fast,
    load_model,
    load_processor,
    load_tokenizer,
)
from caption_ros.captioners.view import View, cropped
from caption_ros.errors import CaptionError
from caption_ros.region import Region


class BlipFilter:
    """A BlipForImageTextRetrieval; each region is shown as its crop with some context."""

    def __init__(self, name: str, model: Any, tokenizer: Any, view: View, *, device: str) -> None:
        """Take a loaded model over.

        Args:
            name: The name or path it was loaded by.
            model: The model, on its device.
            tokenizer: Its tokenizer.
            view: Image processor and its geometry.
            device: torch's name of the device.
        """
        self.name = name
        self.device = device
        self.batches = Batches(name, device, 'filter')
        self._model = model
        self._tokenizer = tokenizer
        self._view = view
        self._max_tokens = int(model.config.text_config.max_position_embeddings)
        self._turn = threading.RLock()  # for one caller at a time; close() waits for its turn, too

    @classmethod
    def load(cls, folder: Path, *, name: str, device: str, dtype: str) -> BlipFilter:
        """Load a checkpoint folder.

        Raises:
            CheckpointError: If it is damaged or of another family.
            OptionError: If the device cannot compute in dtype.
        """
        from transformers import BlipForImageTextRetrieval

        vision = check_family(folder, 'blip').get('vision_config') or {}
        view = View(load_processor(folder), (int(vision.get('image_size', 384)),) * 2)
        tokenizer = load_tokenizer(folder)
        model = load_fast(lambda number: load_model(BlipForImageTextRetrieval, folder, number),
                          folder, device, dtype)
        return cls(name, model, tokenizer, view, device=device)

    def match(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
              texts: Sequence[str]) -> list[float]:
        """Return the probability that each text describes its region; see CaptionFilter.

        A region is encoded once in a batch, however many texts are about it.
        """
        with self._turn:
            if self._model is None:
                raise CaptionError(f'filter {self.name!r} has been closed')
            try:
                return self.batches.each(list(zip(regions, texts)),
                                         lambda some: self._matched(rgb, *zip(*some)))
            except (RuntimeError, ValueError, IndexError) as error:
                reason = ' '.join(str(error).split())[:300]
                raise CaptionError(
                    f'filter {self.name!r} failed on {device_label(self.device)}: '
                    f'{reason}') from error

    def problems(self) -> list[str]:
        """Say what is not as it should be, one sentence each."""
        if not self.batches.halvings:
            return []
        return [f'memory allows the filter {self.batches.limit} caption(s) in a batch: lower '
                'candidates or max_regions, or choose a smaller model or dtype']

    def _matched(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                 texts: Sequence[str]) -> list[float]:
        import torch

        seen = {id(region): region for region in regions}
        row_of = {key: row for row, key in enumerate(seen)}
        with torch.inference_mode():
            pixels = torch.stack([
                self._view.pixels(rgb if region is None else cropped(rgb, region))
                for region in seen.values()])
            hidden = self._model.vision_model(
                pixel_values=pixels.to(self.device, self._model.dtype))[0]
            return self._match(hidden[[row_of[id(region)] for region in regions]], texts)

    def _match(self, hidden: Any, texts: Sequence[str]) -> list[float]:
        words = self._tokenizer(list(texts), padding=True, truncation=True,
                                max_length=self._max_tokens, return_tensors='pt').to(self.device)
        joint = self._model.text_encoder(  # hidden is (texts, patches, width)
            input_ids=words['input_ids'], attention_mask=words['attention_mask'],
            encoder_hidden_states=hidden,
            encoder_attention_mask=hidden.new_ones(hidden.shape[:-1]).long()).last_hidden_state
        fits = self._model.itm_head(joint[:, 0]).float().softmax(-1)[:, 1]
        return [float(value) for value in fits.cpu()]

    def close(self) -> None:
        """Free the model's memory, after a match in work."""
        with self._turn:
            self._model = None
            if self.device != 'cpu':
                import torch

                torch.cuda.empty_cache()
