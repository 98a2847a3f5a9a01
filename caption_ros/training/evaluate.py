# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Scores of a captioner on held-out tabletops."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from caption_ros.captioner import Captioner, CaptionOptions
from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.pipeline import caption_frame
from caption_ros.scenes import FIRST_TRAINING_SEED, Frame, scene_frame
from caption_ros.scenes.vocabulary import COLOURS, SHAPES

_SHAPE = re.compile(r'\b(' + '|'.join(SHAPES) + r')s?\b')
_COLOUR = re.compile(r'\b(' + '|'.join(COLOURS) + r')\b')


@dataclass(frozen=True)
class Scores:
    """Scores over a set of scenes; shares are 0 to 1.

    Attributes:
        scenes: Scenes captioned.
        captions: Captions given, of scenes and regions.
        phrase_exact: Share of region captions equal to the reference.
        scene_exact: Share of scene captions equal to the reference.
        absent_object: Share of captions that name an object which is not in the scene (CHAIRs,
            Rohrbach et al., EMNLP 2018).
        bleu4: BLEU-4 over all captions.
        cider: CIDEr over all captions; 10 is a perfect score.
        worst: Some captions that were wrong, as (seed, caption, reference).
    """

    scenes: int
    captions: int
    phrase_exact: float
    scene_exact: float
    absent_object: float
    bleu4: float
    cider: float
    worst: list[tuple[int, str, str]]

    def to_dict(self) -> dict[str, object]:
        """Return the scores for JSON."""
        return asdict(self)


def names_absent_object(text: str, frame: Frame) -> bool:
    """Tell whether a caption names a kind of object that is not in the scene."""
    present = {item.shape for item in frame.layout.objects}
    return any(shape not in present for shape in _SHAPE.findall(text))


def names_other_region(text: str, label: int, frame: Frame) -> bool:
    """Tell whether a region's caption gives it the kind or colour of another region."""
    own = frame.region_captions[label]
    others = ' '.join(other for key, other in frame.region_captions.items() if key != label)
    return any(set(word.findall(text)) & set(word.findall(others)) - set(word.findall(own))
               for word in (_SHAPE, _COLOUR))


def text_scores(said: Sequence[str], references: Sequence[str]) -> tuple[float, float]:
    """Return BLEU-4 and CIDEr of captions with one reference each (pycocoevalcap).

    Raises:
        CaptionRosError: If pycocoevalcap is not installed.
    """
    Bleu, Cider = _scorers()

    def tokens(texts: Sequence[str]) -> dict[int, list[str]]:
        return {i: [' '.join(re.findall(r'\w+', text.lower()))] for i, text in enumerate(texts)}

    result, truth = tokens(said), tokens(references)
    bleu, _ = Bleu(4).compute_score(truth, result, verbose=0)
    cider, _ = Cider().compute_score(truth, result)
    return float(bleu[3]), float(cider)


def _scorers() -> tuple[Any, Any]:
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise CaptionRosError('scores need pycocoevalcap, which is not installed: '
                              "pip install 'caption_ros[scores]'") from error
    return Bleu, Cider


def _frames(seeds: Sequence[int]) -> Iterator[tuple[int, Frame]]:
    """Give each seed with its frame, while the next one is rendered on a thread."""
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(scene_frame, seeds[0])
        for seed, after in zip(seeds, [*seeds[1:], None]):
            frame = ahead.result()
            if after is not None:
                ahead = pool.submit(scene_frame, after)
            yield seed, frame


def evaluate_tabletop(
    captioner: Captioner, scenes: int = 1000, first_seed: int = 0, *,
    options: CaptionOptions | None = None, progress: Callable[[int], None] | None = None,
) -> Scores:
    """Caption evaluation scenes, whole and per region, and compare with the references.

    Args:
        captioner: Any captioner.
        scenes: Number of scenes, 1 or more.
        first_seed: Seed of the first; all must lie below FIRST_TRAINING_SEED.
        options: Caption options; ``describe`` is set to ``both``.
        progress: Called with the number of scenes done.

    Raises:
        CaptionRosError: If pycocoevalcap is not installed.
        OptionError: If a seed would lie outside the evaluation range.
    """
    _scorers()  # what is not installed shows before the first scene, not after the last
    if scenes < 1 or first_seed < 0 or first_seed + scenes > FIRST_TRAINING_SEED:
        raise OptionError(f'evaluation seeds are 0 to {FIRST_TRAINING_SEED - 1}, got {scenes} '
                          f'scene(s) from {first_seed}')
    settings = asdict(options or CaptionOptions()) | {'describe': 'both', 'max_regions': 16,
                                                      'min_region_area_px': 1}
    both = CaptionOptions(**settings)
    said: list[str] = []
    references: list[str] = []
    hits: dict[str, list[bool]] = {'scene': [], 'region': []}
    absent = 0
    worst: list[tuple[int, str, str]] = []
    seeds = range(first_seed, first_seed + scenes)
    for done, (seed, frame) in enumerate(_frames(seeds), 1):
        for caption in caption_frame(frame.rgb, frame.labels, captioner, both):
            region = caption.region
            truth = frame.scene_caption if region is None \
                else frame.region_captions[int(region.label or 0)]
            said.append(caption.text)
            references.append(truth)
            hits['scene' if region is None else 'region'].append(caption.text == truth)
            absent += names_absent_object(caption.text, frame)
            if caption.text != truth and len(worst) < 20:
                worst.append((seed, caption.text, truth))
        if progress is not None:
            progress(done)
    bleu4, cider = text_scores(said, references)
    return Scores(
        scenes=scenes, captions=len(said),
        phrase_exact=sum(hits['region']) / max(len(hits['region']), 1),
        scene_exact=sum(hits['scene']) / scenes, absent_object=absent / len(said),
        bleu4=bleu4, cider=cider, worst=worst)
