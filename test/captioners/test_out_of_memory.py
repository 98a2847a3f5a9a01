# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches too large for memory are halved; order and captions stay."""

import numpy as np
import pytest
import torch

from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import load_captioner
from caption_ros.captioners.batches import is_out_of_memory
from caption_ros.errors import CaptionError
from caption_ros.region import regions_from_labels

OPTIONS = CaptionOptions(max_new_tokens=8)


@pytest.fixture(scope='module')
def captioner():
    return load_captioner('tabletop', device='cpu')


def frames():
    """Return two frames with three and two regions."""
    rng = np.random.default_rng(3)
    made = []
    for count in (3, 2):
        labels = np.zeros((64, 96), np.int32)
        for i in range(count):
            labels[8 + 4 * i:50, 30 * i:30 * i + 20] = i + 1
        rgb = rng.integers(0, 255, (64, 96, 3), np.uint8)
        made.append((rgb, regions_from_labels(labels)))
    return made


def memory_for(captioner, monkeypatch, most, error=torch.cuda.OutOfMemoryError):
    """Let the device run out of memory above so many captions; return the sizes tried."""
    look, sizes = captioner._look, []

    def limited(some, focus, options):
        sizes.append(sum(len(regions) for _, regions in some))
        if sizes[-1] > most:
            raise error('HIP out of memory. Tried to allocate 2.00 GiB')
        return look(some, focus, options)

    monkeypatch.setattr(captioner, '_look', limited)
    monkeypatch.setattr(captioner, 'batches', type(captioner.batches)('tabletop', 'cpu'))
    return sizes


@pytest.mark.parametrize('error', [torch.cuda.OutOfMemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_halved_and_the_size_kept(captioner, monkeypatch, caplog,
                                                               error):
    whole = captioner.caption_frames(frames(), OPTIONS)
    sizes = memory_for(captioner, monkeypatch, 2, error)
    halved = captioner.caption_frames(frames(), OPTIONS)
    assert [[c.text for c in each] for each in halved] == [[c.text for c in each]
                                                           for each in whole]
    assert [[c.region.label for c in each] for each in halved] == [[1, 2, 3], [1, 2]]
    assert sizes == [5, 2, 2, 1]
    assert (captioner.batches.limit, captioner.batches.halvings) == (2, 1)
    captioner.caption_frames(frames(), OPTIONS)
    assert sizes[4:] == [2, 2, 1]
    assert captioner.facts()['captions in a batch at most'] == '2'
    assert captioner.facts()['batches out of memory'] == '1'
    assert captioner.problems() == ['memory allows 2 caption(s) in a batch: lower max_regions, or '
                                    'choose a smaller model or dtype']
    assert [record.message for record in caplog.records if 'out of memory' in record.message] == [
        "model 'tabletop' ran out of memory on cpu with 5 captions in a batch; it goes on with "
        'smaller batches']


@pytest.mark.parametrize('text', [
    'HIP out of memory. Tried to allocate 2.00 GiB', 'HIP error: out of memory',
    'CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`',
    'CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`',
    'miopenStatusAllocFailed',
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."])
def test_the_libraries_below_torch_say_it_in_their_own_words(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError('CUDA error: HIPBLAS_STATUS_INVALID_VALUE'))


def test_one_caption_that_does_not_fit_is_an_error(captioner, monkeypatch):
    sizes = memory_for(captioner, monkeypatch, 0)
    with pytest.raises(CaptionError, match='ran out of memory on cpu with one caption; free'):
        captioner.caption_frames(frames(), OPTIONS)
    assert sizes == [5, 2, 1]


def test_other_failures_are_not_tried_again(captioner, monkeypatch):
    sizes = memory_for(captioner, monkeypatch, 9)
    monkeypatch.setattr(captioner, '_look', lambda *_: (_ for _ in ()).throw(
        RuntimeError('shapes do not fit')))
    with pytest.raises(CaptionError, match='failed on cpu: shapes do not fit'):
        captioner.caption_frames(frames(), OPTIONS)
    assert not sizes and captioner.batches.halvings == 0
    assert captioner.facts()['captions in a batch at most'] == 'no limit'
    assert captioner.problems() == []
