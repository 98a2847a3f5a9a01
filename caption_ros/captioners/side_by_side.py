# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of a batch encoded side by side on a CPU, a part of them on each thread.

torch's own threads share out every layer and meet after it, so a core that something else is
using holds up all of them each time. These meet once, and what a layer leaves is smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute on so many threads of the CPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class SideBySide:
    """Runs an encoder on parts of a batch at the same time."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lanes = 1  # of the pool, with the caller's

    def __call__(self, encode: Callable[[Any], Any], pixels: Any, lanes: int) -> Any:
        """Return what encode returns for all images.

        Args:
            encode: Returns encoder states, (images, tokens, width), of pixels.
            pixels: (images, channels, height, width).
            lanes: Parts to encode at the same time, each on one thread, 1 to the images; 1 leaves
                the images to torch's own threads.
        """
        import torch

        if lanes == 1:
            return encode(pixels)
        first, *others = pixels.tensor_split(lanes)
        with threads(1):
            futures = [self._pool_of(lanes).submit(_inferred, encode, part) for part in others]
            try:
                states = encode(first)
            finally:
                wait(futures)
        return torch.cat([states, *(future.result() for future in futures)])

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _pool_of(self, lanes: int) -> ThreadPoolExecutor:
        if self._pool is None or self._lanes < lanes:
            import torch

            self.close()
            self._lanes = lanes
            self._pool = ThreadPoolExecutor(lanes - 1, 'encode', torch.set_num_threads, (1,))
        return self._pool


def _inferred(encode: Callable[[Any], Any], pixels: Any) -> Any:
    import torch

    with torch.inference_mode():
        return encode(pixels)
