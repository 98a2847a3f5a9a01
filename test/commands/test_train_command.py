# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import pytest

from caption_ros.commands.train import train
from caption_ros.training import train as training


@pytest.mark.parametrize('batch_size', [1, 2, 4, 8, 16])
def test_a_step_sees_as_many_samples_of_the_tabletop_as_asked_for(batch_size, tmp_path,
                                                                  monkeypatch):
    batches = []

    def look(trainee, samples, out, options, **_):
        batches.append(samples.batch(0))
        return {}
    monkeypatch.setattr(training, 'train', look)
    train(tmp_path / 'out', data='tabletop', init='scratch', steps=1, batch_size=batch_size,
          learning_rate=1e-3, alpha=True, save_every=1, seed=0, device='cpu', compile=False,
          half=True, resume=False)
    assert len(batches[0]) == batch_size
