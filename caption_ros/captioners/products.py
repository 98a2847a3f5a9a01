# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An image's tokens attending to one another in bfloat16, by a kernel or as products of matrices.

Without AMX, torch's own attention of bfloat16 runs at a third of what the CPU multiplies, and a
product of matrices does not. A few heads at a time, their scores stay in the cache; the kernel of
kernels.cpp, where there is one, takes a few tokens of one head at a time. Beside weights of int8,
which round more than bfloat16 does, attention in float32 is narrowed to it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.blip.modeling_blip import BlipAttention

from caption_ros.captioners.devices import cpu_multiplies, has_amx
from caption_ros.captioners.kernels import has_kernel
from caption_ros.captioners.linears import is_int8

NAME, NAME_INT8 = 'caption_ros_products', 'caption_ros_products_int8'
_TOKENS = 128  # with fewer there is nothing to gain
_SCORES = 2**19  # at once: a megabyte, the second cache of a core


def attend_by_products(encoder: Any) -> None:
    """Let an image encoder attend by products where that is faster.

    Args:
        encoder: Encoder from transformers on the CPU; its weights stay as they are, and in float32
            it does, too.
    """
    int8 = any(is_int8(module) for module in encoder.modules())
    narrow = int8 or encoder.dtype == torch.bfloat16
    if narrow and not has_amx() and cpu_multiplies('bfloat16'):
        if encoder.config._attn_implementation == 'sdpa':
            name = NAME_INT8 if int8 else NAME
            AttentionInterface.register(name, partial(_attend, narrows=int8))
            encoder.config._attn_implementation = name
        for module in encoder.modules():
            if type(module) is BlipAttention:
                module.__class__ = _BlipAttention


def attend_by_torch(encoder: Any) -> None:
    """Take attend_by_products() back."""
    if encoder.config._attn_implementation in (NAME, NAME_INT8):
        encoder.config._attn_implementation = 'sdpa'
    for module in encoder.modules():
        if type(module) is _BlipAttention:
            module.__class__ = BlipAttention


class _BlipAttention(BlipAttention):
    # transformers computes the scores of all heads at once, and goes through them three times.

    def forward(self, hidden_states: torch.Tensor,
                **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (images, tokens, width) of the same."""
        images, tokens, width = hidden_states.shape
        query, key, value = self.qkv(hidden_states).view(
            images, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        seen, _ = _attend(self, query, key, value, None, narrows=is_int8(self.qkv),
                          scaling=self.scale, is_causal=False)
        return self.projection(seen.reshape(images, tokens, width)), None


def _attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
            attention_mask: torch.Tensor | None, *, narrows: bool = False,
            **options: Any) -> tuple[torch.Tensor, None]:
    """Attend as transformers' attention functions do.

    Args:
        module: The layer.
        query: (images, heads, tokens, width), as are key and value.
        key: What query is compared with.
        value: What is mixed.
        attention_mask: Tokens to look at; with one, torch's own attention is used.
        narrows: Take float32, and compute in bfloat16.
        options: scaling and others.

    Returns:
        What the tokens see, (images, tokens, heads, width); and None for the weights.
    """
    tokens = key.shape[2]
    scaling, causal = options.get('scaling'), options.get('is_causal')
    if causal is None:
        causal = getattr(module, 'is_causal', True)  # as transformers has it
    wanted = torch.float32 if narrows else torch.bfloat16
    if (any(x.dtype != wanted or x.shape != query.shape for x in (query, key, value))
            or tokens < _TOKENS or scaling is None or attention_mask is not None or causal
            or torch.is_grad_enabled()):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if has_kernel('attend_own') and query.shape[-1] % 2 == 0:
        rows = (x.transpose(1, 2) for x in (query, key, value))
        return torch.ops.caption_ros.attend_own(
            *(x if x.stride(-1) == 1 else x.contiguous() for x in rows), scaling), None
    heads = max(_SCORES // tokens**2, torch.get_num_threads())
    nothing = torch.zeros((), dtype=torch.bfloat16)
    seen = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for queries, keys, values, places in zip(query.bfloat16(), key.bfloat16(), value.bfloat16(),
                                             seen.transpose(1, 2)):
        for some in range(0, len(queries), heads):
            part = slice(some, some + heads)
            scores = torch.baddbmm(nothing, queries[part], keys[part].transpose(1, 2), beta=0,
                                   alpha=scaling)
            places[part] = torch.bmm(scores.softmax(-1), values[part])
    return seen, None
