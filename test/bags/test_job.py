# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings through the whole job, read again with rosbags' own reader."""

import hashlib
import json
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from caption_ros.bags import job
from caption_ros.bags.frames import Sampling
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.errors import CaptionError, OptionError, RecordingError
from caption_ros.scenes import TabletopStream

SHARED = Path(__file__).parents[3] / 'shared'
INPUTS = [('sqlite3', None), ('mcap', None), ('sqlite3', 'message'), ('mcap', 'file'),
          ('mcap', 'message'), ('mcap', 'storage')]
OURS = ('/caption', '/captions', '/detections')


def _lines(folder):
    return [json.loads(line) for line in (folder / 'captions.jsonl').read_text().splitlines()]


def _digest(path):
    files = [file for file in sorted(path.rglob('*')) if file.is_file()]
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
            for file in files]


@pytest.mark.parametrize('storage, compress', INPUTS)
@pytest.mark.parametrize('ending', ['.mcap', '.db3', ''])
def test_every_frame_is_captioned_and_all_else_is_as_it_was(
        storage, compress, ending, tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(4, masks=True), storage, compress)
    before, original = _digest(source), bags.read(source)
    out = tmp_path / 'results' / f'out{ending}'
    summary = caption_bag(source, out, lambda: pixels)
    assert (summary.frames, summary.skipped_count, summary.plan.mask) == (4, 0, '/cam/mask')
    result = bags.read(out)
    assert [m for m in result if m[0] not in OURS] == original
    records = [(t, json.loads(s)) for t, s in bags.said(out)]
    assert [t for t, _ in records] == [bags.start_ns + i * bags.step_ns for i in range(4)]
    for received_ns, record in records:
        stamp = record['stamp']
        assert stamp['sec'] * 10 ** 9 + stamp['nanosec'] == received_ns - 5_000_000
        assert record['frame_id'] == 'camera' and record['age_s'] == 0.005
        assert record['captions'][0]['region']['label'] == 1
    assert [s for _, s in bags.said(out, '/caption')] == [
        '; '.join(c['text'] for c in r['captions']) for _, r in records]
    assert [{'topic': '/cam/image', 'received_ns': t, **r} for t, r in records] == _lines(
        out.parent)
    assert _digest(source) == before
    assert sorted(p.name for p in out.parent.iterdir()) == sorted(
        [out.name, 'captions.jsonl', 'captions.srt', 'captions.vtt', 'report.html'])


def test_folders_keep_the_storage_of_the_recording(tmp_path, bags, pixels):
    for storage, suffix in (('mcap', '.mcap'), ('sqlite3', '.db3')):
        source = bags.write(tmp_path / storage, bags.camera(1), storage)
        out = tmp_path / f'of_{storage}' / 'out'
        caption_bag(source, out, lambda: pixels)
        assert (out / f'out{suffix}').is_file() and (out / 'metadata.yaml').is_file()


@pytest.mark.parametrize('compress', ['file', 'message'])
def test_a_recording_in_compressed_parts(compress, tmp_path, bags, pixels):
    messages = bags.camera(6)
    source = bags.write(tmp_path / 'in', messages[:6], 'sqlite3', compress)
    bags.write(tmp_path / 'more', messages[6:], 'sqlite3', compress)
    (part,) = (tmp_path / 'more').glob('more.db3*')
    part.rename(source / part.name)
    metadata = (source / 'metadata.yaml').read_text()
    first = part.name.replace('more', 'in')
    assert f'  - {first}\n' in metadata
    (source / 'metadata.yaml').write_text(metadata.replace(
        f'  - {first}\n', f'  - {first}\n  - {part.name}\n', 1))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (6, 0)
    assert [(m[0], m[1], m[4]) for m in bags.read(tmp_path / 'r/o.mcap')
            if m[0] not in OURS] == [(name, t, data) for name, t, (_, data) in messages]


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_players_that_are_not_ours_find_a_caption_for_each_sampled_frame(
        storage, tmp_path, bags, pixels):
    stream, messages = TabletopStream(4, 640, 480), []
    for i in range(40):  # 10 Hz
        frame, now_ns = stream.frame(i), bags.start_ns + i * bags.step_ns
        messages += [('/cam/image', now_ns, bags.image(frame.rgb, now_ns - 7)),
                     ('/cam/mask', now_ns + 9, bags.image(frame.labels, now_ns - 7))]
    source = bags.write(tmp_path / 'in', messages, storage)
    out = tmp_path / f'r/o.{"mcap" if storage == "mcap" else "db3"}'
    caption_bag(source, out, lambda: pixels, BagOptions(sampling=Sampling(every_s=1 / 3)))
    if storage == 'mcap':
        from mcap.reader import make_reader
        with out.open('rb') as file:
            found = [(channel.topic, message.log_time, message.data)
                     for _, channel, message in make_reader(file).iter_messages()]
    else:
        with sqlite3.connect(f'file:{out}?mode=ro', uri=True) as database:
            found = database.execute(
                'SELECT topics.name, timestamp, data FROM messages JOIN topics ON '
                'topics.id = messages.topic_id ORDER BY messages.id').fetchall()
    assert [m for m in found if m[0] not in OURS] == [
        (name, t, data) for name, t, (_, data) in messages]
    times = [t for name, t, _ in found if name == '/captions']
    assert len(times) == 12  # 4 s at 3 Hz
    for one in OURS:
        assert [t for name, t, _ in found if name == one] == times
    for name, received_ns, data in found:
        if name == '/captions':
            record = json.loads(bags.types.deserialize_cdr(data, 'std_msgs/msg/String').data)
            stamp = record['stamp']
            assert stamp['sec'] * 10 ** 9 + stamp['nanosec'] == received_ns - 7


def test_progress_comes_to_its_end(tmp_path, bags, pixels):
    shown = {}

    @contextmanager
    def bar(what, total):
        yield lambda done, note='': shown.update({what: (done, total, note)})
    messages = bags.camera(6, masks=True)[:-1]
    caption_bag(bags.write(tmp_path / 'in', messages), tmp_path / 'r/o.mcap', lambda: pixels,
                bar=bar)
    assert shown == {'images': (6, 6, '5 captioned, 1 left out'), 'writing': (17, 17, '')}


def test_captions_alone(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(3))
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(captions_only=True))
    topics = [m[0] for m in bags.read(tmp_path / 'r/o.mcap')]
    assert sorted(topics) == ['/caption'] * 3 + ['/captions'] * 3


def test_a_split_recording_with_one_truncated_file_gives_the_rest(tmp_path, bags, pixels):
    messages = bags.camera(6)
    source = bags.write(tmp_path / 'in', messages[:4], 'mcap')
    for index, part in enumerate((messages[4:8], messages[8:])):
        bags.write(tmp_path / f'p{index}', part, 'mcap')
        (tmp_path / f'p{index}/p{index}.mcap').rename(source / f'p{index}.mcap')
    broken = (source / 'p0.mcap').read_bytes()
    (source / 'p0.mcap').write_bytes(broken[:len(broken) // 2])
    metadata = (source / 'metadata.yaml').read_text()
    (source / 'metadata.yaml').write_text(metadata.replace(
        'relative_file_paths:\n  - in.mcap',
        'relative_file_paths:\n  - in.mcap\n  - p0.mcap\n  - p1.mcap'))
    assert 'p1.mcap' in (source / 'metadata.yaml').read_text()
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert summary.frames == 4
    (skipped,) = summary.skipped
    assert 'p0.mcap' in skipped.reason and 'not finished' in skipped.reason
    assert [m for m in bags.read(tmp_path / 'r/o.mcap') if m[0] == '/odometry'] and len(
        bags.said(tmp_path / 'r/o.mcap')) == 4


def test_a_damaged_chunk_costs_its_own_messages_only(tmp_path, bags, pixels):
    messages = bags.camera(30)  # 0.23 MB a frame: chunks of five
    source = bags.write(tmp_path / 'in', messages, 'mcap', 'storage')
    path = source / 'in.mcap'
    raw = bytearray(path.read_bytes())
    chunks = [at for at in range(len(raw)) if raw[at:at + 4] == b'\x28\xb5\x2f\xfd']
    raw[chunks[2]:chunks[2] + 4] = bytes(4)
    path.write_bytes(raw)
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert summary.skipped_count == 1 and 20 <= summary.frames < 30
    assert [t for t, _ in bags.said(tmp_path / 'r/o.mcap')][-1] == messages[-2][1]


def test_bad_messages_are_skipped_listed_and_copied(tmp_path, bags, pixels):
    messages = bags.camera(4)
    kind, data = messages[2][2]
    messages[2] = (*messages[2][:2], (kind, data[:30]))
    odd = bags.image(np.zeros((4, 4), np.uint8), 77, 'strange8')
    messages[4] = (*messages[4][:2], odd)
    source = bags.write(tmp_path / 'in', messages)
    summary = caption_bag(source, tmp_path / 'r/o.db3', lambda: pixels)
    first, second = summary.skipped
    assert (first.topic, first.received_ns, first.stamp_ns) == ('/cam/image', messages[2][1], None)
    assert (second.stamp_ns, 'strange8' in second.reason) == (77, True)
    assert (summary.frames, summary.skipped_count) == (2, 2)
    copied = [m[4] for m in bags.read(tmp_path / 'r/o.db3') if m[0] == '/cam/image']
    assert copied == [m[2][1] for m in messages if m[0] == '/cam/image']
    listed = (tmp_path / 'r/captions.skipped.jsonl').read_text().splitlines()
    assert [json.loads(line)['received_ns'] for line in listed] == [
        messages[2][1], messages[4][1]]


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_another_type_on_the_name_of_an_image_topic_is_skipped(storage, tmp_path, bags, pixels):
    messages = bags.camera(3)
    messages.insert(3, ('/cam/image', messages[2][1] + 5, bags.text('no image')))
    source = bags.write(tmp_path / 'in', messages, storage)
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (3, 1)
    (skipped,) = summary.skipped
    assert (skipped.topic, skipped.received_ns) == messages[3][:2]
    assert skipped.reason.startswith('message is a std_msgs/msg/String, wanted sensor_msgs')
    assert [(m[0], m[1], (m[2], m[4])) for m in bags.read(tmp_path / 'r/o.mcap')
            if m[0] not in OURS] == messages


def test_a_stamp_that_no_message_can_have_is_skipped(tmp_path, bags, pixels):
    messages = bags.camera(3, masks=True)
    kind, data = messages[0][2]
    latest = b'\xff\xff\xff\x7f\xff\xff\xff\xff'
    messages[0] = (*messages[0][:2], (kind, data[:4] + latest + data[12:]))
    source = bags.write(tmp_path / 'in', messages)
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (2, 1)
    assert 'stamp of 2147483647 s and 4294967295 ns' in next(iter(summary.skipped)).reason
    assert messages[0][2][1] in [m[4] for m in bags.read(tmp_path / 'r/o.mcap')]


def test_a_failing_model_is_a_skip_and_a_dead_one_an_end(tmp_path, bags):
    source = bags.write(tmp_path / 'in', bags.camera(8))
    summary = caption_bag(source, tmp_path / 'r/o.db3', lambda: bags.captioner(fails_at={3}))
    assert (summary.frames, summary.skipped_count) == (7, 1)
    with pytest.raises(CaptionError, match='failed'):
        caption_bag(source, tmp_path / 's/o.db3', lambda: bags.captioner(range(9)))
    assert list((tmp_path / 's').iterdir()) == []


@pytest.mark.parametrize('sampling, frames', [
    (Sampling(every_s=0.3), [0, 3, 6]),
    (Sampling(start_s=0.2, end_s=0.5), [2, 3, 4]),
    (Sampling(start_s=0.2, every_s=0.3), [2, 5, 8]),
])
def test_sampling(sampling, frames, tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(9))
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(sampling=sampling))
    times = [record['received_ns'] for record in _lines(tmp_path / 'r')]
    assert times == [bags.start_ns + i * bags.step_ns for i in frames]
    assert len([m for m in bags.read(tmp_path / 'r/o.mcap') if m[0] == '/cam/image']) == 9


def test_only_changes(tmp_path, bags, pixels):
    still, moved = np.full((240, 320, 3), 90, np.uint8), np.full((240, 320, 3), 90, np.uint8)
    moved[100:120, 100:120] = 200
    messages = [('/cam', bags.start_ns + i, bags.image(rgb, i + 1))
                for i, rgb in enumerate([still, still, moved, moved, still])]
    source = bags.write(tmp_path / 'in', messages)
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels,
                          BagOptions(sampling=Sampling(on_change=True)))
    assert summary.counts['unchanged'] == 2
    assert [r['stamp']['nanosec'] for r in _lines(tmp_path / 'r')] == [1, 3, 5]


def test_several_cameras_in_one_pass(tmp_path, bags, pixels):
    messages = bags.camera(2, topic='/left/image', masks=True, mask_topic='/left/mask')
    rgb = np.full((240, 320, 3), 50, np.uint8)
    messages += [('/right/image/compressed', bags.start_ns + i + 7, bags.jpeg(rgb, i + 1))
                 for i in range(2)]
    source = bags.write(tmp_path / 'in', messages)
    caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert len(bags.said(tmp_path / 'r/o.mcap', '/left/image/captions')) == 2
    right = bags.said(tmp_path / 'r/o.mcap', '/right/image/compressed/caption')
    assert [words for _, words in right] == ['all of 50.000'] * 2
    assert '/right/image/compressed: all of 50.000' in (tmp_path / 'r/captions.vtt').read_text()


def test_images_without_their_mask_are_counted(tmp_path, bags, pixels):
    messages = [m for i, m in enumerate(bags.camera(6, masks=True))
                if m[0] != '/cam/mask' or i % 2]
    masks = sum(m[0] == '/cam/mask' for m in messages)
    source = bags.write(tmp_path / 'in', messages)
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert 0 < masks < 6 and summary.frames == masks
    assert summary.counts['without mask'] == 6 - masks


@pytest.mark.parametrize('make, error, words', [
    (lambda p, bags: p, RecordingError, 'does not exist; give a rosbag2'),
    (lambda p, bags: p.write_text('hello'), RecordingError, 'wanted a rosbag2 folder'),
    (lambda p, bags: p.mkdir(), RecordingError, 'has no metadata.yaml; give a rosbag2'),
    (lambda p, bags: bags.write(p, []), RecordingError, 'holds no messages'),
    (lambda p, bags: bags.write(p, [('/a', 5, bags.text('a'))]), RecordingError,
     'no image topic, only std_msgs/msg/String'),
    (lambda p, bags: (bags.write(p, bags.camera(1)) / 'metadata.yaml').unlink(), RecordingError,
     'in.db3 itself or run "ros2 bag reindex"'),
    (lambda p, bags: (bags.write(p, bags.camera(1)) / 'metadata.yaml').write_text('a: 1'),
     RecordingError, 'no description of a recording'),
    (lambda p, bags: (bags.write(p, bags.camera(1)) / 'in.db3').unlink(), RecordingError,
     'named in metadata.yaml and does not exist'),
    (lambda p, bags: (bags.write(p, bags.camera(1), 'mcap') / 'in.mcap').write_bytes(b''),
     RecordingError, r'in.mcap .*empty \(0 bytes\)'),
    (lambda p, bags: (bags.write(p, bags.camera(1)) / 'in.db3').write_bytes(b'x' * 5000),
     RecordingError, 'in.db3 cannot be read as a recording'),
    (lambda p, bags: bags.write(p, bags.camera(1, masks=True) + [
        ('/cam/label', 9, bags.image(np.zeros((4, 4), np.uint8), 9))]), OptionError,
     '(?=.*/cam/mask)(?=.*/cam/label).*may both be the mask topic; choose one with --mask'),
])
def test_bad_input_is_one_sentence(make, error, words, tmp_path, bags):
    make(tmp_path / 'in', bags)
    before = _digest(tmp_path)
    with pytest.raises(error, match=words) as caught:
        caption_bag(tmp_path / 'in', tmp_path / 'r/o.mcap', lambda: 1 / 0)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'r').exists() and _digest(tmp_path) == before


def test_a_start_behind_the_end_is_refused(tmp_path, bags):
    source = bags.write(tmp_path / 'in', bags.camera(4))
    with pytest.raises(OptionError, match='start is 7 s and .*/in is 0.3 s long; give an earlier'):
        caption_bag(source, tmp_path / 'r/o.mcap', lambda: 1 / 0,
                    BagOptions(sampling=Sampling(start_s=7)))
    assert not (tmp_path / 'r').exists()


def test_a_file_that_is_not_there_is_counted_once(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    metadata = (source / 'metadata.yaml').read_text()
    (source / 'metadata.yaml').write_text(metadata.replace('  - in.db3', '  - in.db3\n  - b.db3'))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (2, 1)
    assert 'in/b.db3 is named in metadata.yaml and does not exist' in next(
        iter(summary.skipped)).reason


def test_what_is_skipped_is_counted_once_however_much_it_is(tmp_path, bags, pixels, monkeypatch):
    monkeypatch.setattr(job, '_MOST_LISTED', 2)
    messages = bags.camera(6)
    source = bags.write(tmp_path / 'in', messages, compress='message')
    with sqlite3.connect(source / 'in.db3') as database:  # images are met in both readings
        database.execute("UPDATE messages SET data = x'28b52ffd00' WHERE id <= 7")
    database.close()
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count, len(summary.skipped)) == (2, 7, 2)


def test_what_the_user_noted_about_the_recording_is_kept(tmp_path, bags, pixels):
    from rosbags.rosbag2 import Reader
    source = bags.write(tmp_path / 'in', bags.camera(1))
    metadata = (source / 'metadata.yaml').read_text()
    assert 'custom_data: null' in metadata
    (source / 'metadata.yaml').write_text(metadata.replace(
        'custom_data: null', 'custom_data: {driver: Ada, run: 7}'))
    caption_bag(source, tmp_path / 'r/o', lambda: pixels)
    with Reader(tmp_path / 'r/o') as reader:
        assert reader.storage.metadata.custom == {'driver': 'Ada', 'run': '7'}


def test_metadata_that_promises_more_is_listed(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    metadata = (source / 'metadata.yaml').read_text()
    (source / 'metadata.yaml').write_text(metadata.replace('message_count: 4',
                                                           'message_count: 9'))
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    (skipped,) = summary.skipped
    assert 'promises 9 messages in in.db3, which has 4' in skipped.reason and summary.frames == 2


def test_a_ros1_bag(tmp_path, bags, pixels):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore
    types = get_typestore(Stores.ROS1_NOETIC)
    kind, time = 'sensor_msgs/msg/Image', types.types['builtin_interfaces/msg/Time']
    rgb = np.full((240, 320, 3), 50, np.uint8)
    with Writer(tmp_path / 'in.bag') as writer:
        topic = writer.add_connection('/cam', kind, typestore=types)
        for i in range(2):
            header = types.types['std_msgs/msg/Header'](i, time(7, i), 'camera')
            message = types.types[kind](header, 240, 320, 'rgb8', 0, 960, rgb.ravel())
            writer.write(topic, 8 * 10 ** 9 + i, types.serialize_ros1(message, kind))
    summary = caption_bag(tmp_path / 'in.bag', tmp_path / 'r/o.mcap', lambda: pixels)
    assert summary.frames == 2
    assert [r['stamp'] for r in _lines(tmp_path / 'r')] == [{'sec': 7, 'nanosec': i}
                                                           for i in (0, 1)]
    copied = [m for m in bags.read(tmp_path / 'r/o.mcap') if m[0] == '/cam']
    assert bags.types.deserialize_cdr(copied[1][4], kind).header.frame_id == 'camera'


@pytest.mark.skipif(not SHARED.is_dir(), reason='no shared recordings')
def test_the_recorded_camera(tmp_path, bags, pixels):
    (source,) = [path.parent for path in (SHARED / 'bags').glob('*/metadata.yaml')]
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (1, 0)
    result = bags.read(tmp_path / 'r/o.mcap')
    assert [m for m in result if m[0] not in OURS] == bags.read(source)
