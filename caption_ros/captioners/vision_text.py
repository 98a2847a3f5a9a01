# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What models with an image encoder and a text decoder have in common: the ways to look.

alpha gives the encoder the mask as a fourth channel. attention encodes the image once and lets
the decoder look at a region's patches only; the class token, which has seen the whole image, is
kept out. crop shows the model each region with some context. The whole scene is always the
plain image with every token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.captioner import CaptionOptions, Frame, check_focus
from caption_ros.captioners.acceleration import Acceleration, Prepared
from caption_ros.captioners.base import BaseCaptioner, number_type
from caption_ros.captioners.compiled import CompiledEncoder
from caption_ros.captioners.decoding import Decoded, decode
from caption_ros.captioners.greedy import GreedySearch
from caption_ros.captioners.loading import quiet
from caption_ros.captioners.side_by_side import SideBySide
from caption_ros.captioners.traced import TracedEncoder, traced
from caption_ros.captioners.view import View, cropped
from caption_ros.memo import Memo
from caption_ros.region import Region, normalise_alpha, patch_mask, region_cover


class VisionTextCaptioner(BaseCaptioner):
    """Base of captioners; a subclass encodes, decodes and says how its patches lie.

    Attributes:
        encoder_part: Name of the model's image encoder, in the model.
        decoder_part: Name of its text decoder, where the two may compute in different types.
    """

    encoder_part = ''
    decoder_part = ''

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
        self._encoder_dtype = self._decoder_dtype = self._dtype
        if self.decoder_part:
            parts = [model.get_submodule(part) for part in (self.encoder_part, self.decoder_part)]
            self._encoder_dtype, self._decoder_dtype = (part.dtype for part in parts)
            self.dtype = '+'.join(dict.fromkeys(map(number_type, parts)))  # the encoder's first
        self._view = view
        self._grid = grid
        self._class_tokens = class_tokens
        # A subclass sets these, the second where the decoder allows it.
        self._search: Any = None
        self._greedy: GreedySearch | None = None
        self._max_positions = 0
        self._compiled: CompiledEncoder | None = None
        self._traced: TracedEncoder | None = None
        self._side_by_side = SideBySide()
        self._alphas: Memo[npt.NDArray[np.float32]] = Memo()

    def prepare(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None],
                options: CaptionOptions) -> None:
        """Do a part of what caption() does of the same image and regions; see Captioner."""
        focus = check_focus(self, options.focus)
        if focus != 'crop' or None in regions:
            self._view.prepare(rgb)
        if focus == 'alpha':
            for region in regions:
                if region is not None:
                    self._alphas.keep(region, self._alpha(region))

    def accelerate(self, acceleration: Acceleration, prepared: Prepared) -> None:
        """Compute as is asked for from now on; see BaseCaptioner."""
        super().accelerate(acceleration, prepared)
        if acceleration.attention != 'auto' and self.device == 'cpu':
            from caption_ros.captioners.products import attend_by_torch

            attend_by_torch(self._model.get_submodule(self.encoder_part))
        # Beside generate(), which is Python for each token, the encoder's would not count.
        if self._is_small and self._greedy is not None and self._compiled is None:
            with quiet(), self._computing():  # tracing looks at what transformers warns of
                kind = ('' if 'int8' in self.dtype else
                        f'{self.dtype} {self._view.size} {self._model.config.to_json_string()}')
                self._traced = traced(self._model, self._encode, self._blank(3), kind)

    def facts(self) -> dict[str, str]:
        """Return how the model computes, by name, for diagnostics."""
        facts = super().facts()
        if self._compiled is not None and self._compiled.failure:
            facts['compile'] = f'failed: {self._compiled.failure}'
        facts['greedy search'] = 'compiled' if self._greedy is not None else 'generate()'
        if self._greedy is not None and self._greedy.drafted:
            facts['drafted tokens right'] = f'{self._greedy.right} of {self._greedy.drafted}'
        if self._greedy is not None and self._greedy.recalled:
            facts['recalled tokens right'] = (
                f'{self._greedy.said_again} of {self._greedy.recalled}')
        return facts

    def problems(self) -> list[str]:
        """Say what is not as it was asked for, one sentence each."""
        found = super().problems()
        if self._compiled is not None and self._compiled.failure:
            found.append('the encoder could not be compiled and runs uncompiled')
        return found

    def _free(self) -> None:
        self._greedy = None
        self._side_by_side.close()
        if self._traced is not None:
            self._traced.close()
            self._traced = None
        if self._compiled is not None:
            self._compiled.close()
            self._compiled = None
        super()._free()

    def _compile(self, mode: str) -> None:
        self._compiled = CompiledEncoder(self.name, self._model, self.encoder_part, self._encode,
                                         mode)
        # One image now, so that what is wrong shows at once.
        with self._computing():
            self._compiled(self._blank(1))

    def _blank(self, count: int) -> Any:
        """Return pixels of so many images to try the encoder with."""
        import torch

        pixels = torch.linspace(-1, 1, count)[:, None, None, None]
        if 'alpha' in self.focus_modes:
            return pixels.repeat(1, 4, *self._view.size).to(self._encoder_dtype)
        return pixels.repeat(1, 3, *self._view.size)

    def _encoded(self, batch: Any) -> Any:
        """Return encoder states (images, tokens, width) of pixels (images, 3 or 4, H, W)."""
        import torch

        encode: Callable[[Any], Any] = self._compiled or self._traced or self._encode
        if self.device != 'cpu' or self._compiled is not None:
            return encode(batch)
        if self._is_small:
            # Many captions have torch's threads already; see _computing.
            lanes = 1 if torch.get_num_threads() > 1 else min(self._threads, len(batch))
            return self._side_by_side(encode, batch, lanes)
        rest = len(batch) % self._threads  # all threads share each of these
        states = [encode(batch[:rest])] if rest else []
        if rest < len(batch):
            states.append(self._side_by_side(encode, batch[rest:], self._threads))
        return states[0] if len(states) == 1 else torch.cat(states)

    def _look(self, frames: Sequence[Frame], focus: str, options: CaptionOptions) -> Decoded:
        import torch

        if focus in ('alpha', 'crop'):
            look = self._with_alpha if focus == 'alpha' else self._crops
            pixels, rows, count = [], [], 0
            for rgb, regions in frames:
                seen = {id(region): region for region in regions}  # one may come several times
                places = {key: count + i for i, key in enumerate(seen)}
                rows.extend(places[id(region)] for region in regions)
                pixels.append(look(rgb, list(seen.values())))
                count += len(seen)
            batch = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
            return self._decode(self._encoded(batch), rows, None, options)
        hidden = self._encoded(torch.stack([self._view.pixels(rgb) for rgb, _ in frames]))
        rows = [i for i, (_, regions) in enumerate(frames) for _ in regions]
        wanted = [region for _, regions in frames for region in regions]
        if all(region is None for region in wanted):
            return self._decode(hidden, rows, None, options)
        mask = torch.from_numpy(self._token_mask(wanted)).to(self.device)
        return self._decode(hidden, rows, mask, options)

    def _crops(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None]) -> Any:
        """Return pixels (regions, 3, H, W) of each region's crop."""
        import torch

        return torch.stack([self._view.pixels(rgb if region is None else cropped(rgb, region))
                            for region in regions])

    def _with_alpha(self, rgb: npt.NDArray[np.uint8], regions: Sequence[Region | None]) -> Any:
        """Return pixels (regions, 4, H, W); the picture is prepared once for all.

        In the encoder's number type, as sixteen pictures in float32 are no small matter.
        """
        import torch

        batch = torch.empty(len(regions), 4, *self._view.size, dtype=self._encoder_dtype)
        batch[:, :3] = self._view.pixels(rgb)
        for row, region in zip(batch, regions):
            alpha = self._alphas.get(region)
            row[3] = torch.from_numpy(self._alpha(region) if alpha is None else alpha)
        return batch

    def _alpha(self, region: Region | None) -> npt.NDArray[np.float32]:
        """Return the alpha channel of a region, (H, W); the whole scene is region everywhere."""
        if region is None:
            return normalise_alpha(np.ones(self._view.size, np.float32))
        return normalise_alpha(region_cover(self._view.region(region), self._view.size))

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

    def _decode(self, hidden: Any, rows: list[int], mask: Any | None,
                options: CaptionOptions) -> Decoded:
        """Return a caption for each of the rows.

        Args:
            hidden: Encoder states, (images, tokens, width).
            rows: The image that each caption looks at, ascending by first appearance and with
                each image at least once.
            mask: Encoder tokens to look at, (rows, tokens), int64; None is all.
            options: Search and length.
        """
        raise NotImplementedError

    def _say(self, given: list[int], decoder: Any, hidden: Any, rows: list[int],
             mask: Any | None, options: CaptionOptions) -> Decoded:
        """Search for captions that begin with the given tokens; see _decode."""
        import torch

        if self._greedy is not None and options.num_beams == 1 and not options.sample:
            room = max(1, min(options.max_new_tokens, self._max_positions - len(given)))
            return self._greedy(given, hidden, rows, mask, room, recall=options.recall)
        return decode(decoder, self._search, torch.tensor(given, device=self.device),
                      hidden[rows], mask, options, self._max_positions)
