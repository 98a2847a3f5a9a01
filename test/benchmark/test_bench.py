# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from caption_ros.benchmark.agreement import agreement
from caption_ros.benchmark.captions import bench_options, boxes, measure
from caption_ros.benchmark.compare import compare, compare_all
from caption_ros.benchmark.curves import CAMERAS, REGIONS, growth, sharing
from caption_ros.benchmark.plot import plot
from caption_ros.benchmark.published import Published
from caption_ros.benchmark.random_weights import write_random
from caption_ros.caption import Caption
from caption_ros.captioner import CaptionOptions
from caption_ros.captioners import base, checkpoint_folder, load_captioner
from caption_ros.commands.bench import bench
from caption_ros.commands.evaluate import evaluate
from caption_ros.errors import OptionError
from caption_ros.picture import read_picture
from caption_ros.scenes import scene_frame


def test_a_ratio_is_of_medians_and_the_ways_take_turns():
    now, calls = [0.0], []
    spent = {'slow': iter([99, 8, 6, 10]), 'quick': iter([99, 2, 3, 1])}

    def way(name):
        def work():
            calls.append(name)
            now[0] += next(spent[name])
        return work
    ratio = compare('work', way('slow'), way('quick'), 3, lambda: now[0])
    assert calls == ['slow', 'quick'] * 4  # the first round warms up and is not counted
    assert (ratio.published_s, ratio.package_s, ratio.ratio) == (8, 2, 4)
    assert (ratio.low, ratio.high, ratio.rounds) == (2, 10, 3)


def test_several_ways_take_turns_with_one():
    calls = []
    ratios = compare_all(lambda: calls.append('slow'), {
        'first': lambda: calls.append('one'), 'again': lambda: calls.append('two')}, 2)
    assert calls == ['slow', 'one', 'two'] * 3
    assert [ratio.what for ratio in ratios] == ['first', 'again']
    assert ratios[0].published_s == ratios[1].published_s


def test_the_published_way_says_what_the_package_says_of_a_scene():
    folder = checkpoint_folder('tabletop')
    rgb = scene_frame(2000).rgb
    assert Published(folder).caption(rgb, [None], 48) == [
        load_captioner('tabletop').caption(rgb, [None], CaptionOptions())[0].text]


def test_figures_of_a_checkpoint_with_growth_and_plot(tmp_path):
    captioner = load_captioner('tabletop', device='cpu')
    options = bench_options(captioner, '', 2)
    figures = measure(captioner, Published(checkpoint_folder('tabletop')), options,
                      counts=[0, 2], rounds=1)
    figures['growth'] = growth(captioner, options, 1)
    assert [row['what'] for row in figures['ratios']] == [
        'whole scene', 'whole scene, again', '2 regions', '2 regions, again']
    assert all(row['ratio'] > 0 and row['published_s'] > 0 for row in figures['ratios'])
    assert figures['focus'] == 'auto' and figures['dtype'] == captioner.dtype
    grown = figures['growth']
    assert [count for count, _ in grown['regions']] == list(REGIONS)
    assert grown['regions'][-1][1] > grown['regions'][0][1] and grown['peak_memory_mb'] > 100
    assert [count for count, _ in grown['cameras']] == list(CAMERAS)
    assert grown['cameras'][-1][1] > grown['cameras'][0][1]
    json.dumps(figures)
    plot(figures, tmp_path / 'bench.png')
    assert read_picture(tmp_path / 'bench.png').shape[1] > 1800  # five pictures beside another


class _Says:
    """Says the next of its texts, as a captioner and as the published way."""

    def __init__(self, dtype, texts):
        self.dtype, self._texts = dtype, iter(texts)

    def caption(self, rgb, regions, options):
        assert regions == [None]
        return [Caption(next(self._texts), 1.0, 'none', None) if options == CaptionOptions()
                else next(self._texts)]


def test_captions_that_differ_from_the_published_ones_are_counted():
    said = agreement(_Says('bfloat16', 'abcd'), [_Says('float32', 'abxx'),
                                                 _Says('bfloat16', 'abcx')], CaptionOptions(), 4)
    assert said == {'scenes': 4, 'dtype': 'bfloat16', 'equal': {'float32': 0.5,
                                                                'bfloat16': 0.75}}


def test_the_published_way_computes_in_the_dtype_asked_for():
    published = Published(checkpoint_folder('tabletop'), 'bfloat16')
    assert {weight.dtype for weight in published._model.parameters()} == {torch.bfloat16}
    assert agreement(load_captioner('tabletop', device='cpu', dtype='bfloat16'), [published],
                     CaptionOptions(), 2)['equal'] == {'bfloat16': 1.0}


@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_eval_scores_the_dtype_asked_for(dtype, monkeypatch):
    monkeypatch.setattr(base, 'cpu_multiplies', lambda name: name != 'bfloat16')
    app = typer.Typer()
    app.command()(evaluate)
    done = CliRunner().invoke(
        app, ['--scenes', '4', '--device', 'cpu', '--dtype', dtype, '--json'])
    scores = json.loads(done.stdout)
    # With AMX an encoder in bfloat16 stands beside a decoder in int8.
    assert scores['dtype'].split('+')[-1] == dtype and scores['captions'] > 8
    assert scores['phrase_exact'] == 1.0
    assert ('this CPU cannot multiply bfloat16' in done.stderr) is (
        'bfloat16' in scores['dtype'])


class _Calls:
    """Notes what it is asked to caption."""

    def __init__(self):
        self.asked = []

    def caption(self, rgb, regions, options):
        self.asked.append([len(regions)])

    def caption_frames(self, frames, options):
        assert len({rgb.tobytes() for rgb, _ in frames}) == len(frames)
        self.asked.append([len(regions) for _, regions in frames])
        self.last = frames[0][1][0]


def test_cameras_share_a_batch_and_are_timed_in_turns_with_single_calls():
    calls = _Calls()
    cameras, regions = sharing(calls, CaptionOptions(), 2)
    assert calls.asked == [[1] * 4, [1], [1], [1], [1]] * 3 + [[16], [1]] * 3
    assert calls.last is None
    assert (cameras['what'], cameras['of'], cameras['limit']) == (
        '4 cameras', '4 single calls', 0.6)
    assert (regions['what'], regions['of'], regions['limit']) == ('16 regions', '1 region', 5.0)
    assert 0 < regions['low'] <= regions['high']
    sharing(calls, CaptionOptions(), 1, cameras_have_region=True)
    assert calls.last.area_px == 120 * 120


@pytest.mark.parametrize('search, ways', [('compiled', [False, True]), ('generate()', [False])])
def test_new_words_are_timed_without_the_last_ones(search, ways):
    asked = []
    captioner = SimpleNamespace(
        name='fake', device='cpu', dtype='float32', facts=lambda: {'greedy search': search},
        caption=lambda rgb, regions, options: asked.append(options.recall))
    published = SimpleNamespace(caption=lambda rgb, regions, tokens: asked.append('published'))
    figures = measure(captioner, published, CaptionOptions(), counts=[3], rounds=1)
    assert asked == ['published', *ways] * 2
    assert [row['what'] for row in figures['ratios']] == ['3 regions', '3 regions, again'][
        :len(ways)]


def test_attention_is_taken_where_the_model_has_it():
    captioner = load_captioner('tabletop', device='cpu')
    assert bench_options(captioner, '', 16).focus == 'auto'
    captioner.focus_modes = ('crop', 'attention')
    assert bench_options(captioner, '', 16).focus == 'attention'
    assert bench_options(captioner, 'crop', 16).focus == 'crop'


def test_boxes_lie_in_the_image():
    regions = boxes(16, (480, 640))
    assert len(regions) == 16 == len({region.box for region in regions})
    assert all(np.count_nonzero(region.full_mask()) == 120 * 120 for region in regions)


def test_an_architecture_without_random_weights_is_refused(tmp_path):
    with pytest.raises(OptionError, match="no random 'gpt5'; wanted one of vit-gpt2, blip-base"):
        write_random('gpt5', tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_settings_for_speed_are_checked_and_shown(tmp_path):
    app = typer.Typer()
    app.command()(bench)
    done = CliRunner().invoke(app, ['tabletop', '--compile', 'fast'])
    assert isinstance(done.exception, OptionError) and 'compile must be one of' in str(
        done.exception)
    done = CliRunner().invoke(app, [
        'tabletop', '--regions', '1', '--rounds', '1', '--max-new-tokens', '2', '--device', 'cpu',
        '--attention', 'math', '--tunable-op', 'use', '--dtype', 'bfloat16', '--scenes', '1',
        '--json', str(tmp_path / 'figures.json')])
    assert done.exit_code == 0, done.output
    assert 'tunable_op asked for on cpu, and only rocm can do that' in done.output
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert figures['settings']['attention'] == 'math'
    assert set(figures['agreement']['equal']) == {'float32', 'bfloat16'}
    assert 'of 1 scene(s) equal those of generate() in bfloat16' in done.output
    assert 'recalled tokens right: ' in done.output
    new, again = figures['ratios']
    assert again['what'] == f'{new["what"]}, again' and again['published_s'] == new['published_s']
