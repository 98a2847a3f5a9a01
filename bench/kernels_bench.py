#!/usr/bin/env python3
# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Time the CPU's kernels beside torch's layers, as GPT-2's decoder of full size has them.

Layers of 4 bits, which torch has none of, are timed beside the kernel of 8. The two take turns;
each time goes through all layers of a token, so that their weights come from the memory.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from caption_ros.captioners.kernel_linears import (
    KernelInt4Linear,
    KernelInt8Linear,
    KernelLinear,
    seen_size,
)
from caption_ros.captioners.kernels import load_kernels
from caption_ros.captioners.linears import Int8Linear, PackedLinear

WIDTH, HEADS, LAYERS, TOKENS = 768, 12, 12, 197
SHAPES = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH),
          (WIDTH, 4 * WIDTH))


class _All(torch.nn.Module):
    def __init__(self, layers: list[torch.nn.Module]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, narrow: torch.Tensor, wide: torch.Tensor) -> list[torch.Tensor]:
        results: list[torch.Tensor] = []  # or torch.jit would leave the layers out
        for i, layer in enumerate(self.layers):
            results.append(layer(wide if i % 6 == 5 else narrow))
        return results


def take_turns(ways: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the median time of each way, in ms."""
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 2):  # torch.jit compiles in the first two
        for way, took in zip(ways, times):
            begun = time.perf_counter()
            way()
            took.append(time.perf_counter() - begun)
    return [1000 * median(took[2:]) for took in times]


def time_linears(rows: list[int], rounds: int) -> None:
    """Print a line for each number of rows."""
    weights = [torch.randn(shape) / 50 for shape in SHAPES * LAYERS]
    biases = [torch.randn(len(weight)) for weight in weights]
    numbers = sum(weight.numel() for weight in weights)
    for dtype, kinds, bits in ((torch.bfloat16, (KernelLinear, PackedLinear), 16),
                               (torch.float32, (KernelInt8Linear, Int8Linear), 8),
                               (torch.float32, (KernelInt4Linear, KernelInt8Linear), 4)):
        models = [torch.jit.script(_All([kind(weight.to(dtype), bias.to(dtype))
                                         for weight, bias in zip(weights, biases)]))
                  for kind in kinds]
        size = numbers * bits / 8
        for count in rows:
            x = torch.randn(count, WIDTH).to(dtype), torch.randn(count, 4 * WIDTH).to(dtype)
            ours, theirs = take_turns([partial(model, *x) for model in models], rounds)
            print(f'{kinds[0].__name__}, {size / 1e6:.0f} MB, {count} rows: {ours:.2f} ms '
                  f'({size / ours / 1e6:.0f} GB/s), {kinds[1].__name__}: {theirs:.2f} ms',
                  flush=True)


def time_attention(images: int, each: int, rounds: int) -> None:
    """Print a line for so many captions of each of so many images."""
    depth = WIDTH // HEADS
    both = [torch.randn(images, TOKENS, 2, HEADS, depth).bfloat16() for _ in range(LAYERS)]
    ordered = [torch.empty(images, HEADS, seen_size(TOKENS, depth), dtype=torch.bfloat16)
               for _ in both]
    for source, place in zip(both, ordered):
        torch.ops.caption_ros.order_seen(source, place)
    plain = [source.float().permute(2, 0, 3, 1, 4).contiguous() for source in both]
    query = torch.randn(images * each, 1, HEADS, depth).bfloat16()
    picks = torch.arange(images).repeat_interleave(each)
    asked = query.float().view(images, each, HEADS, depth).transpose(1, 2)
    nothing = torch.empty(0)
    ours, theirs = take_turns([
        lambda: [torch.ops.caption_ros.attend(query, seen, picks, nothing, TOKENS)
                 for seen in ordered],
        lambda: [scaled_dot_product_attention(asked, *seen) for seen in plain]], rounds)
    print(f'attention of {each} captions to each of {images} images, {LAYERS} layers: '
          f"{ours:.2f} ms, torch's in float32: {theirs:.2f} ms", flush=True)


def main() -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rows', type=int, nargs='+', default=[1, 4, 8, 32, 197])
    parser.add_argument('--rounds', type=int, default=15)
    arguments = parser.parse_args()
    if why_not := load_kernels():
        raise SystemExit(f'no kernels on this machine: {why_not}')
    with torch.inference_mode():
        time_linears(arguments.rows, arguments.rounds)
        for images, each in (1, 1), (4, 1), (1, 8):
            time_attention(images, each, arguments.rounds)


if __name__ == '__main__':
    main()
