# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The way tutorials caption: float32, one picture at a time, a crop for each region."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.region import Region, crop


class Published:
    """transformers' own classes, processor and generate(), as model cards show them.

    Args:
        folder: Checkpoint of a VisionEncoderDecoderModel or of BLIP.
        dtype: Name of torch's number type of the weights; what tutorials leave at float32.

    Attributes:
        dtype: As given.
    """

    def __init__(self, folder: Path, dtype: str = 'float32') -> None:
        import torch
        from transformers import (
            AutoConfig,
            AutoImageProcessor,
            AutoTokenizer,
            BlipForConditionalGeneration,
            VisionEncoderDecoderModel,
        )

        from caption_ros.captioners.patches import cut_by_matrices

        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        loader: Any = BlipForConditionalGeneration if kind == 'blip' \
            else VisionEncoderDecoderModel
        self.dtype = dtype
        self._model = loader.from_pretrained(folder, dtype=getattr(torch, dtype),
                                             local_files_only=True).eval()
        cut_by_matrices(self._model)  # else it would be wrong itself in bfloat16 on some CPUs
        self._processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = self._model.config
        self._has_alpha = kind != 'blip' and config.encoder.num_channels == 4

    def caption(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                max_new_tokens: int) -> list[str]:
        """Caption each region's crop of an image (H, W, 3), or all of it for None."""
        return [self._one(rgb if region is None else crop(rgb, rgb[..., 0], region.box)[0],
                          max_new_tokens) for region in regions]

    def _one(self, rgb: npt.NDArray[np.uint8], max_new_tokens: int) -> str:
        import torch

        with torch.no_grad():
            pixels = self._processor(images=rgb, return_tensors='pt')['pixel_values']
            if self._has_alpha:
                pixels = torch.cat([pixels, torch.full_like(pixels[:, :1], 0.5 / 0.26)], 1)
            ids = self._model.generate(pixel_values=pixels.to(self._model.dtype),
                                       max_new_tokens=max_new_tokens, num_beams=1,
                                       do_sample=False)
        return str(self._tokenizer.batch_decode(ids, skip_special_tokens=True)[0]).strip()
