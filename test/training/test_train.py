# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
import os
import signal
import weakref
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, VisionEncoderDecoderConfig, VisionEncoderDecoderModel

from caption_ros import caption_frame, load_captioner
from caption_ros.captioners import devices
from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.scenes import scene_frame
from caption_ros.training import train as module
from caption_ros.training.model import (
    IGNORED,
    Collate,
    Trainee,
    load_trainee,
    new_trainee,
    without_alpha,
    word_tokenizer,
)
from caption_ros.training.samples import JsonlSamples, TabletopSamples, tabletop_captions
from caption_ros.training.train import TrainOptions, _caption_loss, patch_grid, train


def _small(alpha=True):
    return new_trainee(tabletop_captions(), alpha=alpha, width=64, encoder_layers=1,
                       decoder_layers=1)


class _FewHeldOut(TabletopSamples):
    """Samples whose scores are soon reckoned."""

    def held_out(self):
        return self.batch(0)[:2]


def _run(out, steps, resume=False, trainee=None):
    trainee = trainee or _small()
    samples = _FewHeldOut(2, 4, patch_grid(trainee))
    losses = {}
    options = TrainOptions(steps=steps, save_every=2, warmup_steps=1, half=False)
    train(trainee, samples, out, options, resume=resume,
          progress=lambda step, figures: losses.update({step: figures['loss']}))
    return trainee, losses


def test_text_survives_the_tokenizer():
    tokenizer = word_tokenizer(tabletop_captions())
    text = scene_frame(0).scene_caption
    ids = tokenizer(text)['input_ids']
    assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_training_writes_a_checkpoint_that_captions(tmp_path):
    _, losses = _run(tmp_path / 'run', 30)
    assert losses[30] < 0.75 * losses[1]
    captioner = load_captioner(str(tmp_path / 'run'))
    frame = scene_frame(1)
    captions = caption_frame(frame.rgb, frame.labels, captioner)
    assert len(captions) == len(frame.region_captions)
    assert {caption.focus for caption in captions} == {'alpha'}


@pytest.mark.parametrize('has_bfloat16', [True, False])
def test_it_computes_in_bfloat16_where_the_cpu_can(has_bfloat16, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, 'cpu_has_bfloat16', lambda: has_bfloat16)
    trainee, halves = _small(), []
    trainee.model.encoder.register_forward_hook(
        lambda *_: halves.append(torch.is_autocast_enabled('cpu')))
    _run(tmp_path / 'run', 1, trainee=trainee)
    assert halves[0] is has_bfloat16


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    whole, _ = _run(tmp_path / 'whole', 4)
    broken = tmp_path / 'broken'
    trainee = _small()
    samples = TabletopSamples(2, 4, patch_grid(trainee))

    def stop(step, figures):
        if step == 3:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(trainee, samples, broken, TrainOptions(steps=4, save_every=2, warmup_steps=1),
              progress=stop)
    resumed, losses = _run(broken, 4, resume=True)
    assert sorted(losses) == [3, 4]
    for name, value in whole.model.state_dict().items():
        assert torch.allclose(value, resumed.model.state_dict()[name], atol=1e-5), name


def test_an_interrupted_run_keeps_the_state_of_the_step_in_work(tmp_path):
    trainee = _small()

    def stop(step, figures):
        os.kill(os.getpid(), signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(trainee, _FewHeldOut(2, 4, patch_grid(trainee)), tmp_path,
              TrainOptions(steps=3, save_every=100, warmup_steps=1), progress=stop)
    assert signal.getsignal(signal.SIGINT) is before
    _, losses = _run(tmp_path, 3, resume=True)
    assert sorted(losses) == [2, 3]


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'),
                                   RuntimeError('unexpected pos 64 vs 0')])
def test_a_full_disk_is_told_and_leaves_the_former_state(error, tmp_path, monkeypatch):
    _run(tmp_path, 2)
    former = (tmp_path / 'state.pt').read_bytes()

    def fill(state, file):
        file.write(b'half')
        raise error
    monkeypatch.setattr(torch, 'save', fill)
    with pytest.raises(CaptionRosError, match='state.pt of step 4 cannot be written .* make room '
                                              'on the disk and resume from the former state'):
        _run(tmp_path, 4, resume=True)
    assert (tmp_path / 'state.pt').read_bytes() == former
    assert not (tmp_path / 'state.part').exists()


def test_a_checkpoint_that_a_full_disk_cut_short_is_written_on_resuming(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, 'save_checkpoint', Mock(side_effect=SafetensorError('I/O error')))
        with pytest.raises(CaptionRosError, match='the checkpoint cannot be written to'):
            _run(tmp_path, 1)
    _, losses = _run(tmp_path, 1, resume=True)
    assert not losses and load_captioner(str(tmp_path))


def test_a_loss_that_is_no_number_is_told_with_what_to_do(tmp_path):
    trainee = _small()
    torch.nn.init.constant_(trainee.model.decoder.lm_head.weight, float('nan'))
    with pytest.raises(CaptionRosError, match='is nan at step 0; begin again in another folder '
                                              'with a learning rate below 0.001'):
        _run(tmp_path, 1, trainee=trainee)


def test_other_batches_are_refused_on_resuming_and_mended_lines_are_not(tmp_path):
    for name in 'ab':
        Image.new('RGB', (40, 30), 'red').save(tmp_path / f'{name}.png')
    path, words = tmp_path / 'data.jsonl', ('a mug', 'a can', 'a box')

    def go_on(steps, batch_size, image='a', texts=words, resume=True):
        path.write_text('\n'.join(json.dumps({'image': f'{image}.png', 'caption': text})
                                  for text in texts))
        train(_small(), JsonlSamples(path, batch_size), tmp_path / 'out',
              TrainOptions(steps=steps, save_every=1), resume=resume)
    go_on(1, 1, resume=False)
    go_on(2, 1, image='b')
    with pytest.raises(OptionError, match='with other settings: batch size 1, not 2'):
        go_on(3, 2)
    with pytest.raises(OptionError, match='with other settings: data 3 captions'):
        go_on(3, 1, texts=words[::-1])


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / 'state.pt').write_bytes(b'half a file')
    with pytest.raises(CaptionRosError, match='state.pt is damaged or cut short'):
        _run(tmp_path, 2, resume=True)


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path):
    _run(tmp_path, 2)
    samples = TabletopSamples(2, 4, patch_grid(_small()))

    def go_on(trainee=None, **changes):
        train(trainee or _small(), samples, tmp_path, TrainOptions(
            **{'steps': 4, 'save_every': 2, 'warmup_steps': 1, 'half': False, **changes}),
            resume=True)
    for changes, text in (({'seed': 7}, 'with other settings: seed 0, not 7; give the same'),
                          ({'trainee': _small(alpha=False)}, 'alpha True, not False'),
                          ({'steps': 1}, 'is of step 2, and steps is 1; give 2 or more')):
        with pytest.raises(OptionError, match=text):
            go_on(**changes)
    words = new_trainee(['a rod', 'a groon'], width=64, encoder_layers=1, decoder_layers=1)
    with pytest.raises(OptionError, match='words of the captions'):
        go_on(words)
    assert load_captioner(str(tmp_path))


def test_a_bad_sample_ends_the_run_in_one_line_and_held_out_ones_are_read_first(tmp_path):
    Image.new('RGB', (30, 20)).save(tmp_path / 'good.png')
    (tmp_path / 'bad.png').write_bytes(b'no picture')
    rows = [{'image': name, 'caption': 'a cat'} for name in ('good.png', 'bad.png')]
    seen = []
    for order, steps in ((rows, 0), (rows[::-1], 0)):
        (tmp_path / 'data.jsonl').write_text('\n'.join(map(json.dumps, order)))
        samples = JsonlSamples(tmp_path / 'data.jsonl', 1)
        with pytest.raises(OptionError, match='data.jsonl, line [12]: .*bad.png') as problem:
            train(_small(), samples, tmp_path / 'out', TrainOptions(steps=2),
                  progress=lambda step, figures: seen.append(step))
        assert '\n' not in str(problem.value) and len(seen) == steps


def test_held_out_photographs_are_not_kept(tmp_path):
    Image.new('RGB', (400, 300), 'red').save(tmp_path / 'a.png')
    (tmp_path / 'data.jsonl').write_text('{"image": "a.png", "caption": "a mug"}\n' * 1000)
    pictures, kept = [], []
    source = JsonlSamples(tmp_path / 'data.jsonl', 1)

    def watch():
        for sample in source.held_out():
            pictures.append(weakref.ref(sample.rgb))
            kept.append(sum(picture() is not None for picture in pictures))
            yield sample
    batches = module.held_out_batches(Collate(_small()), watch())
    assert [len(batch.kinds) for batch in batches] == [8] * 6 + [2]
    assert len(kept) == 50 and max(kept) <= 2 * 8


def test_others_may_read_the_weights(tmp_path):
    _run(tmp_path, 1)
    modes = {(tmp_path / name).stat().st_mode for name in ('config.json', 'model.safetensors')}
    assert len(modes) == 1


def test_fine_tuning_starts_from_a_checkpoint_without_alpha(tmp_path):
    _run(tmp_path / 'first', 2, trainee=_small(alpha=False))
    trainee = load_trainee(tmp_path / 'first')
    assert not trainee.has_alpha
    _, losses = _run(tmp_path / 'second', 2, trainee=trainee)
    assert len(losses) == 2


def test_without_its_alpha_channel_a_model_sees_whole_scenes_alike():
    trainee = _small()
    plain = without_alpha(trainee)
    assert not plain.has_alpha and without_alpha(plain) is plain
    scenes = [sample for sample in TabletopSamples(3, 3, patch_grid(trainee)).batch(0)
              if sample.mask is None]
    with torch.inference_mode():
        seen, expected = (
            one.model.eval().encoder(pixel_values=Collate(one)(scenes)['pixel_values'])[0]
            for one in (plain, trainee))
    assert torch.allclose(seen, expected, atol=1e-4)


def _other(**encoder):
    """Return a trainee with an encoder of another kind, of another width than its decoder."""
    trainee = _small(alpha=False)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        AutoConfig.for_model(image_size=48, **encoder), trainee.model.config.decoder)
    config.decoder_start_token_id, config.pad_token_id = trainee.start, trainee.end
    trainee.processor.size = {'height': 48, 'width': 48}
    return Trainee(VisionEncoderDecoderModel(config=config), trainee.tokenizer, trainee.processor)


@pytest.mark.parametrize('encoder, has_patches', [
    pytest.param({'model_type': 'deit', 'hidden_size': 36, 'num_hidden_layers': 1}, True,
                 id='two tokens before the patches'),
    pytest.param({'model_type': 'swin', 'embed_dim': 12, 'depths': [1], 'num_heads': [2]}, False,
                 id='tokens that are no patches')])
def test_other_encoders_learn_from_the_tabletop(encoder, has_patches, tmp_path):
    trainee, patch_losses = _other(**encoder), []
    train(trainee, TabletopSamples(1, 1, patch_grid(trainee)), tmp_path, TrainOptions(steps=1),
          progress=lambda step, figures: patch_losses.append(figures['patch_loss']))
    assert bool(patch_losses[0]) is has_patches


def test_a_crop_has_no_patch_labels():
    trainee = _small(alpha=False)
    samples = TabletopSamples(2, 2, patch_grid(trainee)).batch(0)
    cells = Collate(trainee)(samples)['cells']
    for sample, labels in zip(samples, cells):
        assert bool((labels == IGNORED).all()) == (sample.mask is not None)


def test_the_loss_is_that_of_the_whole_model(tmp_path):
    trainee = _small()
    trainee.model.eval()
    batch = Collate(trainee)(TabletopSamples(2, 4, patch_grid(trainee)).batch(0))
    hidden = trainee.model.encoder(pixel_values=batch['pixel_values']).last_hidden_state
    ours, _ = _caption_loss(trainee, hidden, batch['labels'])
    theirs = trainee.model(pixel_values=batch['pixel_values'], labels=batch['labels']).loss
    assert abs(float(ours.detach()) - float(theirs.detach())) < 1e-4


@pytest.mark.parametrize('options, text', [
    ({'steps': 0}, 'steps must be 1 or more, got 0'),
    ({'learning_rate': -1.0}, 'learning_rate must be between 0 and 1, got -1.0'),
])
def test_impossible_options_are_refused(options, text):
    with pytest.raises(OptionError, match=text):
        TrainOptions(**options)
