# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A small model's image encoder as one call of torch, without Python between its layers.

Each layer called from Python gives the interpreter lock away and waits until it has it again. In
a node, whose other threads take messages meanwhile, that costs a small model a tenth of its time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

_TRACED_WITH = 2  # images; one might be taken for a shape that can be left out
_TRIED_WITH = (1, 3)


# torch keeps the code of what it traces, some megabytes, for as long as the process lives: what a
# closed model no longer needs serves the next of its kind.
_spare: dict[str, list[Any]] = {}


class _Whole(torch.nn.Module):
    # torch keeps this class, too, so the class itself may hold nothing.
    def __init__(self, model: Any, encode: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model = model
        self.encode = encode

    def forward(self, pixels: Any) -> Any:
        return self.encode(pixels)


class TracedEncoder:
    """Encodes by one call of torch.

    Args:
        module: What torch traced.
        kind: What other models must have in common with this one to use it; empty if none may.
    """

    def __init__(self, module: Any, kind: str) -> None:
        self._module = module
        self._kind = kind

    def __call__(self, pixels: Any) -> Any:
        """Return encoder states, (images, tokens, width), of pixels."""
        return self._module(pixels)

    def close(self) -> None:
        """Let go of the weights; the model, whose weights they are, is of no use afterwards."""
        with torch.no_grad():
            for weight in self._module.parameters():
                weight.set_(weight.new_empty(0))
        if self._kind:
            _spare.setdefault(self._kind, []).append(self._module)


def traced(model: Any, encode: Callable[[Any], Any], images: Any,
           kind: str) -> TracedEncoder | None:
    """Return an encode function as one call of torch, or None where that computes otherwise.

    Args:
        model: The module whose weights encode uses; its weights are shared.
        encode: Returns encoder states, (images, tokens, width), of pixels, (images, channels,
            height, width), whatever the number of images.
        images: Pixels of at least three images, to try it with.
        kind: What tells models of the same layers and sizes from others, such as their config;
            empty for one whose weights are no parameters, and so cannot serve another.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what depends on the image's size is fixed, as is wanted
        try:
            if kind and _spare.get(kind):
                module = _spare[kind].pop()
                for weight, own in zip(module.parameters(), model.parameters(), strict=True):
                    weight.set_(own)
            else:
                module = torch.jit.trace(_Whole(model, encode).eval(), images[:_TRACED_WITH],
                                         check_trace=False)
            same = all(torch.allclose(module(images[:count]), encode(images[:count]),
                                      rtol=1e-3, atol=1e-4) for count in _TRIED_WITH)
        except Exception:  # noqa: BLE001 - a model that cannot be traced runs as it is
            same = False
    return TracedEncoder(module, kind) if same else None
