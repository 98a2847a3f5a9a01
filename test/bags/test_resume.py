# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs that end early go on, and no run takes what is not its own."""

import hashlib
import json
import os

import numpy as np
import pytest

from caption_ros.bags.frames import Sampling
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.bags.journal import Journal
from caption_ros.captioner import CaptionOptions
from caption_ros.errors import CaptionError, OptionError, OutputError


def _lines(folder):
    return (folder / 'captions.jsonl').read_text().splitlines()


def _digest(path):
    files = [file for file in sorted(path.rglob('*')) if file.is_file()]
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
            for file in files]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize('at', [2, 3, 7])
@pytest.mark.parametrize('torn', [
    b'', b'{"key": ["/cam/image", 14802', b'\xff\x00\n',
    pytest.param(b'{"key": ["/cam/image", 5, 0], "record": {}, "batch_left": 1}\n', id='half')])
def test_an_interrupted_run_ends_with_the_same_captions(at, torn, tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(8, masks=True))
    caption_bag(source, tmp_path / 'whole/o.mcap', lambda: pixels, BagOptions(batch=2))
    dying = bags.captioner()
    caption = dying.caption

    def die(*words):
        if dying.calls == at:
            raise _Killed
        return caption(*words)
    dying.caption = die
    out = tmp_path / 'r/o.mcap'
    with pytest.raises(_Killed):
        caption_bag(source, out, lambda: dying, BagOptions(batch=2))
    assert [p.name for p in out.parent.iterdir()] == ['captions.jsonl.part']
    with (out.parent / 'captions.jsonl.part').open('ab') as file:
        file.write(torn)
    with pytest.raises(OptionError, match='--resume'):
        caption_bag(source, out, lambda: pixels)
    again = bags.captioner()
    summary = caption_bag(source, out, lambda: again, BagOptions(resume=True, batch=2))
    kept = at // 2 * 2
    assert (summary.resumed, again.calls, summary.frames) == (kept, 8 - kept, 8)
    for name in ('captions.jsonl', 'captions.vtt', 'captions.srt', 'report.html'):
        assert (out.parent / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert bags.read(out) == bags.read(tmp_path / 'whole/o.mcap')
    assert caption_bag(source, out, lambda: 1 / 0, BagOptions(resume=True)) is None


def test_other_settings_do_not_go_on_with_a_run(tmp_path, bags):
    source = bags.write(tmp_path / 'in', bags.camera(8))
    with pytest.raises(CaptionError):
        caption_bag(source, tmp_path / 'r/o.db3', lambda: _dead_after(bags, 2),
                    BagOptions(batch=2))
    with pytest.raises(OptionError, match='num_beams 1, got 2'):
        caption_bag(source, tmp_path / 'r/o.db3', bags.captioner, BagOptions(
            resume=True, batch=2, captions=CaptionOptions(num_beams=2)))
    with pytest.raises(OptionError, match="dtype 'auto', got 'bfloat16'"):
        caption_bag(source, tmp_path / 'r/o.db3', bags.captioner, BagOptions(
            resume=True, batch=2, dtype='bfloat16'))
    with pytest.raises(OptionError, match='batch 2, got 4'):
        caption_bag(source, tmp_path / 'r/o.db3', bags.captioner, BagOptions(
            resume=True, batch=4))


def _dead_after(bags, count):
    captioner = bags.captioner()
    caption = captioner.caption

    def run(*words):
        if captioner.calls == count:
            raise CaptionError('no model any more')
        return caption(*words)
    captioner.caption = run
    return captioner


@pytest.mark.parametrize('captions_only', [False, True])
@pytest.mark.parametrize('sampling', [
    Sampling(every_s=0.2), Sampling(on_change=True), Sampling(start_s=0.35),
    Sampling(end_s=1.05), Sampling(start_s=0.2, end_s=1.1, every_s=0.15, on_change=True)])
def test_any_choice_of_frames_goes_on_to_the_same_end(sampling, captions_only, tmp_path, bags,
                                                      pixels):
    source = bags.write(tmp_path / 'in', bags.camera(14, masks=True), 'mcap')
    options = {'sampling': sampling, 'captions_only': captions_only, 'batch': 2}
    caption_bag(source, tmp_path / 'whole/o.db3', lambda: pixels, BagOptions(**options))
    out = tmp_path / 'r/o.db3'
    try:  # with --on-change only some frames of the scene are left
        caption_bag(source, out, lambda: _killed_after(bags, 3), BagOptions(**options))
    except _Killed:
        assert os.listdir(out.parent) == ['captions.jsonl.part']
    caption_bag(source, out, lambda: pixels, BagOptions(**options, resume=True))
    for name in ('captions.jsonl', 'report.html'):
        assert (out.parent / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert bags.read(out) == bags.read(tmp_path / 'whole/o.db3')
    caption_bag(source, out, lambda: pixels, BagOptions(**options, force=True))
    assert bags.read(out) == bags.read(tmp_path / 'whole/o.db3')


def _killed_after(bags, count):
    captioner = bags.captioner()
    caption = captioner.caption

    def run(*words):
        if captioner.calls == count:
            raise _Killed
        return caption(*words)
    captioner.caption = run
    return captioner


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_loop_that_was_recorded_has_its_times_twice(storage, tmp_path, bags, pixels):
    messages, suffix = bags.camera(4, masks=True), {'sqlite3': 'db3', 'mcap': 'mcap'}[storage]
    source = bags.write(tmp_path / 'in', messages, storage)
    bags.write(tmp_path / 'again', messages, storage)
    (tmp_path / f'again/again.{suffix}').rename(source / f'again.{suffix}')
    metadata = (source / 'metadata.yaml').read_text()
    (source / 'metadata.yaml').write_text(metadata.replace(
        f'  - in.{suffix}', f'  - in.{suffix}\n  - again.{suffix}'))
    with pytest.raises(_Killed):
        caption_bag(source, tmp_path / 'r/o.mcap', lambda: _killed_after(bags, 6),
                    BagOptions(batch=1))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels,
                          BagOptions(batch=1, resume=True))
    assert (summary.resumed, summary.frames) == (6, 8)
    times = [bags.start_ns + i * bags.step_ns for i in range(4)]
    assert sorted(t for t, _ in bags.said(tmp_path / 'r/o.mcap')) == sorted(times * 2)
    assert [json.loads(line)['received_ns'] for line in _lines(tmp_path / 'r')] == times * 2
    assert sum(m[0] == '/odometry' for m in bags.read(tmp_path / 'r/o.mcap')) == 8


def test_a_whole_line_without_its_end_is_done_again(tmp_path, bags, pixels):
    source, out = bags.write(tmp_path / 'in', bags.camera(8)), tmp_path / 'r/o.mcap'
    with pytest.raises(CaptionError):
        caption_bag(source, out, lambda: _dead_after(bags, 2), BagOptions(batch=1))
    part = tmp_path / 'r/captions.jsonl.part'
    part.write_bytes(part.read_bytes()[:-1])
    summary = caption_bag(source, out, lambda: pixels, BagOptions(resume=True, batch=1))
    assert (summary.resumed, summary.frames, len(_lines(tmp_path / 'r'))) == (1, 8, 8)


def test_nothing_is_overwritten_without_force(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    out = tmp_path / 'r/out'
    caption_bag(source, out, lambda: pixels)
    before = _digest(out.parent)
    with pytest.raises(OptionError, match='exists.*--force'):
        caption_bag(source, out, lambda: pixels)
    assert _digest(out.parent) == before
    caption_bag(source, out, lambda: pixels, BagOptions(force=True, captions_only=True))
    assert {m[0] for m in bags.read(out)} == {'/caption', '/captions'}
    folder = tmp_path / 'thesis'
    folder.mkdir()
    (folder / 'only copy.txt').write_text('years of work')
    with pytest.raises(OptionError, match='no recording'):
        caption_bag(source, folder, lambda: pixels, BagOptions(force=True))
    assert (folder / 'only copy.txt').is_file()


def test_force_leaves_a_run_in_progress_alone(tmp_path, bags, pixels):
    source, out = bags.write(tmp_path / 'in', bags.camera(2)), tmp_path / 'r/o.mcap'
    (tmp_path / 'r/.o.mcap.unfinished').mkdir(parents=True)
    (tmp_path / 'r/.o.mcap.unfinished/half').write_text('of the run in progress')
    other = Journal(tmp_path / 'r/captions.jsonl.part', {'out': 'o.mcap'})
    before = _digest(tmp_path / 'r')
    with pytest.raises(OptionError, match='another run writes .*captions.jsonl.part; wait'):
        caption_bag(source, out, lambda: pixels, BagOptions(force=True))
    assert _digest(tmp_path / 'r') == before and len(before) == 2
    other.close()
    summary = caption_bag(source, out, lambda: pixels, BagOptions(force=True))
    assert (summary.frames, summary.resumed) == (2, 0)


def test_a_second_out_in_a_folder_never_takes_the_results_of_the_first(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    caption_bag(source, tmp_path / 'r/one.mcap', lambda: pixels)
    before = _digest(tmp_path / 'r')
    with pytest.raises(OptionError, match='captions.jsonl|report.html.* exists'):
        caption_bag(source, tmp_path / 'r/two.mcap', lambda: pixels)
    with pytest.raises(OptionError, match='r has results of another OUT .captions.jsonl.'):
        caption_bag(source, tmp_path / 'r/two.mcap', lambda: pixels, BagOptions(force=True))
    assert _digest(tmp_path / 'r') == before
    with pytest.raises(_Killed):
        caption_bag(source, tmp_path / 'p/one.mcap', lambda: _killed_after(bags, 1),
                    BagOptions(batch=1))
    part = (tmp_path / 'p/captions.jsonl.part').read_bytes()
    for options in (BagOptions(force=True), BagOptions(resume=True), BagOptions()):
        with pytest.raises(OptionError, match='one.mcap|unfinished run'):
            caption_bag(source, tmp_path / 'p/two.mcap', lambda: pixels, options)
    assert (tmp_path / 'p/captions.jsonl.part').read_bytes() == part


def test_an_in_where_results_would_go_is_never_touched(tmp_path, bags, pixels):
    for name in ('captions.jsonl', 'report.html', '.o.mcap.unfinished', 'captions.jsonl.part'):
        source = bags.write(tmp_path / name, bags.camera(1))
        before = _digest(source)
        with pytest.raises(OptionError, match='lie in each other'):
            caption_bag(source, tmp_path / 'o.mcap', lambda: pixels, BagOptions(force=True))
        assert _digest(source) == before


@pytest.mark.parametrize('ending', ['.mcap', '.db3'])
def test_a_full_disk_leaves_what_is_finished(ending, tmp_path, bags, pixels):
    import resource
    source = bags.write(tmp_path / 'in', bags.camera(6))
    before, out = _digest(source), tmp_path / f'r/o{ending}'
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        with pytest.raises(OutputError, match='captions.jsonl.part are intact.*--resume'):
            caption_bag(source, out, lambda: pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _digest(source) == before
    assert os.listdir(out.parent) == ['captions.jsonl.part']
    summary = caption_bag(source, out, lambda: pixels, BagOptions(resume=True))
    assert (summary.resumed, summary.frames) == (6, 6)


def test_a_folder_that_cannot_be_looked_into_is_one_sentence(tmp_path, bags):
    source = bags.write(tmp_path / 'in', bags.camera(1))
    with pytest.raises(OutputError, match='cannot be (looked into|written): .*too long'):
        caption_bag(source, tmp_path / ('x' * 300) / 'o.mcap', lambda: 1 / 0)


def test_nothing_captioned_makes_no_recording(tmp_path, bags, pixels):
    odd = bags.image(np.zeros((4, 4), np.uint8), 5, 'strange8')
    source = bags.write(tmp_path / 'in', [('/cam', 5, odd)])
    summary = caption_bag(source, tmp_path / 'r/o.db3', lambda: pixels)
    assert summary.out is None and summary.skipped_count == 1
    assert os.listdir(tmp_path / 'r') == []


@pytest.mark.parametrize('out, words', [
    ('captions.jsonl', 'name of a file that comes beside it'),
    ('report.html', 'name of a file that comes beside it'),
    ('in', 'lie in each other'), ('in/o.mcap', 'lie in each other'), ('.', 'no name|each other'),
    ('o.bag', 'ROS 1')])
def test_a_bad_out_is_refused(out, words, tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(1))
    with pytest.raises(OptionError, match=words):
        caption_bag(source, tmp_path / out, lambda: pixels, BagOptions(force=True))
