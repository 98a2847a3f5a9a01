# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From encoder states to tokens and scores, in one batch, with transformers' own search."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from caption_ros.captioner import CaptionOptions
from caption_ros.errors import CheckpointError

_TOP_P = 0.9  # of nucleus sampling, as in BLIP's own captioning of the web
_SEED = 0


@dataclass(frozen=True)
class Decoded:
    """What a decoder said.

    Attributes:
        tokens: Token ids of each caption, without start and end.
        scores: Geometric mean of the token probabilities, the end included, 0..1.
    """

    tokens: list[list[int]]
    scores: list[float]


def search_config(config: Any, *, eos: int | list[int] | None, pad: int | None) -> Any:
    """Return a checkpoint's generation config without its length and sampling.

    The length is the caller's, and a checkpoint that samples would not say the same twice.
    """
    config = copy.deepcopy(config)
    config.max_length = config.min_length = None
    config.temperature = config.top_k = config.top_p = None
    config.num_return_sequences = None
    config.do_sample = False
    config.eos_token_id = eos
    first = eos[0] if isinstance(eos, list) else eos
    # What follows a caption's end is thrown away. Filling it with the end token, not padding,
    # keeps transformers from warning about a missing mask.
    config.pad_token_id = pad if first is None else first
    config.return_dict_in_generate = True
    config.output_logits = True
    config.output_scores = config.output_attentions = config.output_hidden_states = False
    return config


def token_ids(value: Any, *, named: str, model: str) -> list[int]:
    """Return the token ids that a checkpoint names: one, or a list of them.

    Raises:
        CheckpointError: If it names none, or something else.
    """
    ids = list(value) if isinstance(value, list | tuple) else [value]
    if not ids or any(type(each) is not int or each < 0 for each in ids):
        raise CheckpointError(f'model {model!r} has {value!r} for {named}, wanted a token id, 0 '
                              'or more; mend its config.json')
    return ids


def decode(decoder: Any, config: Any, start: Any, hidden: Any, mask: Any | None,
           options: CaptionOptions, max_positions: int) -> Decoded:
    """Search for the caption of each row.

    Args:
        decoder: Text decoder with cross-attention, from transformers.
        config: What search_config returned.
        start: Start tokens, shape (tokens,), int64.
        hidden: Encoder states, shape (batch, encoder tokens, width).
        mask: Encoder tokens to look at, shape (batch, encoder tokens), int64; None is all.
        options: Search and length.
        max_positions: Tokens that the decoder can hold.
    """
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    start = start.repeat(len(hidden), 1)
    # generate() would choose a cache without a place for the image's keys and values: BERT fails
    # on it, the others compute them anew for each token.
    inputs = {'encoder_hidden_states': hidden,
              _cache_argument(): EncoderDecoderCache(DynamicCache(), DynamicCache())}
    if mask is not None:
        inputs['encoder_attention_mask'] = mask
    return search(decoder, config, options, max_positions - start.shape[1], start.shape[1],
                  input_ids=start, attention_mask=torch.ones_like(start), **inputs)


def _cache_argument() -> str:
    """Return what generate() calls its cache; no signature tells, both come in **kwargs."""
    import transformers
    from packaging.version import Version

    renamed = Version(transformers.__version__) >= Version('5.24')
    return 'cache' if renamed else 'past_key_values'


def search(model: Any, config: Any, options: CaptionOptions, room: int, given: int,
           **inputs: Any) -> Decoded:
    """Let a model's generate() go on from its inputs, and score what it says.

    Args:
        model: Model from transformers with generate().
        config: What search_config returned.
        options: Search and length.
        room: Tokens that the model can still hold.
        given: Tokens of the input that generate() repeats in front of its answer.
        **inputs: Arguments of generate().
    """
    import torch

    config = copy.copy(config)
    config.num_beams = options.num_beams
    if options.sample:
        config.do_sample, config.top_p, config.top_k = True, _TOP_P, 0
    config.max_new_tokens = max(1, min(options.max_new_tokens, room))
    if options.num_beams == 1:
        config.early_stopping = False
        config.length_penalty = None
    with torch.random.fork_rng(enabled=options.sample):
        if options.sample:  # the same frame gives the same captions each time
            torch.manual_seed(_SEED)
        out = model.generate(generation_config=config, **inputs)
    beams = out.beam_indices if options.num_beams > 1 else None
    logits = tuple(step.float() for step in out.logits)
    chances = model.compute_transition_scores(out.sequences, logits, beams,
                                              normalize_logits=True).cpu()
    rows = out.sequences[:, given:].cpu()
    ends = config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    tokens, scores = [], []
    for row, row_chances in zip(rows.tolist(), chances):
        length = next((i for i, token in enumerate(row) if token in ends), len(row))
        said = min(length + 1, len(row))  # the end token is said too
        tokens.append(row[:length])
        scores.append(float(row_chances[:said].double().mean().exp().clamp(0, 1)))
    return Decoded(tokens, scores)
