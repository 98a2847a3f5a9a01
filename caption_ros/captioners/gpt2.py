# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Greedy search with a GPT-2 decoder, without generate()'s work between two tokens.

A small decoder computes for a third of a millisecond and generate() and the layers' modules spend
four times that around it, in Python, where the threads of a node get into each other's way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from caption_ros.captioners.decoding import Decoded

_ACTIVATIONS = {'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu': 'none'}
# What a generation config may say without a word of the greedy caption changing.
_HARMLESS = frozenset((
    '_from_model_config', 'bos_token_id', 'decoder_start_token_id', 'early_stopping',
    'eos_token_id', 'length_penalty', 'max_new_tokens', 'num_beams', 'output_logits',
    'pad_token_id', 'return_dict_in_generate', 'transformers_version', 'use_cache'))


class _Layer(NamedTuple):
    """Weights of one layer, in the order of their use; a linear is (bias, matrix)."""

    norm_1: tuple[Any, Any]
    qkv: tuple[Any, Any]
    out: tuple[Any, Any]
    norm_cross: tuple[Any, Any]
    query: tuple[Any, Any]
    key_value: tuple[Any, Any]
    cross_out: tuple[Any, Any]
    norm_2: tuple[Any, Any]
    up: tuple[Any, Any]
    down: tuple[Any, Any]


def can_search(decoder: Any, config: Any) -> bool:
    """Tell whether GreedySearch says what generate() would.

    Args:
        decoder: Text decoder from transformers.
        config: What search_config returned.
    """
    from transformers import GPT2LMHeadModel

    own = decoder.config
    return (type(decoder) is GPT2LMHeadModel and own.add_cross_attention
            and own.activation_function in _ACTIVATIONS and own.scale_attn_weights
            and not own.scale_attn_by_inverse_layer_idx and not own.reorder_and_upcast_attn
            and {name for name, value in config.to_diff_dict().items()
                 if value not in (None, False)} <= _HARMLESS)


class GreedySearch:
    """Says the likeliest token until the end.

    Args:
        decoder: A GPT2LMHeadModel that can_search() accepts, on its device.
        eos: Token ids that end a caption.
    """

    def __init__(self, decoder: Any, eos: int | list[int]) -> None:
        body = decoder.transformer
        self._heads = int(decoder.config.n_head)
        self._epsilon = float(decoder.config.layer_norm_epsilon)
        self._gelu = _ACTIVATIONS[decoder.config.activation_function]
        self._tokens = body.wte.weight
        self._positions = body.wpe.weight
        self._norm = _pair(body.ln_f)
        self._head = decoder.lm_head.weight
        self._ends = set(eos if isinstance(eos, list) else [eos])
        self._layers = [_Layer(
            _pair(block.ln_1), _linear(block.attn.c_attn), _linear(block.attn.c_proj),
            _pair(block.ln_cross_attn), _linear(block.crossattention.q_attn),
            _linear(block.crossattention.c_attn), _linear(block.crossattention.c_proj),
            _pair(block.ln_2), _linear(block.mlp.c_fc), _linear(block.mlp.c_proj),
        ) for block in body.h]

    def __call__(self, start: int, hidden: Any, mask: Any | None, max_new_tokens: int) -> Decoded:
        """Search for the caption of each row.

        Args:
            start: The token before the first.
            hidden: Encoder states, shape (batch, encoder tokens, width); of a batch of 1, each
                row of the mask looks at the same.
            mask: Encoder tokens to look at, shape (batch, encoder tokens), int64; None is all.
            max_new_tokens: Most tokens of a caption, the end included, 1 or more.
        """
        import torch

        rows, width = len(hidden if mask is None else mask), self._tokens.shape[1]
        shape = (rows, self._heads, max_new_tokens, width // self._heads)
        said = [hidden.new_empty(2, *shape) for _ in self._layers]  # keys and values
        seen = [self._keys_values(layer, hidden).expand(-1, rows, -1, -1, -1)
                for layer in self._layers]
        keep = None if mask is None else mask.bool()[:, None, None]
        token = torch.full((rows,), start, device=hidden.device)
        tokens: list[list[int]] = [[] for _ in range(rows)]
        chances: list[list[float]] = [[] for _ in range(rows)]
        going = set(range(rows))
        for position in range(max_new_tokens):
            logits = self._step(token, position, said, seen, keep).float()
            token = logits.argmax(-1)
            chance_of = logits.log_softmax(-1).gather(1, token[:, None])[:, 0]
            for row, one, chance in zip(range(rows), token.tolist(), chance_of.tolist()):
                if row in going:
                    tokens[row].append(one)
                    chances[row].append(chance)
                    if one in self._ends:
                        going.remove(row)
                        tokens[row].pop()
            if not going:
                break
        scores = torch.tensor([sum(row) / len(row) for row in chances], dtype=torch.float64)
        return Decoded(tokens, scores.exp().clamp(0, 1).tolist())

    def _keys_values(self, layer: _Layer, hidden: Any) -> Any:
        """Return what a layer looks up of the image, (2, batch, heads, tokens, head width)."""
        import torch

        bias, matrix = layer.key_value
        both = torch.addmm(bias, hidden.flatten(0, 1), matrix)
        return both.view(*hidden.shape[:2], 2, self._heads, -1).permute(2, 0, 3, 1, 4).contiguous()

    def _step(self, token: Any, position: int, said: list[Any], seen: list[Any],
              keep: Any | None) -> Any:
        """Return the logits after a token, (batch, vocabulary)."""
        import torch
        from torch.nn import functional

        attend = functional.scaled_dot_product_attention
        rows, width = token.shape[0], self._tokens.shape[1]
        heads = (rows, self._heads, 1, width // self._heads)
        x = self._tokens[token] + self._positions[position]
        for layer, past, (keys, values) in zip(self._layers, said, seen):
            qkv = torch.addmm(layer.qkv[0], self._normed(x, layer.norm_1), layer.qkv[1])
            query, key_value = qkv.split((width, 2 * width), 1)
            past[:, :, :, position] = key_value.view(rows, 2, *heads[1::2]).transpose(0, 1)
            own = attend(query.view(heads), *past[:, :, :, :position + 1])
            x = x + torch.addmm(layer.out[0], own.view(rows, width), layer.out[1])
            query = torch.addmm(layer.query[0], self._normed(x, layer.norm_cross), layer.query[1])
            look = attend(query.view(heads), keys, values, attn_mask=keep)
            x = x + torch.addmm(layer.cross_out[0], look.view(rows, width), layer.cross_out[1])
            up = torch.addmm(layer.up[0], self._normed(x, layer.norm_2), layer.up[1])
            x = x + torch.addmm(layer.down[0], functional.gelu(up, approximate=self._gelu),
                                layer.down[1])
        return functional.linear(self._normed(x, self._norm), self._head)

    def _normed(self, x: Any, norm: tuple[Any, Any]) -> Any:
        import torch

        return torch.layer_norm(x, x.shape[-1:], *norm, self._epsilon)


def _pair(norm: Any) -> tuple[Any, Any]:
    return norm.weight, norm.bias


def _linear(conv: Any) -> tuple[Any, Any]:
    return conv.bias, conv.weight  # GPT-2 keeps its matrices (in, out)
