# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint folder to a model, its tokenizer and its image processor, strictly.

Every error is one sentence with the file, what it holds and what was wanted. Nothing is looked
up on the net here, and code that a checkpoint brings along is never run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caption_ros.captioners.devices import LARGE, cpu_has_bfloat16, has_amx, resolve_dtype
from caption_ros.errors import CheckpointError

_WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin',
            'pytorch_model.bin.index.json')
_TOKENIZERS = ('tokenizer.json', 'vocab.json', 'vocab.txt', 'tokenizer.model', 'spiece.model',
               'sentencepiece.bpe.model')
_PROCESSORS = ('preprocessor_config.json', 'processor_config.json')
# May be absent: constant buffers, and a pooler, which captioning does not use.
_MAY_LACK = re.compile(r'(^|\.)(position_ids|masked_bias)$|(^|\.)pooler\.')
# May be left over: the same, buffers of older releases, and copies of tied weights.
_MAY_HOLD = re.compile(_MAY_LACK.pattern + r'|(^|\.)(attn|crossattention)\.bias$'
                       r'|(^|\.)lm_head\.weight$|cls\.predictions\.decoder\.')
_NAMES_SHOWN = 4
# A decoder's layers that make keys and values of the encoder's states.
_KEYS_OF_IMAGE = r'\.crossattention\.(c_attn|self\.key|self\.value)$'
_ENCODER = 1_000_000  # weights; below that bfloat16 saves less than it costs to change to it


def read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json of a checkpoint folder holds.

    Raises:
        CheckpointError: If there is none or it is not a JSON object.
    """
    path = folder / 'config.json'
    if not path.is_file():
        raise CheckpointError(f'{folder} holds no config.json, so it is no checkpoint; wanted a '
                              'folder with config.json, weights, tokenizer and '
                              'preprocessor_config.json')
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file of a checkpoint holds.

    Raises:
        CheckpointError: If it is not a JSON object.
    """
    try:
        held = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read as JSON: {one_line(error)}') from error
    if not isinstance(held, dict):
        raise CheckpointError(f'{path} holds a {type(held).__name__}, wanted a JSON object')
    return held


def check_family(folder: Path, model_type: str) -> dict[str, Any]:
    """Return the config of a folder whose model_type must be the given one."""
    config = read_config(folder)
    if config.get('model_type') != model_type:
        raise CheckpointError(f'{folder / "config.json"} holds model_type '
                              f'{config.get("model_type")!r}, wanted {model_type!r}')
    return config


def load_model(model_class: Any, folder: Path, dtype: Any) -> Any:
    """Load a model with every weight accounted for, in evaluation mode on the CPU.

    Args:
        model_class: Class of transformers with from_pretrained.
        folder: Checkpoint folder.
        dtype: torch number type.

    Raises:
        CheckpointError: If weights are missing, left over, of other shapes or damaged.
    """
    _check_file(folder, _WEIGHTS, 'weights')
    with quiet():
        try:
            model, info = model_class.from_pretrained(
                folder, dtype=dtype, local_files_only=True, trust_remote_code=False,
                ignore_mismatched_sizes=True,  # else their names would be in the log alone
                output_loading_info=True)
        except Exception as error:  # safetensors, torch and transformers raise many types
            name = next(name for name in _WEIGHTS if (folder / name).exists())
            raise CheckpointError(f'{folder / name} cannot be loaded as '
                                  f'{model_class.__name__}, it is damaged or of another model: '
                                  f'{one_line(error)}') from error
    _refuse_gaps(model, info, folder)
    return model.eval()


def load_fast(load: Callable[[Any], Any], folder: Path, device: str, dtype: str,
              encoder: str = '') -> Any:
    """Load a model on its device, each part in the way that is fastest there.

    Args:
        load: Loads it in a torch number type, on the CPU.
        folder: Checkpoint folder, for its size.
        device: torch's name of the device.
        dtype: auto or a name of DTYPES.
        encoder: Name of the model's image encoder, if that may compute in bfloat16 beside a
            decoder in float32 or int8.

    Raises:
        OptionError: If the device cannot compute in dtype.
    """
    import torch

    from caption_ros.captioners.kernels import load_kernels
    from caption_ros.captioners.linears import can_pack, pack_linears

    size = weights_size(folder)
    number = resolve_dtype(dtype, device, size)
    int8 = number is torch.int8
    model = load(torch.float32 if int8 else number).to(device)
    # Looking is so much arithmetic at once that AMX has it done sooner in bfloat16 than int8.
    wide = bool(int8 and encoder and has_amx() and can_pack(torch.bfloat16)
                and _weights(model.get_submodule(encoder)) >= _ENCODER)
    if wide:
        model.get_submodule(encoder).to(torch.bfloat16)
    # A small model fits into the cache, where packing gains nothing.
    if int8 or (device == 'cpu' and size >= LARGE and number is not torch.float16):
        load_kernels()  # in float32 for drafts
        looking = re.compile(rf'^{re.escape(encoder)}\.|{_KEYS_OF_IMAGE}') if encoder else None
        pack_linears(model, int8=int8, looking=looking, wide=wide)
    # A caption's token is too little work for bfloat16 to pay in a small decoder; an image is not.
    if (dtype == 'auto' and encoder and device == 'cpu' and number is torch.float32
            and cpu_has_bfloat16() and _weights(model.get_submodule(encoder)) >= _ENCODER):
        model.get_submodule(encoder).to(torch.bfloat16)
    if device == 'cpu':
        from caption_ros.captioners.patches import cut_by_matrices

        cut_by_matrices(model)
        if encoder and size >= LARGE:  # a small one is traced, which fixes the number of products
            from caption_ros.captioners.products import attend_by_products

            attend_by_products(model.get_submodule(encoder))
    return model


def _weights(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())


def build_model(model_class: Any, config: Any, weights: dict[str, Any], dtype: Any,
                source: Path) -> Any:
    """Make a model of weights at hand, with every one accounted for, as load_model does.

    Args:
        model_class: Class of transformers with from_pretrained.
        config: Its config.
        weights: Tensors by the names that transformers writes.
        dtype: torch number type.
        source: Where the weights are from.

    Raises:
        CheckpointError: If weights are missing, left over or of other shapes.
    """
    with quiet():  # and not through the class itself, which would draw random weights first
        model, info = model_class.from_pretrained(None, config=config, state_dict=weights,
                                                  dtype=dtype, output_loading_info=True)
    _refuse_gaps(model, info, source)
    return model.eval()


def _refuse_gaps(model: Any, info: dict[str, Any], source: Path) -> None:
    """Raise CheckpointError where transformers reports a weight that fits nothing."""
    tied = {str(name) for name in getattr(model, 'all_tied_weights_keys', None) or ()}
    for kind, said, harmless in (
            ('missing_keys', 'lacks weights', _MAY_LACK),
            ('mismatched_keys', 'holds weights of other shapes', None),
            ('unexpected_keys', 'holds weights that the model has no place for', _MAY_HOLD)):
        names = sorted(str(key[0] if isinstance(key, tuple) else key)
                       for key in info.get(kind, ()))
        names = [name for name in names
                 if name not in tied and not (harmless and harmless.search(name))]
        if names:
            more = f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''
            raise CheckpointError(f'{source} {said} for {type(model).__name__}: '
                                  f'{", ".join(names[:_NAMES_SHOWN])}{more}')


def weights_size(folder: Path) -> int:
    """Return roughly the number of parameters of a checkpoint, from the size of its files."""
    sizes = [sum(path.stat().st_size for path in folder.glob(pattern))
             for pattern in ('*.safetensors', 'pytorch_model*.bin')]
    return (sizes[0] or sizes[1]) // 4  # a folder may hold the same weights in both


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    _check_file(folder, _TOKENIZERS, 'tokenizer')
    from transformers import AutoTokenizer

    return _load_part(AutoTokenizer, folder, 'tokenizer')


def load_processor(folder: Path) -> Any:
    """Load the image processor of a checkpoint folder.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    _check_file(folder, _PROCESSORS, 'image processor')
    from transformers import AutoImageProcessor

    return _load_part(AutoImageProcessor, folder, 'image processor')


def load_whole_processor(processor_class: Any, folder: Path) -> Any:
    """Load the tokenizer and the image processor of a checkpoint folder as one.

    Args:
        processor_class: Class of transformers with from_pretrained.
        folder: Checkpoint folder.

    Raises:
        CheckpointError: If one of them is missing or damaged.
    """
    _check_file(folder, _TOKENIZERS, 'tokenizer')
    _check_file(folder, _PROCESSORS, 'image processor')
    return _load_part(processor_class, folder, 'processor')


def _load_part(loader: Any, folder: Path, what: str) -> Any:
    with quiet():
        try:
            return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise CheckpointError(f'{folder} holds a {what} that cannot be loaded: '
                                  f'{one_line(error)}') from error


def _check_file(folder: Path, names: tuple[str, ...], what: str) -> None:
    if not any((folder / name).is_file() for name in names):
        raise CheckpointError(f'{folder} holds no {what}; wanted one of {", ".join(names)}')


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' loading report and bar: what matters becomes an error."""
    from transformers.utils import logging as hf_logging

    logger = logging.getLogger('transformers')
    level, bars = logger.level, hf_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            hf_logging.enable_progress_bar()


def let_read(weights: Path, like: Path) -> None:
    """Let those read a file of weights who may read another; safetensors lets nobody else."""
    weights.chmod(like.stat().st_mode & 0o777)


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line, at most 400 letters; its type if it has none."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else f'{text[:397]}...'
