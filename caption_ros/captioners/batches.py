# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches that fit into memory: one that does not is halved, and the size that fits is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from caption_ros.captioner import Frame
from caption_ros.captioners.decoding import Decoded
from caption_ros.captioners.devices import device_label
from caption_ros.errors import CaptionError

# CUDA and HIP; the CPU; cuBLAS and hipBLAS; MIOpen.
_TEXTS = ('out of memory', "can't allocate memory", 'blas_status_alloc_failed',
          'miopenstatusallocfailed')

Item = TypeVar('Item')
Found = TypeVar('Found')


class Batches:
    """Looks at frames in as large a batch as memory allows.

    Args:
        name: The model's name, for messages.
        device: torch's name of the device.
        kind: What it is, for messages.

    Attributes:
        limit: Captions of a batch at most; None while every batch has fitted.
        halvings: How often a batch did not fit.
    """

    def __init__(self, name: str, device: str, kind: str = 'model') -> None:
        self._name = f'{kind} {name!r}'
        self._device = device
        self.limit: int | None = None
        self.halvings = 0

    def run(self, frames: Sequence[Frame], look: Callable[[Sequence[Frame]], Decoded],
            ) -> Decoded:
        """Return what look says of all regions, in their order.

        Args:
            frames: Images and their regions, one region at least.
            look: Looks at some of them as one batch.

        Raises:
            CaptionError: If memory does not suffice for one caption.
        """
        def said(batch: Sequence[tuple]) -> list[tuple[list[int], float]]:
            decoded = look(_frames(batch))
            return list(zip(decoded.tokens, decoded.scores))

        found = self.each([(rgb, region) for rgb, regions in frames for region in regions], said)
        return Decoded([tokens for tokens, _ in found], [score for _, score in found])

    def each(self, items: Sequence[Item], look: Callable[[Sequence[Item]], Sequence[Found]],
             ) -> list[Found]:
        """Return what look finds for each item, in their order.

        Args:
            items: What memory may not suffice for at once.
            look: Looks at some of them as one batch.

        Raises:
            CaptionError: If memory does not suffice for one item.
        """
        found: list[Found] = []
        while len(found) < len(items):
            batch = items[len(found):][:self.limit]
            try:
                found += look(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # After the except block: its traceback holds the tensors of the batch.
            self._halve(len(batch))
        return found

    def _halve(self, size: int) -> None:
        if self._device != 'cpu':
            import torch

            torch.cuda.empty_cache()
        device = device_label(self._device)
        if size == 1:
            raise CaptionError(f'{self._name} ran out of memory on {device} with one '
                               'caption; free memory, choose a smaller model or dtype, lower '
                               'max_new_tokens or num_beams, or set device to cpu')
        self.limit = size // 2
        self.halvings += 1
        if self.halvings == 1:
            logging.getLogger(__name__).warning(
                '%s ran out of memory on %s with %d captions in a batch; it goes on with '
                'smaller batches', self._name, device, size)


def _frames(pairs: Sequence[tuple]) -> list[Frame]:
    """Put regions of the same image, which lie beside each other, into one frame again."""
    frames: list[tuple] = []
    for rgb, region in pairs:
        if not frames or frames[-1][0] is not rgb:
            frames.append((rgb, []))
        frames[-1][1].append(region)
    return frames


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the device has no memory left."""
    import torch

    # HIP reports some failures as a plain RuntimeError.
    return (isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
            or any(text in str(error).lower() for text in _TEXTS))
