# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Frames go to the model in batches while others are decoded, not too many ahead."""

import threading

import numpy as np
import pytest

from caption_ros.bags import captioning, frames
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.errors import OptionError


@pytest.mark.parametrize('batch, sizes', [(1, [1] * 7), (3, [3, 3, 1]), (256, [7])])
def test_frames_are_captioned_in_batches(batch, sizes, tmp_path, bags, pixels, monkeypatch):
    seen, caption_frames = [], captioning.caption_frames

    def count(batch, *words):
        seen.append(len(batch))
        return caption_frames(batch, *words)
    monkeypatch.setattr(captioning, 'caption_frames', count)
    source = bags.write(tmp_path / 'in', bags.camera(7))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(batch=batch))
    assert (seen, summary.frames) == (sizes, 7)


def test_the_next_batch_is_decoded_while_the_model_works_and_no_more(
        tmp_path, bags, pixels, monkeypatch):
    batch, decoded, ahead = 4, threading.Semaphore(0), []
    count, image_from_msg, caption = [0], frames.image_from_msg, pixels.caption

    def decode(message):
        count[0] += 1
        decoded.release()
        return image_from_msg(message)

    def work(*words):
        if not pixels.calls:  # of the first batch: the model is busy until the next is decoded
            for _ in range(2 * batch):
                assert decoded.acquire(timeout=20), 'nothing is decoded while the model works'
        ahead.append(count[0] - pixels.calls)
        return caption(*words)
    monkeypatch.setattr(frames, 'image_from_msg', decode)
    pixels.caption = work
    source = bags.write(tmp_path / 'in', bags.camera(40))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(batch=batch))
    assert summary.frames == 40
    # The batch at the model, as many in the queue, and one in the hand of the reader.
    assert max(ahead) <= 2 * batch + 1


def test_a_run_that_goes_on_makes_the_batches_of_one_that_was_not_interrupted(
        tmp_path, bags, pixels, monkeypatch):
    class Killed(BaseException):
        pass

    messages = bags.camera(9, masks=True)
    second = [i for i, message in enumerate(messages) if message[0] == '/cam/mask'][1]
    blank = bags.image(np.zeros(bags.size, np.uint8), bags.start_ns + bags.step_ns - 5_000_000)
    messages[second] = (*messages[second][:2], blank)  # without region: never in the journal
    source = bags.write(tmp_path / 'in', messages)
    seen, caption_frames = [], captioning.caption_frames

    def watch(batch, *words):
        seen.append([round(float(rgb.astype(float).sum())) for rgb, _ in batch])
        if len(seen) == most:
            raise Killed
        return caption_frames(batch, *words)
    monkeypatch.setattr(captioning, 'caption_frames', watch)
    most = 99
    caption_bag(source, tmp_path / 'whole/o.mcap', lambda: pixels, BagOptions(batch=3))
    whole, seen, most = seen, [], 2
    assert [len(batch) for batch in whole] == [3, 3, 3]
    with pytest.raises(Killed):
        caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(batch=3))
    seen, most = [], 99
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(batch=3, resume=True))
    assert seen == [whole[0][1:2], *whole[1:]]


@pytest.mark.parametrize('batch', [0, 257])
def test_a_batch_out_of_range_is_refused(batch):
    with pytest.raises(OptionError, match=f'batch must be 1 to 256 frames, got {batch}'):
        BagOptions(batch=batch)
