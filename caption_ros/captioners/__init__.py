# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Known models, and how a name, a folder or a hub id becomes a captioner.

A captioner's module is imported only when its model is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from caption_ros.captioner import Captioner
from caption_ros.captioners.acceleration import Acceleration, prepare
from caption_ros.errors import CheckpointError
from caption_ros.filtering import CaptionFilter, FilteredCaptioner

_ENCODER_DECODER = 'caption_ros.captioners.encoder_decoder:EncoderDecoderCaptioner'
_BLIP = 'caption_ros.captioners.blip:BlipCaptioner'
_VISION_LANGUAGE = 'caption_ros.captioners.vision_language:VisionLanguageCaptioner'
_LLAVA = 'caption_ros.captioners.llava:LlavaCaptioner'
FAMILIES = {'vision-encoder-decoder': _ENCODER_DECODER, 'blip': _BLIP, 'llava': _LLAVA}
_PACKAGED = 'packaged:'
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[\w.-]+')
_TEXT_FILES = ['*.json', '*.txt', '*.model', '*.jinja']
_WEIGHTS = ('*.safetensors', '*.bin')  # of both, the first is taken


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model before it is loaded.

    Attributes:
        name: Short name.
        family: Kind of model.
        target: ``module:Class`` of its captioner.
        checkpoint: Hub id, or ``packaged:`` and a folder inside the package.
        licence: Licence of the weights.
        focus_modes: Ways to look at a region, the one that auto takes first.
        parameters: Number of weights.
        notes: What it is good for.
        aliases: Other names.
        also: What the user puts beside the checkpoint, by hand.
    """

    name: str
    family: str
    target: str
    checkpoint: str
    licence: str
    focus_modes: tuple[str, ...]
    parameters: int
    notes: str
    aliases: tuple[str, ...] = ()
    also: str = ''

    @property
    def is_packaged(self) -> bool:
        """True when the weights ship with this package."""
        return self.checkpoint.startswith(_PACKAGED)

    @property
    def memory_bytes(self) -> int:
        """Memory of the weights in float32; half of it in bfloat16 and float16."""
        return 4 * self.parameters


_CARDS = (
    ModelCard('tabletop', 'encoder-decoder', _ENCODER_DECODER, 'packaged:weights/tabletop',
              'Apache-2.0', ('alpha',), 4_963_968,
              'ships with the package; knows only its simulated tabletops'),
    ModelCard('vit-gpt2', 'encoder-decoder', _ENCODER_DECODER,
              'nlpconnect/vit-gpt2-image-captioning', 'Apache-2.0', ('crop', 'attention'),
              239_195_904, 'photos; short plain sentences'),
    ModelCard('blip', 'blip', _BLIP, 'Salesforce/blip-image-captioning-base', 'BSD-3-Clause',
              ('crop', 'attention'), 223_971_644, 'photos; takes a prompt', ('blip-base',)),
    ModelCard('blip-large', 'blip', _BLIP, 'Salesforce/blip-image-captioning-large',
              'BSD-3-Clause', ('crop', 'attention'), 446_290_492,
              'photos; longer sentences; takes a prompt'),
    ModelCard('alpha-clip-llava', 'alpha-clip-llava', _LLAVA, 'llava-hf/llava-1.5-7b-hf',
              'code Apache-2.0, weights research use only', ('alpha',), 7_063_627_776,
              'photos; looks at a region in its context; answers questions',
              also="Alpha-CLIP's .pth for L/14 at 336 px (weights for research use only)"),
)
KNOWN = {card.name: card for card in _CARDS}
_BY_NAME = {name: card for card in _CARDS for name in (card.name, *card.aliases)}
FILTERS = {'blip-itm': ModelCard(
    'blip-itm', 'filter', 'caption_ros.captioners.blip_filter:BlipFilter',
    'Salesforce/blip-itm-base-coco', 'BSD-3-Clause', (), 223_744_258,
    'image-text matching; judges captions of every model')}


def models_folder() -> Path:
    """Return the folder that holds one subfolder for each model put there by hand."""
    return Path(os.environ.get('CAPTION_ROS_MODELS') or '~/.cache/caption_ros').expanduser()


def local_checkpoint(card: ModelCard) -> Path | None:
    """Return where a known model lies on this machine, or None."""
    if card.is_packaged:
        folders = [Path(__file__).parent.parent / card.checkpoint.removeprefix(_PACKAGED)]
    else:
        folders = [models_folder() / name for name in (card.name, *card.aliases)]
        folders += _cached(card.checkpoint)
    return next((folder for folder in folders if (folder / 'config.json').is_file()), None)


def ready_checkpoint(card: ModelCard) -> Path | None:
    """Return where a known model lies with what is put beside it by hand, or None."""
    folder = local_checkpoint(card)
    if folder is None or not card.also:
        return folder
    from caption_ros.captioners.llava import lacks_alpha_clip

    return None if lacks_alpha_clip(folder) else folder


def checkpoint_folder(name_or_path: str | Path) -> Path:
    """Return the checkpoint folder of a name, path or hub id; see load_captioner."""
    return _find(os.fspath(name_or_path), _BY_NAME)[0]


def load_captioner(name_or_path: str | Path, *, device: str = 'auto', dtype: str = 'auto',
                   filter_model: str | Path = '',
                   acceleration: Acceleration | None = None) -> Captioner:
    """Load a captioner.

    Args:
        name_or_path: A known name, a checkpoint folder, or a hub id ``owner/name``. Only a hub
            id may reach for the net, and only when it is not in the local cache.
        device: auto, rocm, cuda or cpu.
        dtype: auto, bfloat16, float16, float32 or int8 (CPU only).
        filter_model: A filter for its captions: ``blip-itm``, a folder or a hub id of a
            BlipForImageTextRetrieval; none when empty.
        acceleration: What may be done for speed; the defaults of Acceleration if None.

    Raises:
        CheckpointError: If a model is unknown, not here, damaged or of another family.
        OptionError: If device or dtype cannot be had on this machine, or the model cannot be
            compiled.
    """
    from caption_ros.captioners.devices import resolve_device
    from caption_ros.captioners.loading import read_config

    name = os.fspath(name_or_path)
    if name in FILTERS:
        raise CheckpointError(f'model {name!r} is a filter and says nothing by itself; wanted a '
                              f'captioner ({", ".join(_BY_NAME)}) and this one as its filter')
    acceleration = acceleration or Acceleration()
    torch_device = resolve_device(device)
    prepared = prepare(acceleration, torch_device)  # before anything computes on the device
    # The filter first: it is the smaller of the two, so a mistake shows before the long load.
    caption_filter = _load_filter(os.fspath(filter_model), device, dtype)
    folder, target = _find(name, _BY_NAME)
    if target is None:
        # Of the others, the captioner itself tells those that transformers knows.
        target = FAMILIES.get(str(read_config(folder).get('model_type')), _VISION_LANGUAGE)
    module, _, attribute = target.partition(':')
    captioner = getattr(import_module(module), attribute).load(
        folder, name=name, device=torch_device, dtype=dtype)
    try:
        captioner.accelerate(acceleration, prepared)
    except Exception:
        captioner.close()
        raise
    return FilteredCaptioner(captioner, caption_filter) if caption_filter else captioner


def _load_filter(name: str, device: str, dtype: str) -> CaptionFilter | None:
    if not name:
        return None
    from caption_ros.captioners.blip_filter import BlipFilter
    from caption_ros.captioners.devices import resolve_device

    folder, _ = _find(name, FILTERS)
    return BlipFilter.load(folder, name=name, device=resolve_device(device), dtype=dtype)


def _find(name: str, cards: Mapping[str, ModelCard]) -> tuple[Path, str | None]:
    card = cards.get(name)
    if card is not None:
        folder = local_checkpoint(card)
        if folder is None:
            raise CheckpointError(_how_to_get(name, card))
        return folder, card.target
    if not name.strip():  # else the working directory
        raise CheckpointError(f'model is {name!r}; name one of {", ".join(cards)}, or a folder')
    path = Path(name).expanduser()
    if path.is_dir():
        return path, None
    if path.is_absolute() and not path.exists():
        raise CheckpointError(f'model {name!r} does not exist; wanted the folder that holds '
                              'config.json and the weights')
    if path.exists():
        raise CheckpointError(f'model {name!r} is a file; wanted the folder that holds '
                              'config.json and the weights')
    if _HUB_ID.fullmatch(name):
        return _snapshot(name), None
    raise CheckpointError(f'model {name!r} is unknown; wanted one of {", ".join(cards)}, a '
                          'checkpoint folder or a hub id owner/name')


def _how_to_get(name: str, card: ModelCard) -> str:
    if card.is_packaged:
        return (f'model {name!r} is not in this installation: its folder '
                f'{card.checkpoint.removeprefix(_PACKAGED)} is missing; install the package anew')
    folder = models_folder() / card.name
    return (f'model {name!r} is not on this machine: download {card.checkpoint} on a machine '
            f'with a network (hf download {card.checkpoint} --local-dir {folder}) and put it '
            f'into {folder}, or into the Hugging Face cache'
            + (f'; also put {card.also} into {folder}' if card.also else ''))


def _cached(hub_id: str) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for weights in _WEIGHTS:
        try:
            # Asked for all files, a hub that keeps a repository's list of files misses those
            # that _snapshot leaves out.
            folder = Path(snapshot_download(hub_id, allow_patterns=[*_TEXT_FILES, weights],
                                            local_files_only=True))
        except (LocalEntryNotFoundError, OSError, ValueError):
            continue
        if any(folder.glob(weights)):
            return [folder]
    return []


def _snapshot(hub_id: str) -> Path:
    if cached := _cached(hub_id):
        return cached[0]
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*_TEXT_FILES, '*.safetensors']))
        if not any(folder.glob('*.safetensors')):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*_TEXT_FILES, '*.bin']))
    except Exception as error:  # no network, no such repository, no right to read it, ...
        reason = ' '.join(str(error).split())[:200]
        raise CheckpointError(
            f'model {hub_id!r} is neither a folder nor in the Hugging Face cache, and it cannot '
            f'be downloaded ({reason}); download it on a machine with a network and pass the '
            'folder') from error
    return folder
