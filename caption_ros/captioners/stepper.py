# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A text decoder with cross-attention, compiled by torch.jit, and greedy search with it.

GPT-2 and BERT differ in where they normalise and in their first and last layer; the rest is one
code. Compiled, a whole caption is one call that leaves the interpreter lock to other threads.

A token costs one reading of the decoder's weights, and so do eight. So a draft, which is the same
decoder in fewer bits, may say the next few tokens, and the decoder looks at all of them in one
pass: what it would have said itself is taken, and what follows its first other word is said again.
What was said of something that looked much the same is such a draft as well, and costs nothing.
"""

# torch.jit reads the annotations themselves, so they are not postponed here.
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional

from caption_ros.captioners.devices import cpu_multiplies, has_amx
from caption_ros.captioners.kernel_linears import seen_size

_LOOK = 256  # tokens of all rows in one pass, each with a logit for each word
# Of a logit at most: what stays is at least 0.95 times as likely as the likeliest. Rounding grows
# with the logits, but how likely a word is lies in their differences alone: where all of them are
# near -96, a step of bfloat16 is 0.5, a word 1.6 times as likely.
_NEAR = 0.05
_DOUBT = 4  # two looks at two tokens, all wrong; from here on a source is asked no more


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

    Attributes:
        by_kernel: Whether keys and values of images are as order_seen of kernels.cpp has them.
        by_products: Whether they are seen by products where they are in bfloat16.

    Args:
        parts: norm_1, qkv, out, norm_cross, query, cross_out, norm_2, up, down.
        heads: Number of attention heads.
        gelu: tanh or none, as in torch's gelu.
        norm_first: Normalise what goes into a part (GPT-2), not what comes out (BERT).
    """

    __constants__ = ('by_kernel',)  # so that torch.jit leaves out the kernel where there is none

    def __init__(self, parts: dict[str, nn.Module], *, heads: int, gelu: str,
                 norm_first: bool) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.heads = heads
        self.gelu = gelu
        self.norm_first = norm_first
        self.by_kernel = False
        self.by_products = False

    def forward(self, x: Tensor, position: int, said: Tensor, seen: Tensor, picks: Tensor,
                keep: Optional[Tensor], causal: Optional[Tensor]) -> Tensor:
        """Return (rows, steps, width) of the same; writes keys and values of the steps into said.

        Args:
            x: What the rows say at a few places in a row, (rows, steps, width).
            position: The first of these places.
            said: Keys and values of the caption, (2, rows, heads, room, head width).
            seen: Those of the image, (2, images, heads, encoder tokens, head width); one image
                for all rows, or one for each. By kernel (images, heads, seen_size()), bfloat16.
            picks: By kernel, the image that each row looks at, (rows,), int64.
            keep: 0 where to look and -inf where not, in the number type of seen, (rows, 1, 1,
                encoder tokens), with one image (1, 1, rows * steps, encoder tokens); None is all.
                By kernel always, (rows, encoder tokens), float32.
            causal: The same of the places in a row, in that of said, (steps, position + steps);
                None with one step.
        """
        rows, steps, width = x.size(0), x.size(1), x.size(2)
        heads, depth = self.heads, width // self.heads
        end = position + steps
        qkv = self.qkv(self.norm_1(x) if self.norm_first else x)
        said[:, :, :, position:end] = qkv[:, :, width:].view(
            rows, steps, 2, heads, depth).permute(2, 0, 3, 1, 4)
        own = functional.scaled_dot_product_attention(
            qkv[:, :, :width].view(rows, steps, heads, depth).transpose(1, 2).to(said.dtype),
            said[0, :, :, :end], said[1, :, :, :end], attn_mask=causal)
        x = x + self.out(own.transpose(1, 2).reshape(rows, steps, width).to(x.dtype))
        if not self.norm_first:
            x = self.norm_1(x)
        query = self.query(self.norm_cross(x) if self.norm_first else x).to(seen.dtype)
        if self.by_kernel:
            assert keep is not None
            look = torch.ops.caption_ros.attend(query.view(rows, steps, heads, depth), seen, picks,
                                                keep, keep.size(1))
        else:
            # Rows of one image ask side by side, so that its keys and values are read once.
            query = query.view(seen.size(1), -1, heads, depth).transpose(1, 2)
            if self.by_products and seen.dtype == torch.bfloat16:
                look = _products(query, seen, keep)
            else:
                look = functional.scaled_dot_product_attention(query, seen[0], seen[1],
                                                               attn_mask=keep)
            look = look.transpose(1, 2).reshape(rows, steps, width)
        x = x + self.cross_out(look.to(x.dtype))
        if not self.norm_first:
            x = self.norm_cross(x)
        up = functional.gelu(self.up(self.norm_2(x) if self.norm_first else x),
                             approximate=self.gelu)
        x = x + self.down(up)
        return x if self.norm_first else self.norm_2(x)


def _products(query: Tensor, seen: Tensor, keep: Optional[Tensor]) -> Tensor:
    """Return what attention would of (images, heads, queries, head width); see Layer."""
    images, heads, queries, depth = query.shape
    # oneDNN keeps what it compiles for each number of queries, more than a megabyte.
    room = 1
    while room < queries:
        room *= 2
    if room > queries:
        query = functional.pad(query, [0, 0, 0, room - queries])
        if keep is not None and keep.size(2) > 1:
            keep = functional.pad(keep, [0, 0, 0, room - queries])
    # Keys times queries, and not the other way: what stands second is put into another order.
    scores = torch.bmm(seen[0].flatten(0, 1), (query * depth ** -0.5).reshape(
        images * heads, room, depth).transpose(1, 2)).transpose(1, 2)
    if keep is not None:
        scores = (scores.unflatten(0, [images, heads]) + keep).flatten(0, 1)
    look = torch.bmm(scores.softmax(-1), seen[1].flatten(0, 1)).view(query.shape)
    return look[:, :, :queries]


class Decoder(nn.Module):
    """Tokens in, logits out.

    Args:
        tokens: Embeddings of the tokens, (vocabulary, width).
        positions: Embeddings of the positions, (positions, width).
        first: What the sum of both goes through.
        layers: The layers.
        last: What the last layer's result goes through, up to the logits.

    Attributes:
        dtype: Number type that the layers take.
    """

    def __init__(self, tokens: Tensor, positions: Tensor, first: nn.Module, layers: list[Layer],
                 last: nn.Module) -> None:
        super().__init__()
        self.dtype = tokens.dtype
        self.tokens = tokens.detach()
        self.positions = positions.detach()
        self.first = first
        self.layers = nn.ModuleList(layers)
        self.last = last

    def forward(self, block: Tensor, position: int, said: list[Tensor], seen: list[Tensor],
                picks: Tensor, keep: Optional[Tensor], causal: Optional[Tensor],
                since: int = 0) -> Tensor:
        """Return logits (rows, steps - since, vocabulary), float32, of tokens (rows, steps)."""
        places = self.positions[position:position + block.size(1)]
        x = self.first((self.tokens[block] + places).to(self.dtype))
        for i, layer in enumerate(self.layers):
            x = layer(x, position, said[i], seen[i], picks, keep, causal)
        return self.last(x[:, since:]).float()


class Stepper(nn.Module):
    """Searches greedily; see forward().

    Args:
        decoder: What is said is its likeliest.
        draft: Says the likely next tokens in less time, over the same keys and values; or None.
        key_values: For each layer, what makes keys and values of the encoder's states.
        heads: Number of attention heads.
        ends: Token ids that end a caption, at least one.
        slack: How far a logit may be from the largest, as a part of that and at most _NEAR, for
            what was said before to be said again: two of them closer than the number type rounds
            take turns. 0 where what was said before must change no word.
        by_kernel: Whether images are seen by kernels.cpp, in bfloat16.
    """

    __constants__ = ('by_kernel',)

    def __init__(self, decoder: Decoder, draft: Optional[Decoder], key_values: list[nn.Module],
                 heads: int, ends: list[int], slack: float, by_kernel: bool = False) -> None:
        super().__init__()
        self.decoder = decoder
        self.draft = draft
        self.key_values = nn.ModuleList(key_values)
        self.heads = heads
        self.ends = ends
        self.slack = slack
        self.near = _NEAR
        self.doubt = _DOUBT
        self.look = _LOOK
        # Without AMX torch's attention of one query in bfloat16 takes five times as long as in
        # float32; several rows' keys in bfloat16, half the memory, have two products do it sooner.
        self.widens = decoder.tokens.device.type == 'cpu' and not has_amx()
        self.by_products = self.widens and cpu_multiplies('bfloat16')
        self.by_kernel = by_kernel
        for module in self.modules():
            if isinstance(module, Layer):
                module.by_kernel, module.by_products = by_kernel, self.by_products

    def forward(self, hidden: Tensor, picks: Tensor, keep: Optional[Tensor], given: list[int],
                most: int, ahead: int, scratch: Tensor, before: Tensor, trust: int,
                ) -> tuple[Tensor, Tensor, list[int], list[int], Tensor]:
        """Say the likeliest token until every row has ended.

        Args:
            hidden: Encoder states, (images, encoder tokens, width).
            picks: The image that each row looks at, (rows,), int64.
            keep: Encoder tokens to look at, (rows, 1, 1, encoder tokens), bool; None is all.
            given: The start token and what else each caption begins with, at least one.
            most: Most tokens to say, 1 or more.
            ahead: Most tokens of a draft, if there is one.
            scratch: Memory for keys and values of images, (numbers,); none at first.
            before: What may well be said again, (tokens, rows), int64; none when empty.
            trust: How many tokens of it to try at first, 1 or more where there are any.

        Returns:
            Token ids and the logarithms of their probabilities, each (tokens, rows), where what
            follows the first end of a row means nothing; how many tokens were tried for each
            row, those of before and those of the draft, and how many of these were right in all
            rows; and scratch, or a larger one.
        """
        rows = picks.size(0)
        if self.by_kernel:
            seen, scratch = self._look_up_by_kernel(hidden, scratch)
        else:
            seen, scratch = self._look_up(hidden, rows, scratch)
            in_order = bool((picks == torch.arange(rows, device=picks.device)).all())
            if hidden.size(0) > 1 and not in_order:
                seen = [both.index_select(1, picks) for both in seen]
        keep = self._added(keep, hidden, rows, seen[0].dtype)
        room = len(given) - 1 + most
        depth = self.decoder.tokens.size(1) // self.heads
        said = [torch.empty([2, rows, self.heads, room, depth], device=both.device,
                            dtype=torch.float32 if self.widens else both.dtype) for both in seen]
        words = torch.zeros([most, rows], dtype=torch.long, device=hidden.device)
        chances = torch.zeros([most, rows], dtype=torch.float32, device=hidden.device)
        ended = torch.zeros([rows], dtype=torch.bool, device=hidden.device)
        block = torch.tensor(given, device=hidden.device).repeat(rows, 1)
        position, at = 0, 0
        tried, right, trusts = [0, 0], [0, 0], [trust, 2]  # of before, and of the draft
        doubts = [0, 0]  # what is wrong more often than not costs more than it saves
        while at < most:
            fixed = block.size(1)
            source = 0 if at < before.size(0) and doubts[0] < self.doubt else 1
            if source == 0:
                some = min(trusts[0], max(self.look // rows, 2), most - at - 1)
                block = torch.cat([block, before[at:at + some].t()], 1)
            elif fixed == 1 and doubts[1] < self.doubt:
                block = self._drafted(block, position, said, seen, picks, keep, ended,
                                      min(trusts[1], ahead, most - at - 1))
            steps = block.size(1)
            logits = self._pass(block, position, said, seen, picks, keep, fixed - 1)
            most_likely, best = logits.max(-1)
            if source == 0 and steps > fixed and self.slack > 0:
                last, largest = block[:, fixed:], most_likely[:, :-1]
                away = largest - logits[:, :-1].gather(2, last.unsqueeze(2)).squeeze(2)
                near = away <= (self.slack * largest.abs()).clamp(max=self.near)
                best[:, :-1] = torch.where(near, last, best[:, :-1])
            over = (self._ends(best).cumsum(1) > 0) | ended.unsqueeze(1)
            count = 1
            if steps > fixed:
                same = (best[:, :-1] == block[:, fixed:]) | over[:, :-1]
                count += int(same.all(0).cumprod(0).sum())
                tried[source] += steps - fixed
                right[source] += count - 1
                doubts[source] += steps - fixed - 2 * (count - 1)
                # A draft that has been right may well be so again after a slip. A caption that
                # was, up to where it changes, may not: what follows is mostly new.
                doubts[0] = max(0, doubts[0])
                trusts[source] = 2 * trusts[source] if count > steps - fixed else 2
            words[at:at + count] = best[:, :count].t()
            chances[at:at + count] = (logits[:, :count].log_softmax(-1)
                                      .gather(2, best[:, :count].unsqueeze(2)).squeeze(2).t())
            ended = over[:, count - 1]
            block = best[:, count - 1:count]
            at += count
            position += fixed - 1 + count
            if bool(ended.all()):
                break
        return words[:at], chances[:at], tried, right, scratch

    def _look_up(self, hidden: Tensor, rows: int,
                 scratch: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return each layer's keys and values of the images, see Layer, and what they are in.

        In float32 where torch's attention takes them sooner; they are read once for each token.
        """
        batch, tokens = hidden.size(0), hidden.size(1)
        seen: list[Tensor] = []
        for i, key_value in enumerate(self.key_values):
            both = key_value(hidden).view(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
            by_products = self.by_products and rows > 1 and both.dtype == torch.bfloat16
            if self.widens and not by_products and both.dtype != torch.float32:
                place = torch.empty(both.shape, dtype=torch.float32, device=both.device)
            else:
                size = both.numel()
                if scratch.numel() < size * len(self.key_values):
                    scratch = both.new_empty([size * len(self.key_values)])
                place = scratch[i * size:(i + 1) * size].view(both.shape)
            seen.append(place.copy_(both))
        return seen, scratch

    def _look_up_by_kernel(self, hidden: Tensor,
                           scratch: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the same as the kernel takes it."""
        batch, tokens = hidden.size(0), hidden.size(1)
        each = seen_size(tokens, self.decoder.tokens.size(1) // self.heads)
        size = batch * self.heads * each
        if scratch.numel() < size * len(self.key_values):
            scratch = torch.empty([size * len(self.key_values)], dtype=torch.bfloat16)
        seen: list[Tensor] = []
        for i, key_value in enumerate(self.key_values):
            both = key_value(hidden).to(torch.bfloat16).view(batch, tokens, 2, self.heads, -1)
            place = scratch[i * size:(i + 1) * size].view(batch, self.heads, each)
            torch.ops.caption_ros.order_seen(both, place)
            seen.append(place)
        return seen, scratch

    def _added(self, keep: Optional[Tensor], hidden: Tensor, rows: int,
               dtype: torch.dtype) -> Optional[Tensor]:
        """Return what is added to the scores of the images, see Layer, of what forward() takes.

        Once for a caption, and not in each layer for each token.
        """
        if self.by_kernel:
            added = torch.zeros([rows, hidden.size(1)])
            if keep is not None:
                added = added.masked_fill(keep.view(rows, -1).logical_not(), -float('inf'))
            return added
        if keep is None:
            return None
        if hidden.size(0) == 1:
            keep = keep.transpose(0, 2)
        return torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill(
            keep.logical_not(), -float('inf'))

    def _drafted(self, block: Tensor, position: int, said: list[Tensor], seen: list[Tensor],
                 picks: Tensor, keep: Optional[Tensor], ended: Tensor, ahead: int) -> Tensor:
        """Return the last tokens, (rows, 1), and what the draft says after them."""
        if self.draft is not None:
            for step in range(ahead):
                token = self.draft(block[:, -1:], position + step, said, seen, picks, keep,
                                   None).max(-1)[1]  # argmax takes three times as long
                block = torch.cat([block, token], 1)
                ended = ended | self._ends(token[:, 0])
                if bool(ended.all()):
                    break
        return block

    def _pass(self, block: Tensor, position: int, said: list[Tensor], seen: list[Tensor],
              picks: Tensor, keep: Optional[Tensor], since: int) -> Tensor:
        """Return the decoder's logits, (rows, steps - since, vocabulary)."""
        steps = block.size(1)
        causal: Optional[Tensor] = None
        if steps > 1:
            causal = torch.full([steps, position + steps], -float('inf'), dtype=said[0].dtype,
                                device=block.device).triu(position + 1)
            if not self.by_kernel and keep is not None and seen[0].size(1) == 1:
                keep = keep.repeat_interleave(steps, 2)
        return self.decoder(block, position, said, seen, picks, keep, causal, since)

    def _ends(self, tokens: Tensor) -> Tensor:
        """Tell of each token whether it ends a caption."""
        found = tokens == self.ends[0]
        for end in self.ends[1:]:
            found = found | (tokens == end)
        return found
