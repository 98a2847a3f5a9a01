# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Alpha-CLIP's vision tower, which sees a region as a fourth channel (arXiv:2312.03818).

A CLIPVisionModel with four input channels is the same network: two convolutions whose outputs
are added are one convolution over the channels of both. So a checkpoint is converted once,
and all that takes a CLIP tower takes it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection
from transformers.modeling_outputs import BaseModelOutputWithPooling

from caption_ros.captioners.loading import build_model, let_read, load_model, read_config
from caption_ros.errors import CheckpointError, OptionError, RegionError
from caption_ros.region import normalise_alpha

LICENCE = 'research use only'
CHANNELS = 4  # RGB and alpha
_HEAD_WIDTH = 64
_PREFIXES = ('module.', 'visual.')
_FILES = ('config.json', 'model.safetensors')
_WANTED = 'the visual.state_dict() of a fully fine-tuned Alpha-CLIP, nothing more and nothing less'
_NAMES_SHOWN = 4
_BLOCK = re.compile(r'transformer\.resblocks\.(\d{1,3})\.')
_OUTER = {
    'class_embedding': 'vision_model.embeddings.class_embedding',
    'positional_embedding': 'vision_model.embeddings.position_embedding.weight',
    'ln_pre.weight': 'vision_model.pre_layrnorm.weight',
    'ln_pre.bias': 'vision_model.pre_layrnorm.bias',
    'ln_post.weight': 'vision_model.post_layernorm.weight',
    'ln_post.bias': 'vision_model.post_layernorm.bias',
}
_INNER = {'attn.out_proj': 'self_attn.out_proj', 'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2',
          'mlp.c_fc': 'mlp.fc1', 'mlp.c_proj': 'mlp.fc2'}
# The weights that sizes are read from, and how many dimensions each has.
_SIZED = {'class_embedding': 1, 'conv1.weight': 4, 'positional_embedding': 2, 'proj': 2,
          'transformer.resblocks.0.mlp.c_fc.weight': 2}


@dataclass
class AlphaClipOutput(BaseModelOutputWithPooling):
    """What the tower says of a batch of images.

    Attributes:
        image_embeds: The pooled output through the projection, for similarity with CLIP's
            texts, shape (batch, projection width); None where the checkpoint has none.
    """

    image_embeds: torch.FloatTensor | None = None


class AlphaClipVisionTower(torch.nn.Module):
    """The bare tower: an image and an alpha channel to tokens.

    Attributes:
        vision: CLIPVisionModel with four input channels.
        projection: Linear layer of the pooled output, or None.
        config: The CLIPVisionConfig of vision.
    """

    def __init__(self, vision: Any, projection: Any | None) -> None:
        """Take the parts of a loaded model over."""
        super().__init__()
        self.vision = vision
        self.projection = projection
        self.config = vision.config

    def forward(self, pixel_values: torch.Tensor, alpha: torch.Tensor | None = None,
                output_hidden_states: bool = False) -> AlphaClipOutput:
        """Encode a batch of images.

        Args:
            pixel_values: Normalised images, shape (batch, 3, H, W).
            alpha: What region.alpha_channel gives for each image, shape (batch, 1, H, W), about
                +1.923 inside the region and -1.923 outside; None is region everywhere.
            output_hidden_states: Give the states before the first and after each layer too.

        Returns:
            last_hidden_state and hidden_states, (batch, 1 + patches, width), not yet through the
            last norm, the class token first; pooler_output, (batch, width), the class token
            through the last norm; image_embeds.

        Raises:
            RegionError: If alpha does not fit pixel_values.
        """
        wanted = (pixel_values.shape[0], 1, *pixel_values.shape[2:])
        if alpha is None:
            alpha = pixel_values.new_full(wanted, float(normalise_alpha(np.ones(()))))
        elif tuple(alpha.shape) != wanted:
            raise RegionError(f'alpha must be {wanted} for pixel_values of '
                              f'{tuple(pixel_values.shape)}, got {tuple(alpha.shape)}')
        out = self.vision(pixel_values=torch.cat([pixel_values, alpha.to(pixel_values)], 1),
                          output_hidden_states=output_hidden_states)
        embeds = None if self.projection is None else self.projection(out.pooler_output)
        return AlphaClipOutput(
            last_hidden_state=out.last_hidden_state, pooler_output=out.pooler_output,
            hidden_states=out.hidden_states, image_embeds=embeds)


def alpha_clip_vision_tower(path: str | os.PathLike[str],
                            dtype: torch.dtype = torch.float32) -> AlphaClipVisionTower:
    """Load the bare vision tower, in evaluation mode on the CPU.

    The released checkpoints are for research use only.

    Args:
        path: Alpha-CLIP's ``.pth``, or the folder that convert_alpha_clip made of it.
        dtype: Number type of the weights.

    Raises:
        CheckpointError: If the checkpoint is not whole, not Alpha-CLIP or damaged.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        config, weights = read_alpha_clip(path)
        model = build_model(CLIPVisionModelWithProjection, config, weights, dtype, path)
    else:
        held = read_config(path)
        kind, channels = held.get('model_type'), held.get('num_channels', 3)
        if (kind, channels) != ('clip_vision_model', CHANNELS):
            raise CheckpointError(f'{path / "config.json"} holds model_type {kind!r} with '
                                  f'{channels} channels, wanted a converted Alpha-CLIP: '
                                  f"'clip_vision_model' with {CHANNELS}")
        is_bare = held.get('architectures') == ['CLIPVisionModel']
        model = load_model(CLIPVisionModel if is_bare else CLIPVisionModelWithProjection, path,
                           dtype)
    return AlphaClipVisionTower(getattr(model, 'vision_model', model),
                                getattr(model, 'visual_projection', None))


def read_alpha_clip(path: Path) -> tuple[CLIPVisionConfig, dict[str, torch.Tensor]]:
    """Read Alpha-CLIP's ``.pth`` as a CLIPVisionModelWithProjection of four channels.

    Returns:
        Config, with all sizes from the shapes of the weights, and the weights by the names that
        transformers writes.

    Raises:
        CheckpointError: If the file is damaged or a weight is missing, unknown or misshapen.
    """
    weights = _without_prefixes(_load(path))
    adapters = [name for name in weights if 'lora_' in name]
    if adapters:
        raise CheckpointError(f'{path} holds LoRA weights ({_some(adapters)}), wanted {_WANTED}')
    lacking = [name for name in _SIZED if name not in weights]
    if lacking:
        held = f' and holds {_some(weights)}' if weights else ' and holds nothing'
        raise CheckpointError(f'{path} lacks {_some(lacking)}{held}, wanted {_WANTED}')
    for name, dimensions in _SIZED.items():
        if weights[name].ndim != dimensions:
            raise CheckpointError(f'{path} holds {name} of shape {tuple(weights[name].shape)}, '
                                  f'wanted {dimensions} dimensions')
    config, layout = _layout(path, weights)
    lacking = [name for name in layout if name not in weights]
    unknown = [name for name in weights if name not in layout]
    if lacking or unknown:
        faults = [f'lacks {_some(lacking)}'] * bool(lacking)
        faults += [f'holds {_some(unknown)}, which Alpha-CLIP has no place for'] * bool(unknown)
        raise CheckpointError(f'{path} {" and ".join(faults)}; wanted {_WANTED}')
    for name, shape in layout.items():
        if tuple(weights[name].shape) != shape:
            raise CheckpointError(f'{path} holds {name} of shape {tuple(weights[name].shape)}, '
                                  f'wanted {shape} beside the other weights')
    return config, _renamed(weights, config.num_hidden_layers)


def convert_alpha_clip(source: Path, out: Path, *, force: bool = False) -> CLIPVisionConfig:
    """Write Alpha-CLIP's ``.pth`` as a checkpoint folder of transformers, whole or not at all.

    Args:
        source: The ``.pth``.
        out: The folder to make; CLIPVisionModel.from_pretrained takes it, and so does
            alpha_clip_vision_tower.
        force: Replace a folder that was converted before. Any other is never replaced.

    Raises:
        CheckpointError: If the checkpoint is refused.
        OptionError: If out is in the way or cannot be written.
    """
    out = out.expanduser().absolute()
    is_full = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if is_full and not (out.is_dir() and {entry.name for entry in out.iterdir()} <= {*_FILES}):
        raise OptionError(f'{out} is there already and is no converted Alpha-CLIP; choose another '
                          'folder')
    if is_full and not force:
        raise OptionError(f'{out} is there already; choose another folder, or pass --force to '
                          'replace it')
    config, weights = read_alpha_clip(source)
    try:
        _write(out, config, weights, is_full)
    except (OSError, SafetensorError) as error:
        raise OptionError(f'{out} cannot be written ({error}); make room on the disk or choose '
                          'another folder') from error
    return config


def _write(out: Path, config: CLIPVisionConfig, weights: dict[str, torch.Tensor],
           is_full: bool) -> None:
    from safetensors.torch import save_file

    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside out, so that the last step is one rename on one file system.
    with TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as scratch:
        new, old = Path(scratch, 'new'), Path(scratch, 'old')
        new.mkdir()
        (new / _FILES[0]).write_text(config.to_json_string(), encoding='utf-8')
        save_file(weights, new / _FILES[1], metadata={'format': 'pt'})
        let_read(new / _FILES[1], new / _FILES[0])
        if is_full:
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if is_full:
                old.rename(out)
            raise


def _load(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointError(f'{path} is not there; wanted an Alpha-CLIP checkpoint, a .pth '
                              'file or the folder converted from it')
    try:
        held = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many types; code in a pickle is one of the reasons
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f'{path} cannot be read as plain weights, it is damaged, no '
                              f'torch.save() file or holds code: {reason}') from error
    if not isinstance(held, dict) or not all(
            isinstance(name, str) and isinstance(weight, torch.Tensor)
            and weight.is_floating_point() for name, weight in held.items()):
        raise CheckpointError(f'{path} holds {_kind(held)}, wanted {_WANTED}')
    return held


def _kind(held: Any) -> str:
    if not isinstance(held, dict):
        return f'a {type(held).__name__}'
    odd = next((name, value) for name, value in held.items()
               if not (isinstance(name, str) and isinstance(value, torch.Tensor)
                       and value.is_floating_point()))
    what = str(odd[1].dtype) if isinstance(odd[1], torch.Tensor) else type(odd[1]).__name__
    return f'{odd[0]!r} of type {what}'


def _without_prefixes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights without what all of their names begin with in other wrappings."""
    while True:
        prefix = next((prefix for prefix in _PREFIXES
                       if weights and all(name.startswith(prefix) for name in weights)), None)
        if prefix is None:
            return weights
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _layout(path: Path, weights: dict[str, torch.Tensor],
            ) -> tuple[CLIPVisionConfig, dict[str, tuple[int, ...]]]:
    """Return the config that the shapes tell, and each weight's name and shape."""
    width = weights['class_embedding'].shape[0]
    patch = weights['conv1.weight'].shape[-1]
    positions = weights['positional_embedding'].shape[0]
    inner = weights['transformer.resblocks.0.mlp.c_fc.weight'].shape[0]
    out = weights['proj'].shape[1]
    found = (_BLOCK.match(name) for name in weights)
    blocks = 1 + max(int(match[1]) for match in found if match)
    rows = math.isqrt(max(positions - 1, 0))
    if width == 0 or width % _HEAD_WIDTH:
        raise CheckpointError(f'{path} holds class_embedding of width {width}, wanted a multiple '
                              f'of {_HEAD_WIDTH}, the width of a head')
    if rows == 0 or rows * rows != positions - 1:
        raise CheckpointError(f'{path} holds positional_embedding for {positions} tokens, wanted '
                              'a class token and a square of patches')
    layout: dict[str, tuple[int, ...]] = {
        'class_embedding': (width,), 'positional_embedding': (positions, width),
        'conv1.weight': (width, 3, patch, patch), 'conv1_alpha.weight': (width, 1, patch, patch),
        'proj': (width, out),
    }
    norms = ['ln_pre', 'ln_post']
    for block in (f'transformer.resblocks.{index}' for index in range(blocks)):
        norms += [f'{block}.ln_1', f'{block}.ln_2']
        for name, rows_of, columns in (
                ('attn.in_proj', 3 * width, width), ('attn.out_proj', width, width),
                ('mlp.c_fc', inner, width), ('mlp.c_proj', width, inner)):
            layout[f'{block}.{name}.weight'] = (rows_of, columns)
            layout[f'{block}.{name}.bias'] = (rows_of,)
    layout |= {f'{norm}.{part}': (width,) for norm in norms for part in ('weight', 'bias')}
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=inner, projection_dim=out, num_hidden_layers=blocks,
        num_attention_heads=width // _HEAD_WIDTH, num_channels=CHANNELS,
        image_size=rows * patch, patch_size=patch, hidden_act='quick_gelu', layer_norm_eps=1e-5,
        architectures=['CLIPVisionModelWithProjection'])
    return config, layout


def _renamed(weights: dict[str, torch.Tensor], blocks: int) -> dict[str, torch.Tensor]:
    # Original CLIP mixes float16 and float32; one type, and nothing lost.
    types = {weight.dtype for weight in weights.values()}
    common = types.pop() if len(types) == 1 else torch.float32
    held = {name: weight.to(common) for name, weight in weights.items()}
    new = {_OUTER[name]: held[name] for name in _OUTER}
    new['vision_model.embeddings.patch_embedding.weight'] = torch.cat(
        [held['conv1.weight'], held['conv1_alpha.weight']], 1)
    new['visual_projection.weight'] = held['proj'].T
    for index in range(blocks):
        old_block = f'transformer.resblocks.{index}'
        new_block = f'vision_model.encoder.layers.{index}'
        for part in ('weight', 'bias'):
            for name, new_name in _INNER.items():
                new[f'{new_block}.{new_name}.{part}'] = held[f'{old_block}.{name}.{part}']
            for name, third in zip('qkv', held[f'{old_block}.attn.in_proj.{part}'].chunk(3)):
                new[f'{new_block}.self_attn.{name}_proj.{part}'] = third
    # Own memory for each: a file of safetensors takes no two views of one storage.
    return {name: weight.clone(memory_format=torch.contiguous_format)
            for name, weight in new.items()}


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''
    return ', '.join(names[:_NAMES_SHOWN]) + more
