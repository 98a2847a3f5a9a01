# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import OptionError
from caption_ros.filtering import FilteredCaptioner
from caption_ros.pipeline import caption_frame

RGB = np.zeros((4, 8, 3), np.uint8)
LABELS = np.repeat([[1, 1, 1, 1, 2, 2, 2, 2]], 4, axis=0).astype(np.uint8)
ANY = CaptionOptions(min_region_area_px=1)


class Sayer:
    name, family, focus_modes, device, dtype = 'sayer', 'fake', ('crop',), 'cpu', 'float32'

    def __init__(self, *texts):
        self.texts = list(texts)
        self.asked = []
        self.closed = False

    def caption(self, rgb, regions, options):
        self.asked.append(([region and region.label for region in regions], options))
        return [Caption(self.texts.pop(0), 0.5, 'crop', region) for region in regions]

    def caption_frames(self, frames, options):
        return [self.caption(*frame, options) for frame in frames]

    def close(self):
        self.closed = True


class Judge:
    name = 'judge'

    def __init__(self, **matches):
        self.matches = matches
        self.closed = False

    def match(self, rgb, regions, texts):
        return [self.matches[text] for text in texts]

    def close(self):
        self.closed = True


def test_the_best_candidate_of_each_region_is_kept():
    sayer = Sayer('a', 'b', 'c', 'd')
    captioner = FilteredCaptioner(sayer, Judge(a=0.6, b=0.9, c=0.8, d=0.7))
    captions = caption_frame(RGB, LABELS, captioner, replace(ANY, candidates=2))
    assert [(c.text, c.region.label, c.match) for c in captions] == [('b', 1, 0.9), ('c', 2, 0.8)]
    labels, options = sayer.asked[0]
    assert labels == [1, 1, 2, 2] and options.sample and options.candidates == 1


def test_one_candidate_is_searched_for_and_not_sampled():
    sayer = Sayer('a', 'b')
    caption_frame(RGB, LABELS, FilteredCaptioner(sayer, Judge(a=1, b=1)), ANY)
    assert not sayer.asked[0][1].sample


def test_a_caption_below_the_threshold_is_held_back():
    captioner = FilteredCaptioner(Sayer('a', 'b'), Judge(a=0.49, b=0.5))
    captions = caption_frame(RGB, LABELS, captioner, ANY)
    assert [c.held_back for c in captions] == [True, False]
    assert captions[1].to_dict()['match'] == 0.5


def test_candidates_without_a_filter_are_refused():
    with pytest.raises(OptionError, match='no filter'):
        caption_frame(RGB, LABELS, Sayer('a', 'b'), replace(ANY, candidates=2))


def test_closing_frees_both():
    sayer, judge = Sayer(), Judge()
    FilteredCaptioner(sayer, judge).close()
    assert sayer.closed and judge.closed
