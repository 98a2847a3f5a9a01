# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What part of an image a model sees, and the same geometry for regions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from caption_ros.errors import CheckpointError
from caption_ros.memo import Memo
from caption_ros.region import Box, Region, crop, crop_box

# They differ in their defaults only, and preprocessor_config.json says all.
_PLAIN = ('ViTImageProcessor', 'ViTImageProcessorPil', 'DeiTImageProcessorPil',
          'BlipImageProcessor', 'BlipImageProcessorPil')
_LARGE_PX = 600_000  # below, Pillow takes a millisecond or two and is the reference to the bit
_TORCH_MODES = {2: 'bilinear', 3: 'bicubic'}  # by Pillow's numbers


@dataclass(frozen=True)
class View:
    """A checkpoint's image processor and the geometry that it applies.

    Attributes:
        processor: Image processor from transformers.
        size: Height and width of what the encoder gets, in pixels.
    """

    processor: Any
    size: tuple[int, int]
    _stretched: Memo[Any] = field(default_factory=Memo)

    def prepare(self, rgb: npt.NDArray[np.uint8]) -> None:
        """Do a part of what pixels() does of the same image, on any thread."""
        # Torch would stretch a large one on threads of its own, beside those that compute.
        if self._plain is not None and not self._plain.uses_torch(rgb):
            self._stretched.keep(rgb, self._plain.stretched(rgb))

    def pixels(self, rgb: npt.NDArray[np.uint8]) -> Any:
        """Return the encoder's input for an image, shape (3, height, width), float32."""
        if self._plain is not None:
            values = self._stretched.get(rgb)
            return self._plain.normalised(
                self._plain.stretched(rgb) if values is None else values)
        batch = self.processor(images=np.ascontiguousarray(rgb), return_tensors='pt',
                               input_data_format='channels_last')
        pixels = batch['pixel_values'][0]
        if tuple(pixels.shape) != (3, *self.size):
            raise CheckpointError(f'the image processor makes {tuple(pixels.shape)} of an image, '
                                  f'the encoder wants {(3, *self.size)}; '
                                  'preprocessor_config.json and config.json do not fit')
        return pixels

    @cached_property
    def _plain(self) -> _Plain | None:
        """What the processor does, if that is stretching and normalising alone."""
        wishes = self.processor.to_dict()
        size = wishes.get('size') or {}
        others = [name for name, value in wishes.items() if name.startswith('do_') and value
                  and name not in ('do_resize', 'do_rescale', 'do_normalize', 'do_convert_rgb')]
        if (others or type(self.processor).__name__ not in _PLAIN
                or (size.get('height'), size.get('width')) != self.size
                or not all(wishes.get(name) for name in ('do_resize', 'do_rescale',
                                                         'do_normalize'))):
            return None
        mean, std = (np.asarray(wishes[name], np.float32) for name in ('image_mean', 'image_std'))
        return _Plain(self.size, int(wishes['resample']),
                      np.float32(wishes['rescale_factor']) / std, -mean / std)

    def seen(self, image_size: tuple[int, int]) -> Box:
        """Return the box of an image that the model sees: all of it, or a centre crop."""
        height, width = image_size
        processor = self.processor
        if not getattr(processor, 'do_center_crop', None):
            return 0, 0, width, height
        wanted = processor.size
        edge = wanted.get('shortest_edge') if hasattr(wanted, 'get') else None
        rows, cols = self.size
        if edge and getattr(processor, 'do_resize', True):
            scale = min(height, width) / edge
            down = across = scale
        else:  # stretched to a size before the crop
            down, across = height / wanted['height'], width / wanted['width']
        tall, wide = min(height, rows * down), min(width, cols * across)
        top, left = (height - tall) / 2, (width - wide) / 2
        return (int(np.floor(left)), int(np.floor(top)),
                min(int(np.ceil(left + wide)), width), min(int(np.ceil(top + tall)), height))

    def region(self, region: Region) -> Region:
        """Return a region as it lies in what the model sees.

        A region outside of a centre crop becomes the pixel of the crop nearest to it.
        """
        height, width = region.image_size
        x0, y0, x1, y1 = self.seen(region.image_size)
        if (x0, y0, x1, y1) == (0, 0, width, height):
            return region
        mask = region.full_mask()[y0:y1, x0:x1].copy()
        if not mask.any():
            left, top, right, bottom = region.box
            mask[int(np.clip((top + bottom) // 2 - y0, 0, y1 - y0 - 1)),
                 int(np.clip((left + right) // 2 - x0, 0, x1 - x0 - 1))] = True
        return Region(region.label, (0, 0, x1 - x0, y1 - y0), mask,
                      int(np.count_nonzero(mask)), (y1 - y0, x1 - x0))


@dataclass(frozen=True)
class _Plain:
    """Stretches and normalises; what the processor spends between the two is saved."""

    size: tuple[int, int]
    resample: int
    scale: npt.NDArray[np.float32]  # (3,)
    offset: npt.NDArray[np.float32]

    def normalised(self, values: Any) -> Any:
        """Return the encoder's input for a stretched image."""
        import torch

        scale, offset = (torch.from_numpy(each)[:, None, None]
                         for each in (self.scale, self.offset))
        return torch.addcmul(offset, values, scale)

    def uses_torch(self, rgb: npt.NDArray[np.uint8]) -> bool:
        """Tell whether torch stretches this image, not Pillow."""
        return self.resample in _TORCH_MODES and rgb.shape[0] * rgb.shape[1] >= _LARGE_PX

    def stretched(self, rgb: npt.NDArray[np.uint8]) -> Any:
        """Return the image in the model's size, (3, height, width), uint8."""
        import torch
        from PIL import Image

        if self.uses_torch(rgb):
            # As the processors over torchvision do it: Pillow's arithmetic, up to one grey level
            # in a few pixels of a thousand, in a tenth of its time.
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # a message's bytes are read-only, and stay as is
                # torch takes no steps backwards, as flipped images and BGR read as RGB have them.
                image = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None]
            return torch.nn.functional.interpolate(
                image, self.size, mode=_TORCH_MODES[self.resample], antialias=True)[0]
        picture = Image.fromarray(rgb).resize(self.size[::-1], Image.Resampling(self.resample))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def cropped(rgb: npt.NDArray[np.uint8], region: Region) -> npt.NDArray[np.uint8]:
    """Return the part of an image (H, W, 3) that shows a region with some context."""
    return crop(rgb, rgb[..., 0], crop_box(region))[0]
