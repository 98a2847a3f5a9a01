# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An image encoder through torch.compile, in a few fixed sizes of its batch.

Each new size is compiled anew, which takes up to minutes, so a batch is filled up to the next
power of two. Whatever goes wrong in compiling, the encoder goes on uncompiled and says so once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from caption_ros.captioners.batches import is_out_of_memory

SIZES = (1, 2, 4, 8, 16)  # torch.compile gives up after 8 of them


class CompiledEncoder:
    """Stands for an encode function whose model has one part compiled.

    Args:
        name: The model's name, for messages.
        model: The model.
        part: Name of its module to compile, with dots; it is replaced as long as compiling works.
        encode: Returns encoder states, (images, tokens, width), of pixels, (images, channels,
            height, width); runs that part.
        mode: torch.compile's mode.

    Attributes:
        failure: Why it is not compiled after all; empty as long as it is.
    """

    def __init__(self, name: str, model: Any, part: str, encode: Callable[[Any], Any],
                 mode: str) -> None:
        import torch

        self._name = name
        owner, _, self._part = part.rpartition('.')
        self._owner = model.get_submodule(owner)
        self._encode = encode
        self._plain = getattr(self._owner, self._part)
        self._records = mode != 'default'
        self.failure = ''
        if any(hasattr(module, 'packed_numbers') for module in self._plain.modules()):
            self._give_up('its layers are packed for the CPU, which torch.compile cannot read')
            return
        setattr(self._owner, self._part, torch.compile(self._plain, mode=mode, dynamic=False))

    def __call__(self, pixels: Any) -> Any:
        """Return the encoder states of all images."""
        if self.failure:
            return self._encode(pixels)
        import torch

        try:
            parts = [self._encode_some(some) for some in pixels.split(SIZES[-1])]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except Exception as error:  # compilers raise anything; a fault of the model comes again
            if is_out_of_memory(error):
                raise
            self._give_up(f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
        return self._encode(pixels)

    def close(self) -> None:
        """Let go of what was compiled, recorded graphs and their memory included."""
        import torch

        setattr(self._owner, self._part, self._plain)
        torch.compiler.reset()

    def _encode_some(self, pixels: Any) -> Any:
        import torch

        count = len(pixels)
        size = next(size for size in SIZES if size >= count)
        if size > count:
            pixels = torch.cat([pixels, pixels.new_zeros(size - count, *pixels.shape[1:])])
        torch.compiler.cudagraph_mark_step_begin()
        hidden = self._encode(pixels)[:count]
        # The next run of a recorded graph writes to the same place.
        return hidden.clone() if self._records else hidden

    def _give_up(self, why: str) -> None:
        setattr(self._owner, self._part, self._plain)
        self.failure = why
        logging.getLogger(__name__).warning(
            'the encoder of model %r cannot be compiled and runs uncompiled (%s); set compile to '
            'none, or mend that', self._name, why)
