# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Images of a batch on several threads: what comes back, and what is left behind."""

import gc
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest
import torch

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.side_by_side import SideBySide
from caption_ros.errors import CaptionError


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def side_by_side():
    shared = SideBySide()
    yield shared
    shared.close()


def encoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith('encode')]


@pytest.mark.parametrize('images', [2, 3, 7])
def test_all_images_come_back_in_order_each_part_on_a_thread_of_its_own(
        two_threads, side_by_side, images):
    meeting, seen = threading.Barrier(2), []

    def encode(pixels):
        seen.append((threading.get_ident(), torch.get_num_threads(), len(pixels),
                     torch.is_inference_mode_enabled()))
        meeting.wait(10)  # both at the same time, or this raises
        return 2 * pixels

    pixels = torch.arange(3.0 * images).view(images, 3)
    with torch.inference_mode():
        assert torch.equal(side_by_side(encode, pixels, 2), 2 * pixels)
    assert len({thread for thread, *_ in seen}) == 2
    assert {rest[0] for _, *rest in seen} == {1} and all(rest[2] for _, *rest in seen)
    assert sum(rest[1] for _, *rest in seen) == images
    assert torch.get_num_threads() == 2


def test_one_part_is_left_to_torchs_threads(two_threads, side_by_side):
    seen = side_by_side(lambda pixels: torch.tensor(torch.get_num_threads()), torch.ones(3, 1), 1)
    assert int(seen) == 2 and encoders() == []


@pytest.mark.parametrize('who', ['caller', 'other'])
def test_an_error_of_any_part_comes_when_all_have_ended(two_threads, side_by_side, who):
    caller, ended, started = threading.get_ident(), [], threading.Event()

    def encode(pixels):
        if (threading.get_ident() == caller) == (who == 'caller'):
            raise RuntimeError('out of memory')
        started.wait(0.2)
        ended.append(len(pixels))
        return pixels

    with pytest.raises(RuntimeError, match='out of memory'):
        side_by_side(encode, torch.ones(4, 1), 2)
    assert ended == [2] and torch.get_num_threads() == 2
    assert torch.equal(side_by_side(lambda pixels: pixels, torch.ones(4, 1), 2), torch.ones(4, 1))


def test_more_lanes_than_before_get_more_threads(side_by_side):
    for lanes in (2, 4, 3):
        meeting = threading.Barrier(lanes)
        side_by_side(lambda pixels, meeting=meeting: meeting.wait(10) * pixels,
                     torch.ones(4, 1), lanes)
    assert len(encoders()) == 3
    side_by_side.close()
    assert encoders() == []


@pytest.mark.parametrize('is_small', [True, False])
@pytest.mark.parametrize('family', ['vit-gpt2', 'blip'])
def test_a_batch_says_what_its_frames_say_alone(checkpoint, two_threads, monkeypatch, family,
                                                is_small):
    captioner = load_captioner(checkpoint(family), device='cpu')
    monkeypatch.setattr(captioner, '_is_small', is_small)
    noise = np.random.default_rng(5)
    frames = [(noise.integers(0, 256, (40, 50, 3), np.uint8), [None]) for _ in range(5)]
    options = CaptionOptions(max_new_tokens=6)
    alone = [captioner.caption(*frame, options)[0] for frame in frames]
    assert encoders() == []
    together = [captions[0] for captions in captioner.caption_frames(frames, options)]
    assert [caption.text for caption in together] == [caption.text for caption in alone]
    assert [c.score for c in together] == pytest.approx([c.score for c in alone], rel=1e-4)
    assert len(encoders()) == 1 and torch.get_num_threads() == 2
    captioner.close()
    assert encoders() == []
    with pytest.raises(CaptionError, match='has been closed'):
        captioner.caption_frames(frames, options)


def test_images_of_a_large_model_that_are_left_over_are_shared_by_all_threads(
        checkpoint, two_threads, monkeypatch):
    captioner = load_captioner(checkpoint('vit-gpt2'), device='cpu')
    monkeypatch.setattr(captioner, '_is_small', False)
    encode, seen = captioner._encode, []
    monkeypatch.setattr(captioner, '_traced', None)
    monkeypatch.setattr(captioner, '_encode', lambda pixels: seen.append(
        (len(pixels), torch.get_num_threads())) or encode(pixels))
    rgb = np.zeros((40, 50, 3), np.uint8)
    captioner.caption_frames([(rgb + i, [None]) for i in range(5)],
                             CaptionOptions(max_new_tokens=2))
    assert sorted(seen) == [(1, 2), (2, 1), (2, 1)]
    captioner.close()


def test_a_forked_process_makes_threads_of_its_own(two_threads, side_by_side):
    pixels = torch.arange(4.0).view(4, 1)
    side_by_side(lambda part: part, pixels, 2)
    child = os.fork()
    if child == 0:
        try:
            twice = side_by_side(lambda part: 2 * part, pixels, 2)
            os._exit(0 if torch.equal(twice, 2 * pixels) else 1)
        finally:
            os._exit(2)
    ended, end_s = (0, 0), time.monotonic() + 20
    while not ended[0] and time.monotonic() < end_s:
        time.sleep(0.01)
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    assert torch.equal(side_by_side(lambda part: 2 * part, pixels, 2), 2 * pixels)


@pytest.mark.parametrize('is_all', [False, True])
def test_after_an_error_nothing_of_the_batch_stays_in_memory(two_threads, side_by_side, is_all):
    caller, made = threading.get_ident(), []

    def encode(pixels):
        states = 2 * pixels
        made.append(weakref.ref(states))
        if is_all or threading.get_ident() != caller:
            raise RuntimeError('out of memory')
        return states

    gc.disable()  # it would find them, but long after the memory is wanted
    try:
        try:
            side_by_side(encode, torch.ones(4, 1), 2)
        except RuntimeError as error:
            said = str(error)
        end_s = time.monotonic() + 2
        while any(states() is not None for states in made) and time.monotonic() < end_s:
            time.sleep(0.001)  # the other thread may still be in its last lines
        assert said == 'out of memory' and len(made) == 2
        assert all(states() is None for states in made)
    finally:
        gc.enable()
