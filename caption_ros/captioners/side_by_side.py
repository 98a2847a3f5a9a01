# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of a batch encoded side by side on a CPU, a part of them on each thread.

torch's own threads share out every layer and meet after it, so a core that something else is
using holds up all of them each time. These meet once, and what a layer leaves is smaller.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
        self._process = 0  # that has the pool's threads

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
        futures: list[Future[Any]] = []
        try:
            with threads(1):
                pool = self._pool_of(lanes)
                futures += [pool.submit(_inferred, encode, part) for part in others]
                try:
                    states = [encode(first)]
                finally:
                    wait(futures)
            while futures:
                states.append(futures.pop(0).result())
        finally:
            # An error holds this frame, and its future holds the error: a ring that would keep
            # the batch's tensors in memory while it is tried again in halves.
            futures.clear()
        return torch.cat(states)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown()
        self._pool = None

    def _pool_of(self, lanes: int) -> ThreadPoolExecutor:
        # A forked process has the pool of its parent, and none of the threads.
        if self._pool is None or self._lanes < lanes or self._process != os.getpid():
            import torch

            self.close()
            self._lanes, self._process = lanes, os.getpid()
            self._pool = ThreadPoolExecutor(lanes - 1, 'encode', torch.set_num_threads, (1,))
        return self._pool


def _inferred(encode: Callable[[Any], Any], pixels: Any) -> Any:
    import torch

    with torch.inference_mode():
        return encode(pixels)
