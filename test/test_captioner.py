# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import pytest

from caption_ros.captioner import CaptionOptions, check_focus
from caption_ros.errors import OptionError

MODEL = SimpleNamespace(name='vit-gpt2', focus_modes=('crop', 'attention'))


@pytest.mark.parametrize('option, value, allowed', [
    pytest.param('focus', 'beam', 'auto, alpha, attention, crop', id='unknown focus'),
    pytest.param('describe', 'all', 'auto, scene, regions, both', id='unknown describe'),
    pytest.param('max_regions', 0, '1..256', id='no regions'),
    pytest.param('max_regions', 257, '1..256', id='too many regions'),
    pytest.param('min_region_area_px', 0, '1..100000000', id='no area'),
    pytest.param('max_new_tokens', 513, '1..512', id='too many tokens'),
    pytest.param('num_beams', 17, '1..16', id='too many beams'),
    pytest.param('num_beams', 2.0, 'whole number', id='a float'),
    pytest.param('num_beams', True, 'whole number', id='a bool'),
    pytest.param('prompt', None, 'text', id='a prompt that is no text'),
])
def test_a_bad_option_names_its_value_and_what_is_allowed(option, value, allowed):
    with pytest.raises(OptionError) as error:
        CaptionOptions(**{option: value})
    text = str(error.value)
    assert text.startswith(option) and repr(value) in text and allowed in text


@pytest.mark.parametrize('options', [
    {'max_regions': 1, 'min_region_area_px': 1, 'max_new_tokens': 1, 'num_beams': 1},
    {'max_regions': 256, 'min_region_area_px': 100_000_000, 'max_new_tokens': 512,
     'num_beams': 16},
])
def test_both_ends_of_a_range_are_allowed(options):
    assert vars(CaptionOptions(**options)).items() >= options.items()


def test_auto_takes_the_first_mode_and_others_must_be_there():
    assert check_focus(MODEL, 'auto') == 'crop'
    assert check_focus(MODEL, 'attention') == 'attention'
    with pytest.raises(OptionError, match="'alpha' is not possible with model 'vit-gpt2': it "
                                          'has crop, attention'):
        check_focus(MODEL, 'alpha')
    with pytest.raises(OptionError, match='focus must be one of'):
        check_focus(MODEL, 'nowhere')


def test_a_prompt_of_ten_thousand_letters_is_refused_without_repeating_it():
    with pytest.raises(OptionError, match='at most 2000 letters, got 10000'):
        CaptionOptions(prompt='x' * 10_000)
    assert CaptionOptions(prompt='x' * 2000).prompt
