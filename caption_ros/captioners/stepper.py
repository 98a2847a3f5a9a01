# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A text decoder with cross-attention, a token at a time, compiled by torch.jit.

GPT-2 and BERT differ in where they normalise and in their first and last layer; the rest is one
code. Compiled, a whole caption is one call that leaves the interpreter lock to other threads.
"""

# torch.jit reads the annotations themselves, so they are not postponed here.
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional


class Joined(nn.Module):
    """Linear layers of one input, their results side by side."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., sum of out) of (..., in)."""
        parts: list[Tensor] = []
        for layer in self.layers:
            parts.append(layer(x))
        return torch.cat(parts, -1)


class Layer(nn.Module):
    """Self-attention, cross-attention and the feed-forward part, each with its normalisation.

    Args:
        parts: norm_1, qkv, out, norm_cross, query, key_value, cross_out, norm_2, up, down.
        heads: Number of attention heads.
        gelu: tanh or none, as in torch's gelu.
        norm_first: Normalise what goes into a part (GPT-2), not what comes out (BERT).
    """

    def __init__(self, parts: dict[str, nn.Module], *, heads: int, gelu: str,
                 norm_first: bool) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.heads = heads
        self.gelu = gelu
        self.norm_first = norm_first

    def look_up(self, hidden: Tensor) -> Tensor:
        """Return keys and values of the image, (2, batch, heads, tokens, head width).

        On the CPU in float32: torch's attention of one query in bfloat16 takes five times as
        long there, and this is read once for each token.
        """
        both = self.key_value(hidden)
        if hidden.device.type == 'cpu':
            both = both.float()
        batch, tokens = hidden.size(0), hidden.size(1)
        return both.view(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4).contiguous()

    def forward(self, x: Tensor, position: int, said: Tensor, seen: Tensor,
                keep: Optional[Tensor]) -> Tensor:
        """Return (rows, width) of the same; writes the token's keys and values into said.

        Args:
            x: What the rows say now, (rows, width).
            position: Its place.
            said: Keys and values of the caption, (2, rows, heads, room, head width).
            seen: Those of the image, (2, images, heads, encoder tokens, head width); one image
                for all rows, or one for each.
            keep: Encoder tokens to look at, (rows, 1, 1, encoder tokens), with one image
                (1, 1, rows, encoder tokens), bool; None is all.
        """
        rows, width = x.size(0), x.size(1)
        heads, depth = self.heads, width // self.heads
        qkv = self.qkv(self.norm_1(x) if self.norm_first else x)
        said[:, :, :, position] = qkv[:, width:].view(rows, 2, heads, depth).transpose(0, 1)
        own = functional.scaled_dot_product_attention(
            qkv[:, :width].view(rows, heads, 1, depth).to(said.dtype),
            said[0, :, :, :position + 1], said[1, :, :, :position + 1])
        x = x + self.out(own.reshape(rows, width).to(x.dtype))
        if not self.norm_first:
            x = self.norm_1(x)
        query = self.query(self.norm_cross(x) if self.norm_first else x).to(seen.dtype)
        images = seen.size(1)
        # Rows of one image ask side by side, so that its keys and values are read once.
        look = functional.scaled_dot_product_attention(
            query.view(images, rows // images, heads, depth).transpose(1, 2), seen[0], seen[1],
            attn_mask=keep)
        x = x + self.cross_out(look.transpose(1, 2).reshape(rows, width).to(x.dtype))
        if not self.norm_first:
            x = self.norm_cross(x)
        up = functional.gelu(self.up(self.norm_2(x) if self.norm_first else x),
                             approximate=self.gelu)
        x = x + self.down(up)
        return x if self.norm_first else self.norm_2(x)


class Stepper(nn.Module):
    """Searches greedily; see search().

    Args:
        tokens: Embeddings of the tokens, (vocabulary, width).
        positions: Embeddings of the positions, (positions, width).
        first: What the sum of both goes through.
        layers: The layers.
        last: What the last layer's result goes through, up to the logits.
        ends: Token ids that end a caption, at least one.
    """

    def __init__(self, tokens: Tensor, positions: Tensor, first: nn.Module, layers: list[Layer],
                 last: nn.Module, ends: list[int]) -> None:
        super().__init__()
        self.tokens = tokens.detach()
        self.positions = positions.detach()
        self.first = first
        self.layers = nn.ModuleList(layers)
        self.last = last
        self.ends = ends
        self.heads = layers[0].heads

    def forward(self, hidden: Tensor, picks: Tensor, keep: Optional[Tensor], given: list[int],
                most: int) -> tuple[Tensor, Tensor]:
        """Say the likeliest token until every row has ended.

        Args:
            hidden: Encoder states, (images, encoder tokens, width).
            picks: The image that each row looks at, (rows,), int64.
            keep: Encoder tokens to look at, (rows, 1, 1, encoder tokens), bool; None is all.
            given: The start token and what else each caption begins with, at least one.
            most: Most tokens to say, 1 or more.

        Returns:
            Token ids and the logarithms of their probabilities, each (tokens, rows); what
            follows the first end of a row means nothing.
        """
        width, rows = self.tokens.size(1), picks.size(0)
        if keep is not None and hidden.size(0) == 1:
            keep = keep.transpose(0, 2)
        in_order = bool((picks == torch.arange(rows, device=picks.device)).all())
        room = len(given) - 1 + most
        seen: list[Tensor] = []
        said: list[Tensor] = []
        for layer in self.layers:
            both = layer.look_up(hidden)
            if hidden.size(0) > 1 and not in_order:
                both = both.index_select(1, picks)
            seen.append(both)
            said.append(both.new_empty([2, rows, self.heads, room, width // self.heads]))
        words = torch.zeros([most, rows], dtype=torch.long, device=hidden.device)
        chances = torch.zeros([most, rows], dtype=torch.float32, device=hidden.device)
        ended = torch.zeros([rows], dtype=torch.bool, device=hidden.device)
        token = torch.full([rows], given[0], dtype=torch.long, device=hidden.device)
        for position in range(room):
            x = self.first(self.tokens[token] + self.positions[position])
            for i, step in enumerate(self.layers):
                x = step(x, position, said[i], seen[i], keep)
            if position + 1 < len(given):
                token = torch.full_like(token, given[position + 1])
                continue
            logits = self.last(x).float()
            token = logits.argmax(-1)
            at = position + 1 - len(given)
            words[at] = token
            chances[at] = logits.log_softmax(-1).gather(1, token.unsqueeze(1)).squeeze(1)
            for end in self.ends:
                ended = ended | (token == end)
            if bool(ended.all()):
                return words[:at + 1], chances[:at + 1]
        return words, chances
