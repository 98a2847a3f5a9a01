# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: caption loss, patch labels where the source has them, resumable.

Patch labels make a small encoder learn what stands where several times faster than captions
alone; the head that reads them is thrown away with the run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from caption_ros.captioners.devices import LARGE, resolve_dtype
from caption_ros.captioners.encoder_decoder import CLASS_TOKENS, pair
from caption_ros.captioners.loading import let_read, one_line, quiet
from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.training.interrupt import held_back
from caption_ros.training.model import IGNORED, Collate, Trainee
from caption_ros.training.samples import PATCH_CLASSES, Sample, Samples, StepDataset

CELLS_PER_PATCH = 4  # two rows and two columns
_TABLE_WEIGHT = 0.2  # most cells show the table and say little
_STATE = 'state.pt'
_HELD_OUT_BATCH = 8


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        steps: Optimiser steps in all, at least 1.
        learning_rate: Peak of the cosine schedule, greater than 0.
        warmup_steps: Steps of linear warm-up.
        weight_decay: AdamW's decay of matrices.
        save_every: Steps between resumable states, at least 1; the last step saves one, too.
        seed: Seed of weights and order.
        device: ``cpu`` or a torch device.
        compile: Compile both halves with torch.compile; pays after some hundred steps.
        half: Store the checkpoint's weights in float16, float32 otherwise.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    save_every: int = 200
    seed: int = 0
    device: str = 'cpu'
    compile: bool = False
    half: bool = True

    def __post_init__(self) -> None:
        for name in ('steps', 'save_every'):
            if getattr(self, name) < 1:
                raise OptionError(f'{name} must be 1 or more, got {getattr(self, name)}')
        if not 0 < self.learning_rate < 1:
            raise OptionError(
                f'learning_rate must be between 0 and 1, got {self.learning_rate}')


class PatchHead(nn.Module):
    """Reads what stands in the cells under each patch off the encoder's output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, CELLS_PER_PATCH * sum(PATCH_CLASSES))

    def forward(self, hidden: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return the loss of tokens (batch, tokens, width), the last the patches, and labels."""
        batch, rows, cols, classes = cells.shape
        by_patch = cells.view(batch, rows // 2, 2, cols // 2, 2, classes).transpose(2, 3)
        target = by_patch.reshape(-1, classes)
        patches = rows // 2 * (cols // 2)
        logits = self.linear(hidden[:, -patches:]).float().view(len(target), -1)
        loss = logits.new_zeros(())
        for kind, part in enumerate(logits.split(PATCH_CLASSES, dim=1)):
            weight = torch.ones(part.shape[1], device=part.device)
            weight[0] = _TABLE_WEIGHT
            loss = loss + functional.cross_entropy(part, target[:, kind], weight)
        return loss


def patch_grid(trainee: Trainee) -> tuple[int, int] | None:
    """Return rows and columns of patch-label cells; None if encoder tokens are no patches."""
    encoder = trainee.model.config.encoder
    if encoder.model_type not in CLASS_TOKENS:
        return None
    (height, width), (tall, wide) = pair(encoder.image_size), pair(encoder.patch_size)
    return 2 * (height // tall), 2 * (width // wide)


def _caption_loss(trainee: Trainee, hidden: torch.Tensor, labels: torch.Tensor,
                  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean token loss and, per sample, whether greedy decoding would be exact."""
    model = trainee.model
    start = torch.full_like(labels[:, :1], trainee.start)
    inputs = torch.cat([start, labels[:, :-1]], dim=1)
    # What follows the end is never looked at by what counts, so no attention mask is needed.
    inputs = inputs.masked_fill(inputs == IGNORED, trainee.end)
    logits = model.decoder(input_ids=inputs, encoder_hidden_states=hidden,
                           use_cache=False).logits
    loss = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(),
                                    ignore_index=IGNORED)
    # Every token right when the true ones come before it: then greedy decoding takes this path.
    exact = ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(dim=1)
    return loss, exact


def _width(model: Any) -> int:
    """Return the width of what _encode gives."""
    part = model.config.decoder if hasattr(model, 'enc_to_dec_proj') else model.config.encoder
    return int(part.hidden_size)


def _encode(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    hidden = model.encoder(pixel_values=pixels).last_hidden_state
    if hasattr(model, 'enc_to_dec_proj'):
        hidden = model.enc_to_dec_proj(hidden)
    return hidden


def _rate(options: TrainOptions, step: int) -> float:
    warm = min(1.0, (step + 1) / max(options.warmup_steps, 1))
    return options.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))


def _optimizer(modules: list[nn.Module], options: TrainOptions) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW([
        {'params': [p for p in parameters if p.ndim >= 2], 'weight_decay': options.weight_decay},
        {'params': [p for p in parameters if p.ndim < 2], 'weight_decay': 0.0},
    ], lr=options.learning_rate, betas=(0.9, 0.98))


@dataclass(frozen=True)
class HeldOut:
    """Held-out samples as the model sees them, a fraction of their photographs' memory.

    Attributes:
        tensors: What Collate gives.
        kinds: ``scene`` or ``region`` for each.
    """

    tensors: dict[str, torch.Tensor]
    kinds: list[str]


def held_out_batches(collate: Collate, samples: Iterable[Sample]) -> list[HeldOut]:
    """Read held-out samples in small batches, none of them kept at its own size."""
    source, batches = iter(samples), []
    while part := list(islice(source, _HELD_OUT_BATCH)):
        kinds = ['scene' if sample.mask is None else 'region' for sample in part]
        batches.append(HeldOut(collate(part), kinds))
    return batches


def held_out_scores(trainee: Trainee, batches: list[HeldOut], device: str) -> dict[str, float]:
    """Score held-out samples: loss, and share that greedy decoding would get exactly right."""
    trainee.model.eval()
    losses, right = [], {'region': [0, 0], 'scene': [0, 0]}
    with torch.inference_mode():
        for batch in batches:
            hidden = _encode(trainee.model, batch.tensors['pixel_values'].to(device))
            loss, exact = _caption_loss(trainee, hidden, batch.tensors['labels'].to(device))
            losses += [float(loss)] * len(batch.kinds)
            for kind, hit in zip(batch.kinds, exact.tolist()):
                right[kind][0] += hit
                right[kind][1] += 1
    trainee.model.train()
    out = {'loss': sum(losses) / len(losses)}
    out.update({f'{name}_exact': hits / count for name, (hits, count) in right.items() if count})
    return out


def save_checkpoint(trainee: Trainee, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a folder that ``load_captioner`` loads, in the precision given."""
    state = {name: value.to(dtype) if value.is_floating_point() else value
             for name, value in trainee.model.state_dict().items()}
    config_dtype = trainee.model.config.dtype
    trainee.model.config.dtype = dtype
    with quiet():
        trainee.model.save_pretrained(out, state_dict=state)
    trainee.model.config.dtype = config_dtype
    trainee.tokenizer.save_pretrained(out)
    trainee.processor.save_pretrained(out)
    _name_tokenizer_for_all_releases(out / 'tokenizer_config.json')
    let_read(out / 'model.safetensors', out / 'config.json')


def _name_tokenizer_for_all_releases(path: Path) -> None:
    # transformers 5 writes a class name that transformers 4 does not know; both know this one.
    config = json.loads(path.read_text('utf-8'))
    if config.get('tokenizer_class') == 'TokenizersBackend':
        config['tokenizer_class'] = 'PreTrainedTokenizerFast'
        config.pop('backend', None)
        path.write_text(json.dumps(config, indent=2) + '\n', 'utf-8')


def has_state(out: Path) -> bool:
    """Tell whether a folder holds a run to resume."""
    return (out / _STATE).is_file()


def _identity(trainee: Trainee, samples: Samples, options: TrainOptions) -> dict[str, Any]:
    """Return what a resumed run must have in common with the one that it goes on with."""
    words = json.dumps(sorted(trainee.tokenizer.get_vocab().items()))
    return {'seed': options.seed, 'learning_rate': options.learning_rate,
            'weight_decay': options.weight_decay, 'alpha': trainee.has_alpha,
            'words of the captions': hashlib.sha256(words.encode()).hexdigest()[:12],
            **samples.identity()}


def _save_state(path: Path, step: int, modules: dict[str, Any], identity: dict[str, Any]) -> None:
    state = {name: module.state_dict() for name, module in modules.items()}
    part = path.with_suffix('.part')
    try:
        with part.open('wb') as file:
            torch.save({'step': step, 'identity': identity, **state}, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name on no data
        os.replace(part, path)  # a kill while writing leaves the former state
    except (OSError, RuntimeError) as error:  # torch has both for a full disk
        part.unlink(missing_ok=True)
        rest = 'resume from the former state' if path.is_file() else 'begin again'
        raise CaptionRosError(f'{path} of step {step} cannot be written ({one_line(error)}); make '
                              f'room on the disk and {rest}') from error


def _load_state(path: Path, modules: dict[str, Any], identity: dict[str, Any]) -> int:
    try:
        state = torch.load(path, weights_only=True, map_location='cpu')
        before, step = state.get('identity', {}), int(state['step'])
    except Exception as error:  # torch raises many types for a damaged file
        raise CaptionRosError(f'{path} is damaged or cut short ({one_line(error)}); remove it '
                              'to start anew') from error
    others = [name for name, value in identity.items() if before.get(name, value) != value]
    if others:
        raise OptionError(f'{path} was begun with other settings: '
                          + ', '.join(f'{name} {before[name]}, not {identity[name]}'
                                      for name in others)
                          + '; give the same, or choose another folder')
    try:
        for name, module in modules.items():
            module.load_state_dict(state[name])
    except Exception as error:
        raise OptionError(f'{path} is of another model ({one_line(error)}); give the options '
                          'that the run was begun with, or choose another folder') from error
    return step


def train(
    trainee: Trainee, samples: Samples, out: Path, options: TrainOptions, *,
    resume: bool = False, progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train encoder and decoder jointly and write a checkpoint folder.

    Args:
        trainee: Model, tokenizer and processor; changed in place.
        samples: Source of batches.
        out: Folder for the checkpoint, its ``scores.json`` and the resumable state.
        options: Steps, rates and seed.
        resume: Go on from the state in ``out``.
        progress: Called after each step with its number and figures.

    Returns:
        Held-out loss and shares exactly right.

    Raises:
        CaptionRosError: If the state cannot be resumed from, the loss is not a number or the
            disk is full.
        KeyboardInterrupt: On Ctrl-C, once the step in work is done and its state saved.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f'{out} cannot be made ({error}); choose another folder') from error
    collate = Collate(trainee)
    # What is wrong with them shows before the first step.
    held_out = held_out_batches(collate, samples.held_out())
    torch.manual_seed(options.seed)
    model = trainee.model.to(options.device)
    model.train()
    if options.device == 'cpu':  # the fused kernel's backward takes a third longer there
        model.set_attn_implementation('eager')
    head = PatchHead(_width(model)).to(options.device)
    optimizer = _optimizer([model, head], options)
    modules = {'model': model, 'head': head, 'optimizer': optimizer}
    identity = _identity(trainee, samples, options)
    start = _load_state(out / _STATE, modules, identity) if resume else 0
    if start > options.steps:
        raise OptionError(f'{out / _STATE} is of step {start}, and steps is {options.steps}; give '
                          f'{start} or more')
    loader = DataLoader(
        StepDataset(samples, collate, start, options.steps),  # type: ignore[arg-type]
        batch_size=None, num_workers=1, prefetch_factor=4, worker_init_fn=_quiet_worker)
    # Without bfloat16 in hardware it takes several times as long as float32.
    half = torch.autocast(options.device.split(':')[0], torch.bfloat16, enabled=(
        resolve_dtype('auto', options.device, LARGE) is torch.bfloat16))
    encode, caption_loss = _encode, _caption_loss
    if options.compile:
        encode, caption_loss = (torch.compile(f, dynamic=True) for f in (encode, caption_loss))
    began = time.monotonic()
    with held_back() as interrupted:
        for step, batch in enumerate(loader if start < options.steps else (), start):
            if isinstance(batch, CaptionRosError):
                raise batch
            batch = {name: value.to(options.device) for name, value in batch.items()}
            for group in optimizer.param_groups:
                group['lr'] = _rate(options, step)
            with half:
                hidden = encode(model, batch['pixel_values'])
                loss, exact = caption_loss(trainee, hidden, batch['labels'])
                patch_loss = head(hidden, batch['cells']) if 'cells' in batch else loss * 0
            figure = loss.item()
            if not math.isfinite(figure):
                raise CaptionRosError(
                    f'the loss is {figure} at step {step}; begin again in another folder with a '
                    f'learning rate below {options.learning_rate}')
            optimizer.zero_grad(set_to_none=True)
            (loss + 0.5 * patch_loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if progress is not None:
                progress(step + 1, {
                    'loss': figure, 'patch_loss': patch_loss.item(),
                    'exact': float(exact.float().mean()), 'lr': _rate(options, step),
                    'seconds_per_step': (time.monotonic() - began) / (step + 1 - start)})
            is_stopped = interrupted()
            if is_stopped or step + 1 == options.steps or (step + 1) % options.save_every == 0:
                _save_state(out / _STATE, step + 1, modules, identity)
            if is_stopped:
                raise KeyboardInterrupt
    model.to('cpu')
    try:
        save_checkpoint(trainee, out, torch.float16 if options.half else torch.float32)
        scores = held_out_scores(trainee, held_out, 'cpu')
        (out / 'scores.json').write_text(json.dumps(scores, indent=1) + '\n', 'utf-8')
    except (OSError, SafetensorError) as error:
        raise CaptionRosError(f'the checkpoint cannot be written to {out} ({one_line(error)}); '
                              'make room on the disk and resume') from error
    return scores


def _quiet_worker(_worker: int) -> None:
    """Keep the worker to one core, as training has the others, and at work on Ctrl-C."""
    import cv2
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
