# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is trained: a VisionEncoderDecoderModel, its tokenizer and its image processor."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    GPT2Config,
    PreTrainedTokenizerFast,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)

from caption_ros.captioners.encoder_decoder import pair, start_and_ends
from caption_ros.captioners.loading import (
    check_family,
    load_model,
    load_processor,
    load_tokenizer,
    quiet,
)
from caption_ros.captioners.view import View, cropped
from caption_ros.errors import OptionError
from caption_ros.region import Region, normalise_alpha, region_cover, regions_from_labels
from caption_ros.training.samples import Sample

IMAGE_SIZE = (192, 240)  # height, width: nearly the aspect of a camera, so shapes stay true
PATCH = 24
IGNORED = -100  # torch's label for a token that costs nothing
_PAD, _START, _END, _UNKNOWN = '<pad>', '<start>', '<end>', '<unknown>'


@dataclass
class Trainee:
    """A model with what feeds it.

    Attributes:
        model: Encoder-decoder with 3 (RGB) or 4 (RGB and alpha) input channels.
        tokenizer: Text to token ids.
        processor: RGB image to normalised pixels.
        start: Token that captions start with.
        end: Token that ends them.
    """

    model: Any
    tokenizer: Any
    processor: Any
    start: int = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.start, ends = start_and_ends(self.model.name_or_path, self.model, self.tokenizer)
        self.end = ends[0]

    @property
    def has_alpha(self) -> bool:
        """True when the encoder takes an alpha channel."""
        return int(self.model.config.encoder.num_channels) == 4

    @property
    def room(self) -> int:
        """Tokens of a caption that the decoder can hold, without start and end."""
        return int(getattr(self.model.config.decoder, 'max_position_embeddings', 512)) - 2


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that gives each text back exactly.

    A word keeps the space before it, so decoding is plain joining.
    """
    words = {piece for text in texts
             for piece, _ in _pieces().pre_tokenize_str(f' {text.strip()}')}
    names = [_PAD, _START, _END, _UNKNOWN, *sorted(words)]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)},
                                      unk_token=_UNKNOWN))
    core.normalizer = normalizers.Prepend(' ')
    core.pre_tokenizer = _pieces()
    core.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=_PAD, bos_token=_START, eos_token=_END,
        unk_token=_UNKNOWN, clean_up_tokenization_spaces=False, model_max_length=64)


def _pieces() -> Any:
    return pre_tokenizers.Split(Regex(r' ?\w+| ?[^\w ]'), 'isolated')


def new_trainee(texts: Sequence[str], *, alpha: bool = True, width: int = 192,
                encoder_layers: int = 6, decoder_layers: int = 3, seed: int = 0) -> Trainee:
    """Build a small ViT and GPT-2 from scratch.

    Args:
        texts: Captions that hold every word.
        alpha: Whether the encoder takes an alpha channel.
        width: Hidden size of both halves, a multiple of 64.
        encoder_layers: Transformer layers of the encoder.
        decoder_layers: Transformer layers of the decoder.
        seed: Seed of the initial weights.
    """
    with quiet():  # the name alone makes transformers say that there is no torchvision
        from transformers import ViTImageProcessor

    tokenizer = word_tokenizer(texts)
    encoder = ViTConfig(
        hidden_size=width, num_hidden_layers=encoder_layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, image_size=list(IMAGE_SIZE), patch_size=PATCH,
        num_channels=4 if alpha else 3, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0)
    decoder = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=width, n_layer=decoder_layers,
        n_head=width // 64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = tokenizer.bos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    torch.manual_seed(seed)
    model = VisionEncoderDecoderModel(config=config)
    model.generation_config.update(
        decoder_start_token_id=tokenizer.bos_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=48)
    processor = ViTImageProcessor(
        size={'height': IMAGE_SIZE[0], 'width': IMAGE_SIZE[1]}, resample=4,  # box: area average
        image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return Trainee(model, tokenizer, processor)


def load_trainee(path: Path) -> Trainee:
    """Load a checkpoint folder to go on training, in float32.

    Raises:
        CheckpointError: If it is damaged or of another family.
    """
    check_family(path, 'vision-encoder-decoder')
    return Trainee(load_model(VisionEncoderDecoderModel, path, torch.float32),
                   load_tokenizer(path), load_processor(path))


def without_alpha(trainee: Trainee) -> Trainee:
    """Return a checkpoint with three input channels that sees an image as a whole scene is seen.

    The alpha channel of a whole scene is the same everywhere: its share of each patch goes into
    the bias. A checkpoint of three channels is returned as it is.
    """
    if not trainee.has_alpha:
        return trainee
    config = copy.deepcopy(trainee.model.config)
    config.encoder.num_channels = 3
    state = trainee.model.state_dict()
    name = next(name for name in state if name.endswith('patch_embeddings.projection.weight'))
    alpha = float(normalise_alpha(np.ones(1, np.float32))[0])
    bias = name.removesuffix('weight') + 'bias'
    state[bias] = state[bias] + alpha * state[name][:, 3].sum(dim=(1, 2))
    state[name] = state[name][:, :3].contiguous()
    model = VisionEncoderDecoderModel(config=config)
    model.load_state_dict(state)
    model.generation_config = trainee.model.generation_config
    return Trainee(model, trainee.tokenizer, trainee.processor)


def check_captions(trainee: Trainee, texts: Sequence[str]) -> None:
    """Refuse captions that the model cannot learn to say: it would learn to say something else.

    Raises:
        OptionError: If one has words that the tokenizer has no token for, or is too long.
    """
    unknown: dict[str, str] = {}
    for text, ids in zip(texts, _token_ids(trainee, texts)):
        if len(ids) > trainee.room:
            raise OptionError(f'caption {text[:80]!r} has {len(ids)} tokens, and the decoder has '
                              f'room for {trainee.room}; shorten it')
        if trainee.tokenizer.unk_token_id in ids:
            for word in text.split():
                if trainee.tokenizer.unk_token_id in _token_ids(trainee, [word])[0]:
                    unknown.setdefault(word, text)
    if unknown:
        more = f' and {len(unknown) - 4} more' if len(unknown) > 4 else ''
        raise OptionError(f'the tokenizer has no token for {", ".join(list(unknown)[:4])}{more}, '
                          f'first in {next(iter(unknown.values()))[:80]!r}; train from scratch or '
                          'from a checkpoint that knows the words')


def _token_ids(trainee: Trainee, texts: Sequence[str]) -> list[list[int]]:
    ids: list[list[int]] = trainee.tokenizer(list(texts), add_special_tokens=False)['input_ids']
    return ids


class Collate:
    """Samples to tensors, through the checkpoint's own tokenizer and the captioner's own view.

    Without an alpha channel a region is shown as its crop, as the captioner does.

    Raises:
        CheckpointError: When called, if image processor and encoder do not fit.
    """

    def __init__(self, trainee: Trainee) -> None:
        self._trainee = trainee
        encoder = trainee.model.config.encoder
        self._view = View(trainee.processor, pair(getattr(encoder, 'image_size', 224)))

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        """Return pixels (batch, channels, H, W), labels (batch, tokens) and cells if any."""
        images = []
        cells = [sample.cells for sample in samples]
        regions = [None if sample.mask is None
                   else regions_from_labels(sample.mask.astype(np.uint8))[0] for sample in samples]
        seen: dict[int, torch.Tensor] = {}  # samples of one frame share its picture
        for row, (sample, region) in enumerate(zip(samples, regions)):
            rgb = sample.rgb
            if region is not None and not self._trainee.has_alpha:
                images.append(self._view.pixels(cropped(rgb, region)))
                if sample.cells is not None:  # they lie on the whole image, not on the crop
                    cells[row] = np.full_like(sample.cells, IGNORED)
                continue
            if id(rgb) not in seen:
                seen[id(rgb)] = self._view.pixels(rgb)
            images.append(seen[id(rgb)])
        pixels = torch.stack(images)
        if self._trainee.has_alpha:
            pixels = torch.cat([pixels, self._alphas(regions)], dim=1)
        texts = [sample.caption for sample in samples]
        ends = [ids[:self._trainee.room] + [self._trainee.end]
                for ids in _token_ids(self._trainee, texts)]
        labels = torch.full((len(ends), max(map(len, ends))), IGNORED)
        for row, ids in enumerate(ends):
            labels[row, :len(ids)] = torch.tensor(ids)
        out = {'pixel_values': pixels, 'labels': labels}
        if all(cell is not None for cell in cells):
            out['cells'] = torch.from_numpy(np.stack(cells))  # type: ignore[arg-type]
        return out

    def _alphas(self, regions: list[Region | None]) -> torch.Tensor:
        size = self._view.size
        planes = [np.ones(size, np.float32) if region is None
                  else region_cover(self._view.region(region), size) for region in regions]
        return torch.from_numpy(normalise_alpha(np.stack(planes)))[:, None]
