# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What models with an image encoder and a text decoder have in common: the ways to look.

alpha gives the encoder the mask as a fourth channel. attention encodes the image once and lets
the decoder look at a region's patches only; the class token, which has seen the whole image, is
kept out. crop shows the model each region with some context. The whole scene is always the
plain image with every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners.base import BaseCaptioner
from caption_ros.captioners.decoding import Decoded, decode
from caption_ros.captioners.greedy import GreedySearch
from caption_ros.captioners.view import View, cropped
from caption_ros.region import Region, normalise_alpha, patch_mask, resize_mask


class VisionTextCaptioner(BaseCaptioner):
    """Base of captioners; a subclass encodes, decodes and says how its patches lie."""

    def __init__(self, name: str, model: Any, view: View, *, focus_modes: tuple[str, ...],
                 device: str, grid: tuple[int, int], class_tokens: int) -> None:
        """Take a loaded model over.

        Args:
            name: The name or path it was loaded by.
            model: The model, on its device.
            view: Image processor and its geometry.
            focus_modes: Ways to look at a region.
            device: torch's name of the device.
            grid: Rows and columns of patches.
            class_tokens: Encoder tokens before the patches.
        """
        super().__init__(name, model, focus_modes=focus_modes, device=device)
        self._view = view
        self._grid = grid
        self._class_tokens = class_tokens
        # A subclass sets these, the second where the decoder allows it.
        self._search: Any = None
        self._greedy: GreedySearch | None = None
        self._max_positions = 0

    def close(self) -> None:
        """Free the model's memory."""
        self._greedy = None
        super().close()

    def _look(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None], focus: str,
              options: CaptionOptions) -> Decoded:
        import torch

        if focus in ('alpha', 'crop'):
            seen = {id(region): region for region in regions}  # a region may come several times
            pixels = (self._with_alpha if focus == 'alpha' else self._crops)(
                rgb, list(seen.values()))
            row_of = {key: row for row, key in enumerate(seen)}
            hidden = self._encode(pixels)[[row_of[id(region)] for region in regions]]
            return self._decode(hidden, None, options)
        hidden = self._encode(self._view.pixels(rgb)[None])  # (1, tokens, width)
        if all(region is None for region in regions):
            # repeat, not expand: GPT-2's Conv1D views its input, which an expanded one forbids.
            return self._decode(hidden.repeat(len(regions), 1, 1), None, options)
        mask = torch.from_numpy(self._token_mask(regions)).to(self.device)
        return self._decode(hidden, mask, options)

    def _crops(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None]) -> Any:
        """Return pixels (regions, 3, H, W), each region's crop."""
        import torch

        return torch.stack([self._view.pixels(rgb if region is None else cropped(rgb, region))
                            for region in regions])

    def _with_alpha(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None]) -> Any:
        """Return pixels (regions, 4, H, W); the picture is prepared once for all."""
        import torch

        batch = torch.empty(len(regions), 4, *self._view.size)
        batch[:, :3] = self._view.pixels(rgb)
        for row, region in zip(batch, regions):
            row[3] = torch.from_numpy(self._alpha(region))
        return batch

    def _alpha(self, region: Region | None) -> npt.NDArray[np.float32]:
        """Return the alpha channel of a region, (H, W); the whole scene is region everywhere."""
        if region is None:
            return normalise_alpha(np.ones(self._view.size, np.float32))
        return normalise_alpha(resize_mask(self._view.region(region).full_mask(),
                                           self._view.size))

    def _token_mask(self, regions: Sequence[Region | None]) -> npt.NDArray[np.int64]:
        """Return the encoder tokens that each caption may look at, (regions, tokens)."""
        patches = self._grid[0] * self._grid[1]
        mask = np.ones((len(regions), self._class_tokens + patches), np.int64)
        for row, region in zip(mask, regions):
            if region is not None:
                row[:self._class_tokens] = 0
                row[self._class_tokens:] = patch_mask(self._view.region(region), self._grid)
        return mask

    def _encode(self, pixels: Any) -> Any:
        raise NotImplementedError

    def _decode(self, hidden: Any, mask: Any | None, options: CaptionOptions) -> Decoded:
        """Return a caption for each row of the mask, or of the encoder states without one.

        Args:
            hidden: Encoder states, (regions, tokens, width); with a mask (1, tokens, width).
            mask: Encoder tokens to look at, (regions, tokens), int64.
            options: Search and length.
        """
        raise NotImplementedError

    def _say(self, given: list[int], decoder: Any, hidden: Any, mask: Any | None,
             options: CaptionOptions) -> Decoded:
        """Search for captions that begin with the given tokens; see _decode."""
        import torch

        if self._greedy is not None and options.num_beams == 1 and not options.sample:
            room = max(1, min(options.max_new_tokens, self._max_positions - len(given)))
            return self._greedy(given, hidden, mask, room)
        return decode(decoder, self._search, torch.tensor(given, device=self.device), hidden,
                      mask, options, self._max_positions)
