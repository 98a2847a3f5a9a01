# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One recording of a fleet to its results, again after each kind of end, and the index."""

import io
import json
import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from caption_ros.bags.frames import Sampling
from caption_ros.bags.job import BagOptions
from caption_ros.bags.journal import Journal
from caption_ros.errors import OptionError
from caption_ros.fleet import run
from caption_ros.fleet.index import SCHEMA, merge_parts
from caption_ros.fleet.run import FleetOptions, caption_fleet
from caption_ros.fleet.storage import find_sources
from caption_ros.fleet.work import Task, caption_source

OPTIONS = BagOptions(captions_only=True)


def _task(place, out, name, options=OPTIONS, token=''):
    (source,) = [one for one in find_sources(str(place), out) if one.name == name]
    return Task(source, out, options, token)


def test_the_index_has_every_caption_with_its_place(fleet, tmp_path, bags, pixels, work):
    out = tmp_path / 'out'
    summary = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    table = pq.read_table(summary.index)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    lines = [(name, json.loads(line)) for name in ('masked', 'plain')
             for line in (out / name / 'captions.jsonl').read_text().splitlines()]
    wanted = [(str(fleet / name), record, caption) for name, record in lines
              for caption in record['captions']]
    assert len(rows) == summary.indexed == len(wanted) > 4
    for row, (bag, record, caption) in zip(rows, wanted):
        assert (row['bag'], row['topic'], row['text'], row['focus'], row['model']) == (
            bag, '/cam/image', caption['text'], caption['focus'], 'pixels')
        assert row['stamp'].value == record['stamp']['sec'] * 10 ** 9 + record['stamp']['nanosec']
        assert row['received'].value == record['received_ns'] == row['stamp'].value + 5_000_000
        assert row['score'] == caption['score'] and row['match'] is None
        region = caption['region']
        box = [row[edge] for edge in ('x0', 'y0', 'x1', 'y1')]
        assert (row['label'], box, row['area_px']) == (
            (region['label'], region['box'], region['area_px']) if region
            else (None, [None] * 4, None))
    assert {row['label'] for row in rows} > {None, 1}


def test_what_is_finished_is_not_done_again_and_starts_no_ray(fleet, tmp_path, pixels, work,
                                                              monkeypatch):
    out = tmp_path / 'out'
    caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    monkeypatch.setattr('caption_ros.fleet.workers.run_tasks', None)
    summary = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    assert (summary.found, summary.finished_before, summary.indexed > 0) == (2, 2, True)
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_new_and_changed_recordings_are_done_and_the_index_has_all(fleet, tmp_path, bags, pixels,
                                                                   work):
    out = str(tmp_path / 'out')
    caption_fleet(str(fleet), out, lambda: pixels, OPTIONS)
    work.clear()
    bags.write(tmp_path / 'other', bags.camera(2), 'mcap')
    (tmp_path / 'other/other.mcap').replace(fleet / 'plain/plain.mcap')
    (tmp_path / 'other/metadata.yaml').write_text(
        (tmp_path / 'other/metadata.yaml').read_text().replace('other.mcap', 'plain.mcap'))
    (tmp_path / 'other/metadata.yaml').replace(fleet / 'plain/metadata.yaml')
    bags.write(fleet / 'new', bags.camera(1))
    summary = caption_fleet(str(fleet), out, lambda: pixels, OPTIONS)
    assert sorted(work) == ['new', 'plain'] and not summary.failed
    bags_of_rows = pq.read_table(summary.index)['bag'].to_pylist()
    assert [bags_of_rows.count(str(fleet / name)) for name in ('new', 'plain')] == [1, 2]


def test_other_settings_are_refused_until_forced(fleet, tmp_path, pixels, work):
    out = str(tmp_path / 'out')
    caption_fleet(str(fleet), out, lambda: pixels, OPTIONS)
    every = BagOptions(captions_only=True, sampling=Sampling(every_s=0.2))
    with pytest.raises(OptionError, match='is of a run with every_s 0.0, got 0.2; .* '
                       'start over with --force'):
        caption_fleet(str(fleet), out, lambda: pixels, every)
    summary = caption_fleet(str(fleet), out, lambda: pixels, every, FleetOptions(force=True))
    assert sum(outcome.frames for outcome in summary.done.values()) == 4
    indexed = pq.read_table(summary.index)['bag'].to_pylist()
    assert indexed.count(str(fleet / 'plain')) == 2


@pytest.mark.parametrize('token', ['', 'forced'])
def test_a_worker_that_died_after_its_last_frame_lost_nothing(fleet, tmp_path, pixels, token):
    out = tmp_path / 'out'
    task = _task(fleet, str(out), 'plain', token=token)
    caption_source(task, lambda: pixels)
    (out / 'plain/captions.parquet').unlink()  # the last that is written
    outcome = caption_source(task, lambda: pixels)
    assert (outcome.captions, outcome.frames, outcome.error, pixels.calls) == (3, 3, '', 3)
    other = _task(fleet, str(out), 'plain', token=f'{token} again')
    assert caption_source(other, lambda: pixels).error == '' and pixels.calls == 6


def test_a_worker_that_died_between_batches_lost_none_of_them(fleet, tmp_path, bags):
    class Killed(BaseException):
        """What nobody catches, as a signal."""

    class Dying(bags.captioner):
        def caption(self, rgb, regions, options):
            if self.calls == 2:
                raise Killed
            return super().caption(rgb, regions, options)

    task = _task(fleet, str(tmp_path / 'out'), 'plain', replace(OPTIONS, batch=2))
    with pytest.raises(Killed):
        caption_source(task, Dying)
    next_one = bags.captioner()
    assert caption_source(task, lambda: next_one).captions == 3 and next_one.calls == 1


def test_results_of_others_are_neither_taken_nor_overwritten(fleet, tmp_path, pixels):
    (tmp_path / 'out/plain').mkdir(parents=True)
    (tmp_path / 'out/plain/captions.jsonl').write_text('mine')
    task = _task(fleet, str(tmp_path / 'out'), 'plain')
    for _ in range(2):
        outcome = caption_source(task, lambda: pixels)
        assert 'captions.jsonl exists' in outcome.error and outcome.is_final
    assert (tmp_path / 'out/plain/captions.jsonl').read_text() == 'mine'
    forced = _task(fleet, str(tmp_path / 'out'), 'plain', token='forced')
    assert caption_source(forced, lambda: pixels).captions == 3


def test_starting_over_leaves_a_run_in_progress_alone(fleet, tmp_path, pixels):
    folder = tmp_path / 'out/plain'
    (folder / '.captions.mcap.unfinished').mkdir(parents=True)
    (folder / 'captions.parquet').write_text('of the run in progress')
    other = Journal(folder / 'captions.jsonl.part', {'out': 'captions.mcap'})
    before = {path: path.stat() for path in folder.iterdir()}
    forced = _task(fleet, str(tmp_path / 'out'), 'plain', token='forced')
    assert 'another run writes' in caption_source(forced, lambda: pixels).error
    assert {path: path.stat() for path in folder.iterdir()} == before and len(before) == 3
    other.close()
    assert caption_source(forced, lambda: pixels).captions == 3


def test_a_name_that_is_no_text_costs_only_its_own_recording(fleet, tmp_path, bags, pixels, work):
    path = bags.write(tmp_path / 'more', bags.camera(1), 'mcap') / 'more.mcap'
    path.rename(fleet / os.fsdecode(b'caf\xe9.mcap'))
    summary = caption_fleet(str(fleet), str(tmp_path / 'out'), lambda: pixels, OPTIONS)
    (outcome,) = summary.failed.values()
    assert 'caf\\udce9.mcap has a name that is not UTF-8' in outcome.error and outcome.is_final
    assert len(summary.done) == 2 and summary.indexed
    (failed,) = [json.loads(line) for line in (tmp_path / 'out/failed.jsonl').open()]
    assert os.fsencode(failed['name']) == b'caf\xe9.mcap'


def test_recordings_and_results_may_lie_elsewhere(fleet, tmp_path, pixels, work, memory,
                                                      copy_to_memory):
    copy_to_memory(fleet)
    summary = caption_fleet('memory://robots', 'memory://results', lambda: pixels, OPTIONS)
    assert not summary.failed and summary.indexed == len(
        pq.read_table(io.BytesIO(memory.cat_file('/results/index.parquet'))))
    assert {path.rpartition('/')[2] for path in memory.find('/results/plain')} == {
        'captions.jsonl', 'captions.mcap', 'captions.parquet', 'captions.srt', 'captions.vtt',
        'run.json'} | {path.rpartition('/')[2] for path in memory.find('/results/plain')
                       if path.endswith('.html')}
    work.clear()
    assert caption_fleet('memory://robots', 'memory://results', lambda: pixels,
                         OPTIONS).finished_before == 2 and not work


def test_what_fails_is_told_and_whether_trying_again_may_help(fleet, tmp_path, bags, work):
    (fleet / 'broken.mcap').write_bytes(b'junk')
    bags.write(fleet / 'talk', [('/said', 1, bags.text('hello'))])
    failing = bags.captioner(fails_at=range(100))
    tasks = {name: _task(fleet, str(tmp_path / 'out'), name)
             for name in ('plain', 'broken.mcap', 'talk')}
    outcomes = {name: caption_source(task, lambda: failing) for name, task in tasks.items()}
    assert not outcomes['plain'].is_final or 'nothing was captioned' in outcomes['plain'].error
    assert 'cannot be read as a recording' in outcomes['broken.mcap'].error
    assert 'has no image topic, only std_msgs/msg/String' in outcomes['talk'].error
    assert outcomes['broken.mcap'].is_final and outcomes['talk'].is_final

    def gone():
        raise ConnectionResetError('the store went away')
    summary = caption_fleet(str(fleet), str(tmp_path / 'out'), gone, OPTIONS)
    assert len(summary.failed) == 4
    assert not summary.failed[str(fleet / 'masked')].is_final
    failed = [json.loads(line) for line in (tmp_path / 'out/failed.jsonl').open()]
    assert {one['name'] for one in failed} == {'masked', 'plain', 'broken.mcap', 'talk'}
    for path in ('broken.mcap',):
        (fleet / path).unlink()
    (fleet / 'talk/metadata.yaml').unlink()
    for path in (fleet / 'talk').iterdir():
        path.unlink()
    good = bags.captioner()
    assert not caption_fleet(str(fleet), str(tmp_path / 'out'), lambda: good, OPTIONS).failed
    assert not (tmp_path / 'out/failed.jsonl').exists()


def test_a_recording_of_which_nothing_is_captioned_has_failed(fleet, tmp_path, bags, pixels):
    last_s = 2 * bags.step_ns / 1e9  # of the last image; something else comes 1 us later
    options = BagOptions(captions_only=True, sampling=Sampling(start_s=last_s + 5e-7))
    outcome = caption_source(_task(fleet, str(tmp_path / 'out'), 'plain', options),
                             lambda: pixels)
    assert outcome.error.startswith('nothing was captioned') and outcome.is_final


def test_merging_keeps_all_rows_of_small_and_large_parts(tmp_path, monkeypatch):
    import pyarrow as pa
    monkeypatch.setattr('caption_ros.fleet.index._ROWS', 5)
    parts = []
    for i, count in enumerate((3, 0, 12, 1)):
        table = pa.Table.from_pylist([{'bag': f'{i}', 'text': f'{j}'} for j in range(count)],
                                     SCHEMA)
        parts.append(io.BytesIO())
        pq.write_table(table, parts[-1])
    out = io.BytesIO()
    assert merge_parts(parts, out) == 16
    rows = pq.read_table(out).to_pylist()
    assert [(row['bag'], row['text']) for row in rows] == [
        (f'{i}', f'{j}') for i, count in enumerate((3, 0, 12, 1)) for j in range(count)]


@pytest.mark.parametrize(('options', 'said'), [
    ({'workers': 0}, 'workers must be 1 to 100000, got 0'),
    ({'cpus_per_worker': 0}, 'cpus-per-worker must be 1 to 1024'),
    ({'gpus_per_worker': -1}, 'gpus-per-worker must be 0 to 1 or a whole number, got -1'),
    ({'gpus_per_worker': 1.5}, 'gpus-per-worker must be 0 to 1 or a whole number, got 1.5'),
    ({'retries': -1}, 'retries must be 0 to 100, got -1'),
    ({'pin': True, 'ray': 'auto'}, 'pin binds workers to the cores of this machine'),
])
def test_impossible_fleets_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        FleetOptions(**options)


def test_module_reads_no_ray_before_there_is_work():
    assert not hasattr(run, 'ray')
