# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs of a fleet that end early, that fail, or that find files of such a run."""

import io
import os

import pyarrow.parquet as pq
import pytest

from caption_ros.bags.job import BagOptions
from caption_ros.errors import OutputError
from caption_ros.fleet.run import FleetOptions, caption_fleet
from caption_ros.fleet.work import caption_source

OPTIONS = BagOptions(captions_only=True)


def test_what_a_run_finished_before_its_end_came_is_in_the_next_index(fleet, tmp_path, bags,
                                                                     pixels, work, monkeypatch):
    out = tmp_path / 'out'
    caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    bags.write(fleet / 'new', bags.camera(1))

    def ended(tasks, load, *others):
        assert [task.source.name for task in tasks] == ['new']
        assert not caption_source(tasks[0], load).error
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr('caption_ros.fleet.workers.run_tasks', ended)
        with pytest.raises(KeyboardInterrupt):
            caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    work.clear()
    summary = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    assert (summary.finished_before, work) == (3, [])
    assert pq.read_table(summary.index)['bag'].to_pylist().count(str(fleet / 'new')) == 1
    assert not [path for path in out.iterdir() if path.name.startswith('.')]


def test_captions_that_a_failed_run_removed_leave_the_index(fleet, tmp_path, bags, pixels, work):
    out = str(tmp_path / 'out')
    caption_fleet(str(fleet), out, lambda: pixels, OPTIONS)

    def gone():
        raise ConnectionResetError('the store went away')
    summary = caption_fleet(str(fleet), out, gone, OPTIONS, FleetOptions(force=True))
    assert len(summary.failed) == 2
    assert summary.indexed == pq.read_table(summary.index).num_rows == 0


def test_an_output_folder_that_cannot_be_written_is_told_before_the_work(fleet, tmp_path, pixels,
                                                                        work):
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(OutputError, match='out/deep cannot be written: .* choose another --out'):
        caption_fleet(str(fleet), str(tmp_path / 'out/deep'), lambda: pixels, OPTIONS)
    assert not work


def test_results_that_were_moved_and_linked_are_in_the_index(fleet, tmp_path, pixels, work):
    out = tmp_path / 'out'
    before = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS).indexed
    (out / 'plain').rename(tmp_path / 'plain')
    (out / 'plain').symlink_to(tmp_path / 'plain')
    (out / 'index.parquet').unlink()
    work.clear()
    assert caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS).indexed == before
    assert not work


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize(('name', 'content'), [
    pytest.param('plain/captions.parquet', b'', id='part, empty'),
    pytest.param('plain/run.json', b'', id='run.json, empty'),
    pytest.param('plain/run.json', bytes(64), id='run.json, zeros'),
    pytest.param('plain/run.json', b'[]', id='run.json, a list'),
    pytest.param('index.parquet', b'', id='index, empty'),
    pytest.param('index.parquet', bytes(64), id='index, zeros'),
])
def test_a_file_that_a_power_cut_emptied_is_made_anew(fleet, tmp_path, pixels, work, name,
                                                      content, force):
    out = tmp_path / 'out'
    before = pq.read_table(caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS).index)
    (out / name).write_bytes(content)
    work.clear()
    summary = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS,
                            FleetOptions(force=force))
    assert not summary.failed and summary.indexed == before.num_rows
    assert pq.read_table(summary.index).equals(before)
    assert force or work == ([] if name == 'index.parquet' else ['plain'])


@pytest.mark.parametrize('damage', [
    pytest.param(lambda content: b'', id='empty'),
    pytest.param(lambda content: bytes(len(content)), id='zeros'),
    pytest.param(lambda content: content[:4] + bytes(400) + content[404:], id='a page'),
    pytest.param(lambda content: content[:-200] + bytes(190) + content[-10:], id='the footer'),
])
def test_a_damaged_part_of_a_recording_that_is_gone_is_named(fleet, tmp_path, bags, pixels, work,
                                                             damage):
    out = tmp_path / 'out'
    caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    part = out / 'plain/captions.parquet'
    part.write_bytes(damage(part.read_bytes()))
    (fleet / 'plain').rename(tmp_path / 'plain')
    bags.write(fleet / 'new', bags.camera(1))
    for _ in range(2):
        with pytest.raises(OutputError, match='plain/captions.parquet cannot be read: .*; if it '
                           'is damaged, remove it and run the same again$'):
            caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    part.unlink()
    work.clear()
    summary = caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    named = set(pq.read_table(summary.index)['bag'].to_pylist())
    assert named == {str(fleet / 'masked'), str(fleet / 'new')} and not work


def test_what_says_that_it_is_finished_is_on_the_disk_first(fleet, tmp_path, pixels, work,
                                                            monkeypatch):
    on_disk, fsync = set(), os.fsync

    def noted(descriptor):
        on_disk.add(os.readlink(f'/proc/self/fd/{descriptor}'))
        fsync(descriptor)
    monkeypatch.setattr(os, 'fsync', noted)
    out = tmp_path / 'out'
    caption_fleet(str(fleet), str(out), lambda: pixels, OPTIONS)
    assert on_disk >= {str(out / name) for name in (
        '.index.parquet.unfinished', 'plain/.run.json.unfinished',
        'plain/.captions.parquet.unfinished')}


@pytest.mark.parametrize('is_torn', [False, True], ids=['refused', 'torn'])
def test_a_recording_whose_upload_broke_at_its_end_is_done_again(
        fleet, tmp_path, bags, pixels, work, memory, copy_to_memory, monkeypatch, is_torn):
    copy_to_memory(fleet)
    caption_fleet('memory://robots', 'memory://results', lambda: pixels, OPTIONS)
    bags.write(tmp_path / 'changed/plain', bags.camera(2), 'mcap')
    copy_to_memory(tmp_path / 'changed')
    put_file = type(memory).put_file

    def broken(self, path, there, **options):
        if 'captions.parquet' not in there:
            return put_file(self, path, there, **options)
        if is_torn:
            self.pipe_file(there, b'PAR1')
        raise ConnectionResetError('the store went away')
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), 'put_file', broken)
        for _ in range(2):
            summary = caption_fleet('memory://robots', 'memory://results', lambda: pixels,
                                    OPTIONS)
            assert list(summary.failed) == ['memory:///robots/plain']
            assert not _in_memory(memory, 'memory:///robots/plain')
    work.clear()
    assert not caption_fleet('memory://robots', 'memory://results', lambda: pixels,
                             OPTIONS).failed
    assert work == ['plain'] and _in_memory(memory, 'memory:///robots/plain') == 2
    assert not [path for path in memory.find('/results') if 'unfinished' in path]


def _in_memory(memory, bag):
    table = pq.read_table(io.BytesIO(memory.cat_file('/results/index.parquet')))
    return table['bag'].to_pylist().count(bag)


def test_an_upload_leaves_nothing_of_a_run_before_it(fleet, pixels, work, memory,
                                                     copy_to_memory):
    copy_to_memory(fleet)
    caption_fleet('memory://robots', 'memory://results', lambda: pixels, OPTIONS)
    memory.pipe_file('/results/plain/notes.txt', b'mine')
    caption_fleet('memory://robots', 'memory://results', lambda: pixels, BagOptions(report=False),
                  FleetOptions(force=True))
    assert {path.rpartition('/')[2] for path in memory.find('/results/plain')} == {
        'captions.jsonl', 'captioned.mcap', 'captions.parquet', 'captions.srt', 'captions.vtt',
        'run.json', 'notes.txt'}
