# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import CaptionError, ImageFormatError, RegionError
from caption_ros.pipeline import caption_frame, caption_frames, caption_marked, caption_regions
from caption_ros.region import region_from_box

RGB = np.zeros((8, 10, 3), np.uint8)
LABELS = np.zeros((8, 10), np.uint8)
LABELS[0:2, 0:2], LABELS[4:8, 5:9], LABELS[3, 3] = 4, 2, 9


class FakeCaptioner:
    """Says the label of each region; keeps what it was asked."""

    name, family, focus_modes, device, dtype = 'fake', 'fake', ('crop',), 'cpu', 'float32'

    def __init__(self, answer=None):
        self.calls, self.answer = [], answer

    def caption(self, rgb, regions, options):
        self.calls.append((rgb, list(regions), options))
        if self.answer is not None:
            return self.answer
        return [Caption('scene' if r is None else f'thing {r.label}', 0.5,
                        'none' if r is None else 'crop', r) for r in regions]

    def close(self):
        pass


def _texts(labels, **options):
    options = CaptionOptions(**{'min_region_area_px': 1, **options})
    return [c.text for c in caption_frame(RGB, labels, FakeCaptioner(), options)]


@pytest.mark.parametrize('describe, labels, texts', [
    ('auto', None, ['scene']),
    ('auto', LABELS, ['thing 2', 'thing 4', 'thing 9']),
    ('scene', LABELS, ['scene']),
    ('regions', LABELS, ['thing 2', 'thing 4', 'thing 9']),
    ('both', LABELS, ['scene', 'thing 2', 'thing 4', 'thing 9']),
    ('both', np.zeros_like(LABELS), ['scene']),
    ('scene', np.zeros_like(LABELS), ['scene']),
])
def test_describe_says_what_is_captioned_and_in_which_order(describe, labels, texts):
    assert _texts(labels, describe=describe) == texts


@pytest.mark.parametrize('describe', ['regions', 'both'])
def test_regions_without_a_mask_are_refused(describe):
    with pytest.raises(RegionError, match='there is no mask'):
        _texts(None, describe=describe)


@pytest.mark.parametrize('describe', ['auto', 'regions'])
def test_a_mask_that_is_all_background_is_refused(describe):
    with pytest.raises(RegionError, match='marks no region'):
        _texts(np.zeros_like(LABELS), describe=describe)


def test_small_regions_are_left_out_and_the_largest_kept():
    assert _texts(LABELS, min_region_area_px=2) == ['thing 2', 'thing 4']
    assert _texts(LABELS, max_regions=1) == ['thing 2']
    with pytest.raises(RegionError, match='at least 99 px'):
        _texts(LABELS, min_region_area_px=99)


def test_a_mask_of_another_size_is_scaled_to_the_image():
    double = np.kron(LABELS, np.ones((2, 2), np.uint8))
    captions = caption_frame(RGB, double, FakeCaptioner(), CaptionOptions(min_region_area_px=1))
    assert [c.region.box for c in captions] == [(5, 4, 9, 8), (0, 0, 2, 2), (3, 3, 4, 4)]
    assert {c.region.image_size for c in captions} == {(8, 10)}


def test_all_regions_go_to_the_model_in_one_call_with_the_options():
    fake, options = FakeCaptioner(), CaptionOptions(min_region_area_px=1, num_beams=3)
    caption_frame(RGB, LABELS, fake, options)
    (rgb, regions, passed), = fake.calls
    assert rgb is RGB and passed is options and [r.label for r in regions] == [2, 4, 9]


def test_no_regions_do_not_reach_the_model():
    fake = FakeCaptioner()
    assert caption_regions(RGB, [], fake) == [] and fake.calls == []


def test_a_region_of_another_image_is_refused():
    with pytest.raises(RegionError, match=r'an image of \(99, 99\)'):
        caption_regions(RGB, [region_from_box((0, 0, 2, 2), (99, 99))], FakeCaptioner())


@pytest.mark.parametrize('text', ['', '  \n'])
def test_an_empty_text_is_no_caption(text):
    with pytest.raises(CaptionError, match="'fake' gave an empty caption"):
        caption_frame(RGB, None, FakeCaptioner([Caption(text, 0.5, 'none', None)]))


def test_a_model_that_leaves_a_region_out_is_an_error():
    with pytest.raises(CaptionError, match='gave 0 captions for 3 regions'):
        caption_frame(RGB, LABELS, FakeCaptioner([]), CaptionOptions(min_region_area_px=1))


@pytest.mark.parametrize('rgb', [
    pytest.param(np.zeros((8, 10), np.uint8), id='grey'),
    pytest.param(np.zeros((8, 10, 4), np.uint8), id='four channels'),
    pytest.param(np.zeros((8, 10, 3), np.float32), id='floats'),
    pytest.param(np.zeros((0, 10, 3), np.uint8), id='no rows'),
    pytest.param(None, id='nothing'),
])
def test_what_is_no_image_is_refused(rgb):
    with pytest.raises(ImageFormatError, match=r'must be \(H, W, 3\) uint8'):
        caption_frame(rgb, None, FakeCaptioner())


@pytest.mark.parametrize('describe, labels', [
    ('auto', [7]), ('regions', [7]), ('scene', [None]), ('both', [None, 7])])
def test_marked_regions_are_described_as_those_of_a_mask(describe, labels):
    pointed = region_from_box((1, 1, 3, 3), RGB.shape[:2], 7)
    captions = caption_marked(RGB, [pointed], FakeCaptioner(), CaptionOptions(describe=describe))
    assert [c.region and c.region.label for c in captions] == labels
    with pytest.raises(RegionError):
        caption_marked(RGB, None, FakeCaptioner(), CaptionOptions(describe='regions'))


def test_frames_of_a_batch_get_the_captions_that_each_gets_alone():
    frames = [(RGB, LABELS), (RGB, None), (RGB, LABELS[::-1])]
    options = CaptionOptions(min_region_area_px=1)
    answers = caption_frames(frames, FakeCaptioner(), options)
    assert [[c.to_dict() for c in answer] for answer in answers] == [
        [c.to_dict() for c in caption_frame(rgb, labels, FakeCaptioner(), options)]
        for rgb, labels in frames]
    assert caption_frames([], FakeCaptioner()) == []


def test_a_frame_that_fails_gives_its_error_in_its_place_and_costs_no_other():
    answers = caption_frames([(RGB, None), (RGB, np.zeros_like(LABELS)), (RGB[:, :, :2], None),
                              (RGB, None)], FakeCaptioner())
    assert [[c.text for c in answers[i]] for i in (0, 3)] == [['scene'], ['scene']]
    assert isinstance(answers[1], RegionError) and 'marks no region' in str(answers[1])
    assert isinstance(answers[2], ImageFormatError)


class BatchCaptioner(FakeCaptioner):
    """Keeps how many frames came together; cannot say anything of one region."""

    def __init__(self, mute=None, fails=False):
        super().__init__()
        self.mute, self.fails, self.batches = mute, fails, []

    def caption(self, rgb, regions, options):
        said = super().caption(rgb, regions, options)
        return [c if c.region is None or c.region.label != self.mute
                else Caption('', 0.5, 'crop', c.region) for c in said]

    def caption_frames(self, frames, options):
        self.batches.append(len(frames))
        if self.fails:
            raise CaptionError('out of memory')
        return [self.caption(*frame, options) for frame in frames]


def test_frames_go_to_the_model_as_one_batch():
    model, options = BatchCaptioner(), CaptionOptions(min_region_area_px=1)
    frames = [(RGB, LABELS), (RGB[:, :, :2], None), (RGB, None), (RGB, LABELS)]
    answers = caption_frames(frames, model, options)
    assert model.batches == [3] and isinstance(answers[1], ImageFormatError)
    assert [[c.text for c in answers[i]] for i in (0, 2, 3)] == [
        ['thing 2', 'thing 4', 'thing 9'], ['scene'], ['thing 2', 'thing 4', 'thing 9']]


@pytest.mark.parametrize('model', [BatchCaptioner(mute=9), BatchCaptioner(mute=9, fails=True)])
def test_a_frame_on_which_the_model_fails_costs_no_other_of_its_batch(model):
    options = CaptionOptions(min_region_area_px=1)
    answers = caption_frames([(RGB, None), (RGB, LABELS), (RGB, None)], model, options)
    assert model.batches == [3] and isinstance(answers[1], CaptionError)
    assert [[c.text for c in answers[i]] for i in (0, 2)] == [['scene'], ['scene']]
