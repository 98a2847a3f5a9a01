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

_TRACED_WITH = 2  # images; one might be taken for a shape that can be left out
_TRIED_WITH = (1, 3)


def traced(encode: Callable[[Any], Any], images: Any) -> Callable[[Any], Any]:
    """Return an encode function as one call of torch, or itself where that computes otherwise.

    Args:
        encode: Returns encoder states, (images, tokens, width), of pixels, (images, channels,
            height, width), whatever the number of images.
        images: Pixels of at least three images, to try it with.
    """
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # what depends on the image's size is fixed, as is wanted
        try:
            fast = torch.jit.trace(encode, images[:_TRACED_WITH], check_trace=False)
            same = all(torch.allclose(fast(images[:count]), encode(images[:count]),
                                      rtol=1e-3, atol=1e-4) for count in _TRIED_WITH)
        except Exception:  # noqa: BLE001 - a model that cannot be traced runs as it is
            same = False
    return fast if same else encode
