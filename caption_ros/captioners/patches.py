# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Cutting a picture of four channels into patches, right on every CPU.

On CPUs with AMX, oneDNN as torch 2.13 has it computes a convolution of four channels in bfloat16
whose stride is its kernel's size wrongly, without a word: the captions that follow name nothing
that is there. As one product of matrices it is right, and no slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_CHANNELS = 4


class PatchConvolution(nn.Conv2d):
    """A convolution over patches that do not overlap, as a product of matrices."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return (images, out, rows, columns) of (images, channels, height, width)."""
        images, channels, height, width = pixels.shape
        tall, wide = self.kernel_size
        rows, columns = height // tall, width // wide
        patches = pixels[..., :rows * tall, :columns * wide].reshape(
            images, channels, rows, tall, columns, wide).permute(0, 2, 4, 1, 3, 5)
        seen = functional.linear(patches.reshape(images, rows * columns, -1),
                                 self.weight.flatten(1), self.bias)
        return seen.transpose(1, 2).reshape(images, -1, rows, columns)


def cut_by_matrices(model: Any) -> None:
    """Let a model in bfloat16 cut pictures of four channels by PatchConvolution.

    Args:
        model: A model on the CPU; its weights stay as they are.
    """
    for module in model.modules():
        if (type(module) is nn.Conv2d and module.in_channels == _CHANNELS and module.groups == 1
                and module.kernel_size == module.stride and set(module.padding) == {0}
                and module.weight.dtype is torch.bfloat16):
            module.__class__ = PatchConvolution
