# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``caption-ros image`` with a model that answers by the label; test_cli runs the real one."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from caption_ros import captioners
from caption_ros.caption import Caption
from caption_ros.cli import app
from caption_ros.errors import CaptionError, ImageFormatError, OptionError, RegionError
from caption_ros.filtering import FilteredCaptioner


class FakeCaptioner:
    """Says the colour of the image's corner and the label of each region."""

    family, focus_modes, device, dtype = 'fake', ('alpha', 'crop'), 'cpu', 'float32'

    def __init__(self, name):
        self.name, self.options = name, []

    def caption(self, rgb, regions, options):
        self.options.append(options)
        if rgb[0, 0, 0] == 13:
            raise CaptionError('model fake failed')
        return [Caption(f'{rgb[0, 0, 0]} scene' if r is None else f'{rgb[0, 0, 0]} {r.label}',
                        0.5, 'none' if r is None else 'alpha', r) for r in regions]

    def problems(self):
        return ['it is slow'] if self.name == 'slow' else []

    def close(self):
        pass


class Doubter:
    """A filter that believes nothing of the grey 20."""

    name = 'doubter'

    def match(self, rgb, regions, texts):
        return [0.1 if text.startswith('20') else 0.9 for text in texts]


@pytest.fixture
def loaded(monkeypatch):
    made = []

    def load(name, *, device, dtype, filter_model=''):
        made.append(FakeCaptioner(name))
        return FilteredCaptioner(made[-1], Doubter()) if filter_model else made[-1]
    monkeypatch.setattr(captioners, 'load_captioner', load)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch, loaded):
    monkeypatch.chdir(tmp_path)
    for name, grey in (('a', 10), ('b', 20), ('fails', 13)):
        Image.fromarray(np.full((20, 30, 3), grey, np.uint8)).save(f'{name}.png')
    labels = np.zeros((20, 30), np.uint8)
    labels[:, :10], labels[:, 20:] = 3, 8
    Image.fromarray(labels).save('labels.png')
    Image.fromarray(np.kron(labels, np.ones((2, 2), np.uint8))).save('double.png')
    Image.fromarray((labels == 3).astype(np.uint8) * 255).convert('RGB').save('mask.png')
    Image.fromarray(labels * 0).save('background.png')
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n half')
    return tmp_path


def _run(*words):
    return CliRunner().invoke(app, ['image', *map(str, words)])


def _texts(result):
    assert result.exit_code == 0, (result.stderr, result.exception)
    return [c['text'] for line in result.stdout.splitlines()
            for c in json.loads(line)['captions']]


def test_one_line_for_each_caption_of_each_file(folder):
    done = _run('a.png', 'b.png', '--mask', 'labels.png', '--describe', 'both')
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        'a.png: 10 scene (0.50)', 'a.png: region 3 [0, 0, 10, 20]: 10 3 (0.50)',
        'a.png: region 8 [20, 0, 30, 20]: 10 8 (0.50)',
        'b.png: 20 scene (0.50)', 'b.png: region 3 [0, 0, 10, 20]: 20 3 (0.50)',
        'b.png: region 8 [20, 0, 30, 20]: 20 8 (0.50)']


def test_json_is_one_object_for_each_file(folder):
    done = _run('a.png', 'b.png', '--mask', 'mask.png', '--json')
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {'file': name, 'model': 'tabletop', 'captions': [
            {'text': text, 'score': 0.5, 'focus': 'alpha',
             'region': {'label': 255, 'box': [0, 0, 10, 20], 'area_px': 200}}]}
        for name, text in (('a.png', '10 255'), ('b.png', '20 255'))]
    assert done.stderr == ''


@pytest.mark.parametrize('words, texts', [
    ([], ['10 scene']),
    (['--mask', 'labels.png'], ['10 3', '10 8']),
    (['--mask', 'labels.png', '--mask', 'mask.png'], ['10 3', '10 8', '10 255']),
    (['--mask', 'labels.png', '--mask', 'mask.png', '--describe', 'both'],
     ['10 scene', '10 3', '10 8', '10 255']),
    (['--mask', 'labels.png', '--mask', 'mask.png', '--describe', 'scene'], ['10 scene']),
    (['--mask', 'background.png', '--describe', 'both'], ['10 scene']),
    (['--mask', 'double.png'], ['10 3', '10 8']),
    (['--box', 1, 2, 5, 9], ['10 None']),
    (['--box', 1, 2, 5, 9, '--describe', 'both'], ['10 scene', '10 None']),
    (['--box', 1, 2, 5, 9, '--describe', 'scene'], ['10 scene']),
])
def test_what_is_described(words, texts, folder):
    assert _texts(_run('a.png', '--json', *words)) == texts


def test_options_reach_the_model(folder, loaded):
    _run('a.png', '--num-beams', 3, '--max-new-tokens', 9, '--focus', 'crop', '--prompt', 'a',
         '--model', 'other')
    (captioner,) = loaded
    (options,) = captioner.options
    assert (captioner.name, options.num_beams, options.max_new_tokens, options.focus,
            options.prompt) == ('other', 3, 9, 'crop', 'a')


@pytest.mark.parametrize('words', [(), ('--filter', 'doubter')])
def test_what_is_not_as_asked_for_is_told(words, folder):
    done = _run('a.png', '--model', 'slow', *words)
    assert (done.exit_code, done.stderr) == (0, 'caption-ros: it is slow\n')
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize('bad', ['broken.png', 'missing.png', 'fails.png', '.'])
def test_a_bad_file_among_several_is_one_line_and_the_others_go_on(bad, folder):
    done = _run('a.png', bad, 'b.png', '--model', 'other')
    assert done.exit_code == 1
    assert done.stdout.splitlines() == ['a.png: 10 scene (0.50)', 'b.png: 20 scene (0.50)']
    first, last = done.stderr.splitlines()
    assert first.startswith('caption-ros: ') and first.count(bad) >= 1
    assert last == 'caption-ros: 1 of 3 pictures failed'


def test_a_box_outside_one_of_several_pictures_does_not_stop_the_others(folder):
    Image.new('RGB', (90, 90), (40, 40, 40)).save('large.png')
    done = _run('a.png', 'large.png', '--box', 60, 60, 80, 80)
    assert done.exit_code == 1 and 'covers nothing of an image of 30x20' in done.stderr
    assert done.stdout == 'large.png: region [60, 60, 80, 80]: 40 None (0.50)\n'


@pytest.mark.parametrize('words, error, text', [
    (['a.png', '--mask', 'mask.png', '--box', 1, 2, 5, 9], OptionError, 'choose one'),
    (['a.png', '--describe', 'regions'], OptionError, 'give --mask or --box'),
    (['a.png', 'b.png', '--describe', 'both'], OptionError, 'give --mask or --box'),
    (['a.png', '--focus', 'attention'], OptionError, 'it has alpha, crop'),
    (['a.png', '--mask', 'background.png'], RegionError, 'marks no region'),
    (['broken.png'], ImageFormatError, 'broken.png'),
    (['fails.png'], CaptionError, 'model fake failed'),
])
def test_bad_input_is_an_error_of_the_package(words, error, text, folder):
    done = _run(*words)
    assert isinstance(done.exception, error) and text in str(done.exception)
    assert done.stdout == done.stderr == ''


def test_a_broken_mask_shows_before_the_model_is_loaded(folder, loaded):
    done = _run('a.png', 'b.png', '--mask', 'broken.png')
    assert isinstance(done.exception, ImageFormatError) and 'broken.png' in str(done.exception)
    assert loaded == []


@pytest.mark.parametrize('words, is_said', [
    (['a.png', 'b.png'], True), (['a.png', '--json'], False), (['a.png', '--model', 'x'], False)])
def test_the_limits_of_tabletop_are_said_once_and_not_beside_json(words, is_said, folder):
    assert _run(*words).stderr.count('for photographs choose') == is_said


def test_what_the_filter_holds_back_is_told_apart(folder):
    lines = _run('a.png', 'b.png', '--filter', 'blip-itm').stdout.splitlines()
    assert lines == ['a.png: 10 scene (0.50, match 0.90)',
                     'b.png: (held back: 20 scene) (0.50, match 0.10)']
    done = _run('a.png', 'b.png', '--filter', 'blip-itm', '--json').stdout.splitlines()
    kept, held = map(json.loads, done)
    assert [c['match'] for c in kept['captions']] == [0.9] and 'held_back' not in kept
    assert held['captions'] == [] and held['held_back'][0]['text'] == '20 scene'


def test_candidates_without_a_filter_are_refused(folder, loaded):
    done = _run('a.png', '--candidates', 4)
    assert isinstance(done.exception, OptionError) and not loaded


def test_regions_that_are_left_out_are_told(folder):
    done = _run('a.png', 'b.png', '--mask', 'labels.png', '--max-regions', 1, '--model', 'x')
    assert done.stdout.splitlines() == ['a.png: region 3 [0, 0, 10, 20]: 10 3 (0.50)',
                                        'b.png: region 3 [0, 0, 10, 20]: 20 3 (0.50)']
    assert done.stderr == ('note: labels.png marks 2 regions, described are the largest 1; raise '
                           '--max-regions\n')
