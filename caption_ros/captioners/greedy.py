# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Greedy search with GPT-2, BERT and BLIP decoders, without generate()'s work between two tokens.

A small decoder computes for a third of a millisecond and generate() and the layers' modules spend
four times that around it, in Python, where the threads of a node get into each other's way.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from caption_ros.captioners.decoding import Decoded
from caption_ros.captioners.devices import has_amx
from caption_ros.captioners.kernel_linears import KernelInt8Linear
from caption_ros.captioners.kernels import has_kernel
from caption_ros.captioners.linears import (
    Int8Linear,
    ScreenedHead,
    as_linear,
    can_round,
    is_int8,
    is_wide,
    rounded,
)
from caption_ros.captioners.recall import Recall, features_of
from caption_ros.captioners.stepper import Decoder, Joined, Layer, Stepper

_GELU = {'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu': 'none'}
_LARGE_VOCABULARY = 16_384  # below, screening costs more than it saves
_AHEAD = 7  # tokens of a draft at most; with the one before they take about the time of one
# Captions at once that are drafted in float32: its weights cost four times those of the draft.
# In bfloat16 a look at more tokens takes what is saved, with AMX at more than one caption's.
_TOGETHER = 12
_TOGETHER_BFLOAT16 = 3
_TOGETHER_INT8 = 1
# What of a draft has to be right for it to pay, as looking at k tokens and saying them roughly
# costs what the decoder needs for so many of them; with less, one caption of a few is drafted.
_WORTH, _WORTH_INT8 = 0.6, 0.8
_UNSURE = 16  # drafted tokens that say nothing yet
_REMEMBERED = 256  # drafted tokens; the last count most
_ASKED_AGAIN = 32
_UNCACHED = 32_000_000  # weights of int8; fewer may stay in the cache, where reading costs little
_KEPT = 64_000_000  # bytes of keys and values of images whose memory is used again
_SLACK = {torch.bfloat16: 2**-7, torch.float16: 2**-10}  # a step of each
_ALL = 512  # tokens; no caption may be longer
_BERTS = ('BertLMHeadModel', 'BlipTextLMHeadModel')
# What a generation config may say without a word of the greedy caption changing.
_HARMLESS = frozenset((
    '_from_model_config', 'bos_token_id', 'decoder_start_token_id', 'early_stopping',
    'eos_token_id', 'length_penalty', 'max_new_tokens', 'num_beams', 'output_logits',
    'pad_token_id', 'renormalize_logits', 'return_dict_in_generate', 'transformers_version',
    'use_cache'))
# What leaves all as it is; checkpoints of transformers 4 say so of whatever there was.
_NEUTRAL = {'encoder_repetition_penalty': 1.0, 'guidance_scale': 1.0, 'num_beam_groups': 1,
            'repetition_penalty': 1.0, 'typical_p': 1.0}


def can_search(decoder: Any, config: Any) -> bool:
    """Tell whether GreedySearch says what generate() would.

    Args:
        decoder: Text decoder from transformers.
        config: What search_config returned.
    """
    wishes = {name for name, value in config.to_diff_dict().items()
              if value not in (None, False) and value != _NEUTRAL.get(name)}
    own = decoder.config
    if type(decoder).__name__ == 'GPT2LMHeadModel':
        fits = (own.add_cross_attention and own.activation_function in _GELU
                and own.scale_attn_weights and not own.scale_attn_by_inverse_layer_idx
                and not own.reorder_and_upcast_attn)
    else:
        fits = (type(decoder).__name__ in _BERTS and own.hidden_act in _GELU and own.is_decoder
                and all(hasattr(layer, 'crossattention') for layer in decoder.bert.encoder.layer)
                and getattr(own, 'position_embedding_type', 'absolute') in (None, 'absolute'))
    return bool(fits) and wishes <= _HARMLESS


class GreedySearch:
    """Says the likeliest token until the end.

    Args:
        decoder: A decoder that can_search() accepts, on its device, its linear layers packed or
            not; its weights are shared.
        eos: Token ids that end a caption.

    Attributes:
        drafted: Tokens that a draft has said.
        right: How many of these the decoder said, too.
        recalled: Tokens of earlier captions that were tried again, see Recall.
        said_again: How many of these the decoder said again.
    """

    def __init__(self, decoder: Any, eos: int | list[int]) -> None:
        self._ends = set(eos if isinstance(eos, list) else [eos])
        make = _gpt2 if type(decoder).__name__ == 'GPT2LMHeadModel' else _bert
        whole, key_values = make(decoder)
        screens = {id(module.rough) for module in whole.modules()
                   if isinstance(module, ScreenedHead)}
        int8 = [module for module in whole.modules()
                if is_int8(module) and id(module) not in screens]
        # What is looked at in one pass should be what it would have been alone: a caption's first
        # token can be twenty times as large as the others.
        for module in int8:
            if isinstance(module, Int8Linear):
                module.by_token = True
        slack = _SLACK.get(torch.bfloat16 if int8 else whole.dtype, 0.0)
        heads = decoder.config.num_attention_heads
        narrow = bool(int8) or (whole.dtype == torch.bfloat16 and not has_amx())
        stepper = Stepper(whole, _draft(whole), key_values, heads, sorted(self._ends), slack,
                          narrow and _can_see(whole, heads))
        # Keys in bfloat16 beside a decoder in int8 are made of states in bfloat16.
        first = key_values[0].layers[0] if isinstance(key_values[0], Joined) else key_values[0]
        self._dtype = getattr(first, 'dtype', None)
        self.drafted, self.right = 0, 0
        self._worth = _WORTH_INT8 if int8 else _WORTH
        self._lately, self._right_lately = 0.0, 0.0  # of what was drafted
        self._refused = 0  # captions, in a row
        self.recalled, self.said_again = 0, 0
        self._recall = Recall()
        self._most_drafted = (_TOGETHER_INT8 if int8 else
                              _TOGETHER if whole.dtype == torch.float32 else
                              _TOGETHER_BFLOAT16 if stepper.by_products else 1)
        self._scratch: list[Any] = []  # taken out while it is used
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch.jit announces its successor, torch.compile
            self._search = torch.jit.script(stepper.eval())

    @torch.inference_mode()  # or scratch of one mode would be refused in another
    def __call__(self, given: list[int], hidden: Any, rows: list[int], mask: Any | None,
                 max_new_tokens: int, *, recall: bool = False) -> Decoded:
        """Search for the caption of each of the rows.

        Args:
            given: The start token and what else every caption begins with.
            hidden: Encoder states, shape (images, encoder tokens, width).
            rows: The image that each caption looks at.
            mask: Encoder tokens to look at, shape (rows, encoder tokens), int64; None is all.
            max_new_tokens: Most tokens of a caption, the end included, 1 or more.
            recall: Try first what was said of what looked most like each row, after the same
                given tokens, and remember what is said now. In bfloat16, float16 and int8 a word
                of that stays as long as it is within rounding of the likeliest, and 0.95 times
                as likely.
        """
        picks = torch.tensor(rows, device=hidden.device)
        keep = None if mask is None else mask.bool()[:, None, None]
        ahead = _AHEAD if len(rows) <= self._most_drafted and self._may_draft() else 0
        # Memory that the system gives anew for each batch takes longer to get than to fill.
        scratch = self._scratch.pop() if self._scratch else torch.empty(0)
        before, trust = picks.new_empty(0, len(rows)), 0
        if recall:
            features = features_of(hidden, picks, mask)
            before, trust = self._recall.closest(given, features)
        words, chances, tried, right, scratch = self._search(
            hidden if self._dtype is None else hidden.to(self._dtype), picks, keep, given,
            max_new_tokens, ahead, scratch, before, trust)
        if scratch.nbytes <= _KEPT and not self._scratch:
            self._scratch.append(scratch)
        self.recalled += tried[0] * len(rows)
        self.said_again += right[0] * len(rows)
        self.drafted += tried[1] * len(rows)
        self.right += right[1] * len(rows)
        fades = 0.5 if self._lately > _REMEMBERED else 1.0
        self._lately = fades * self._lately + tried[1]
        self._right_lately = fades * self._right_lately + right[1]
        tokens, said, scores = [], [], []
        for row, row_chances in zip(words.t().tolist(), chances.t().double().cpu()):
            length = next((i for i, token in enumerate(row) if token in self._ends), len(row))
            tokens.append(row[:length])
            said.append(row[:length + 1])  # the end is said too
            scores.append(float(row_chances[:len(said[-1])].mean().exp().clamp(0, 1)))
        if recall:
            # All at once, unless most of it was wrong this time.
            trust = _ALL if 2 * right[0] >= tried[0] else max(2, right[0] + 1)
            self._recall.keep(given, features, said, trust)
        return Decoded(tokens, scores)

    def _may_draft(self) -> bool:
        """Tell whether a draft is worth asking: it has been right of late, or may be by now."""
        pays = self._right_lately >= self._worth * (self._lately - _UNSURE)
        self._refused = 0 if pays else self._refused + 1
        return self._refused % _ASKED_AGAIN == 0


def _gpt2(decoder: Any) -> tuple[Decoder, list[nn.Module]]:
    """Return the decoder, and what makes keys and values of an image for each layer."""
    config, body = decoder.config, decoder.transformer
    layers = [Layer({
        'norm_1': block.ln_1, 'qkv': as_linear(block.attn.c_attn),
        'out': as_linear(block.attn.c_proj), 'norm_cross': block.ln_cross_attn,
        'query': as_linear(block.crossattention.q_attn),
        'cross_out': as_linear(block.crossattention.c_proj), 'norm_2': block.ln_2,
        'up': as_linear(block.mlp.c_fc), 'down': as_linear(block.mlp.c_proj),
    }, heads=config.num_attention_heads, gelu=_GELU[config.activation_function], norm_first=True)
        for block in body.h]
    last = nn.Sequential(body.ln_f, _head(decoder.lm_head, body.wte.weight))
    return (Decoder(body.wte.weight, body.wpe.weight, nn.Identity(), layers, last),
            [as_linear(block.crossattention.c_attn) for block in body.h])


def _bert(decoder: Any) -> tuple[Decoder, list[nn.Module]]:
    """Return the same of a BERT or of BLIP's."""
    config, body = decoder.config, decoder.bert
    gelu = _GELU[config.hidden_act]
    layers, key_values = [], []
    for block in body.encoder.layer:
        own, look = block.attention, block.crossattention
        layers.append(Layer({
            'qkv': _joined(own.self.query, own.self.key, own.self.value),
            'out': as_linear(own.output.dense), 'norm_1': own.output.LayerNorm,
            'query': as_linear(look.self.query),
            'cross_out': as_linear(look.output.dense), 'norm_cross': look.output.LayerNorm,
            'up': as_linear(block.intermediate.dense), 'down': as_linear(block.output.dense),
            'norm_2': block.output.LayerNorm,
        }, heads=config.num_attention_heads, gelu=gelu, norm_first=False))
        key_values.append(_joined(look.self.key, look.self.value))
    head = decoder.cls.predictions
    last = nn.Sequential(as_linear(head.transform.dense), nn.GELU(gelu), head.transform.LayerNorm,
                         _head(head.decoder, body.embeddings.word_embeddings.weight))
    positions = body.embeddings.position_embeddings.weight
    kinds = getattr(body.embeddings, 'token_type_embeddings', None)  # BLIP's text has none
    if kinds is not None:
        positions = positions + kinds.weight[0]
    return Decoder(body.embeddings.word_embeddings.weight, positions, body.embeddings.LayerNorm,
                   layers, last), key_values


def _can_see(decoder: Decoder, heads: int) -> bool:
    """Tell whether the decoder's device and heads let the kernels see images."""
    return (has_kernel('attend') and decoder.tokens.device.type == 'cpu'
            and decoder.tokens.size(1) // heads % 2 == 0)


def _draft(decoder: Decoder) -> Decoder | None:
    """Return the decoder in fewer bits where its weights are packed, and many enough to pay.

    One in bfloat16 or float32 is drafted in int8, one in int8 in 4 bits where there is a kernel.
    """
    if not any(map(is_wide, decoder.modules())):
        packed = [module for module in decoder.modules() if is_int8(module)]
        # torch's layers round a token that comes alone in another way than several together.
        if (not all(isinstance(module, KernelInt8Linear) for module in packed)
                or sum(module.packed_numbers for module in packed) < _UNCACHED):
            return None
    elif not can_round():
        return None
    draft = rounded(decoder)
    draft.dtype = torch.float32
    return draft


def _head(layer: Any, embeddings: Any) -> Any:
    """Return the layer of the logits; over packed bfloat16 of a large vocabulary, screened."""
    if (is_wide(layer) and layer.dtype == torch.bfloat16
            and len(embeddings) >= _LARGE_VOCABULARY and can_round()
            # Asked of the weights: a config may call tied what a checkpoint holds two of.
            and torch.equal(layer.dense(), embeddings)):
        return ScreenedHead(embeddings, layer.bias)
    return as_linear(layer)


def _joined(*layers: Any) -> Joined:
    return Joined(*(as_linear(layer) for layer in layers))
