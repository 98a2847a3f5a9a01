# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Storage files as they come: half an index, a journal beside, odd names, odd messages."""

import os
import shutil
import sqlite3

import pytest

from caption_ros.bags import files
from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.bags.recording import Recording
from caption_ros.errors import OptionError, RecordingError

OURS = ('/caption', '/captions', '/detections')


def _run(source, tmp_path, bags, pixels, ending='.mcap'):
    """Caption, and return the summary and what was copied."""
    out = tmp_path / f'results/o{ending}'
    with bags.untouched(source.parent):
        summary = caption_bag(source, out, lambda: pixels)
    return summary, [(m[0], m[1], m[4]) for m in bags.read(out) if m[0] not in OURS]


def _plain(messages):
    return sorted((name, received_ns, data) for name, received_ns, (_, data) in messages)


@pytest.mark.parametrize('index', [
    {'index_types': 'CHUNK'}, {'repeat_channels': False}, {'repeat_schemas': False},
    {'repeat_channels': False, 'repeat_schemas': False, 'use_statistics': False},
    {'repeat_schemas': False, 'use_chunking': False},
    {'index_types': 'NONE'}, {'use_chunking': False}])
def test_an_mcap_file_with_half_an_index_and_no_order_gives_all(index, tmp_path, bags, pixels):
    mcap = pytest.importorskip('mcap.writer')
    if 'index_types' in index:
        index = {'index_types': mcap.IndexType[index['index_types']]}
    messages = bags.camera(4)
    messages[1], messages[5] = messages[5], messages[1]
    (tmp_path / 'in').mkdir()
    source = bags.plain_mcap(tmp_path / 'in/in.mcap', messages, **index)
    summary, copied = _run(source, tmp_path, bags, pixels)
    assert (summary.frames, summary.skipped_count) == (4, 0)
    assert sorted(copied) == _plain(messages)


@pytest.mark.parametrize('ending', ['.mcap', '.db3'])
def test_messages_that_are_not_of_ros_are_copied(ending, tmp_path, bags, pixels):
    messages = sorted([*bags.camera(2), ('/json', bags.start_ns, ('status', b'{}')),
                       ('/plain', bags.start_ns + 1, ('', b'{"a": 1}')),
                       ('/proto', bags.start_ns + 2, ('a.B', b'\n'))], key=lambda m: m[1])
    (tmp_path / 'in').mkdir()
    source = bags.plain_mcap(tmp_path / 'in/in.mcap', messages, schemas={
        'status': ('jsonschema', b'{}'), '': ('', b''), 'a.B': ('protobuf', b'\xff\x00')})
    out = tmp_path / f'r/o{ending}'
    summary = caption_bag(source, out, lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (2, 0)
    from rosbags.rosbag2 import Reader
    with Reader(out) as reader:
        copied = sorted((topic.topic, t, bytes(data)) for topic, t, data in reader.messages()
                        if topic.topic not in OURS)
        encodings = {topic.topic: topic.ext.serialization_format for topic in reader.connections}
    assert copied == _plain(messages)
    assert (encodings['/json'], encodings['/proto']) == ('jsonschema', 'protobuf')


@pytest.mark.parametrize('name', ['run#3', 'what?', '50%41', 'a b', 'é'])
def test_names_that_mean_something_in_a_uri(name, tmp_path, bags, pixels):
    messages = bags.camera(2)
    path = bags.write(tmp_path / 'in', messages) / 'in.db3'
    (tmp_path / name).mkdir()
    source, out = tmp_path / name / f'{name}.db3', tmp_path / f'to {name}/{name}.db3'
    path.rename(source)
    with bags.untouched(source.parent):
        summary = caption_bag(source, out, lambda: pixels)
    assert (summary.frames, summary.out) == (2, out)
    out = out.rename(tmp_path / 'out.db3')
    copied = [(m[0], m[1], m[4]) for m in bags.read(out) if m[0] not in OURS]
    assert sorted(copied) == _plain(messages)
    assert {one.name for one in tmp_path.iterdir()} == {'in', name, f'to {name}', 'out.db3'}


@pytest.mark.parametrize('name, out, what', [(b'caf\xe9.mcap', b'r/o.mcap', 'IN'),
                                             (b'in.mcap', b'r/caf\xe9.mcap', 'OUT'),
                                             (b'in.mcap', b'r/caf\xe9/o.mcap', 'OUT')])
def test_names_that_are_no_text_are_refused_before_anything_is_written(
        name, out, what, tmp_path, bags):
    (tmp_path / 'here').mkdir()
    source = tmp_path / 'here' / os.fsdecode(name)
    (bags.write(tmp_path / 'in', bags.camera(1), 'mcap') / 'in.mcap').rename(source)
    with pytest.raises(OptionError, match=rf'^{what} .*caf\\udce9.* not UTF-8, .*; rename it$'):
        caption_bag(source, tmp_path / os.fsdecode(out), lambda: 1 / 0)
    assert not (tmp_path / 'r').exists()


def test_a_recording_knows_whether_its_times_may_go_back(tmp_path, bags):
    messages = bags.camera(4)
    source = bags.write(tmp_path / 'in', messages[4:], 'mcap')
    bags.write(tmp_path / 'first', messages[:4], 'mcap')
    (tmp_path / 'first/first.mcap').rename(source / 'first.mcap')
    metadata = (source / 'metadata.yaml').read_text()
    for files_of, is_ordered in (('  - in.mcap', True), ('  - first.mcap\n  - in.mcap', True),
                                 ('  - in.mcap\n  - first.mcap', False)):
        (source / 'metadata.yaml').write_text(metadata.replace('  - in.mcap', files_of))
        assert Recording(source).is_ordered is is_ordered
    unindexed = bags.plain_mcap(tmp_path / 'unindexed.mcap', messages, use_chunking=False)
    assert not Recording(unindexed).is_ordered


def _die(database, folder):
    """Copy a database with its journal, as the disk has them when its writer dies."""
    folder.mkdir()
    for path in database.parent.glob(f'{database.name}*'):
        shutil.copyfile(path, folder / path.name)


@pytest.mark.parametrize('checkpointed', [0, 5])
def test_messages_in_the_journal_of_a_recorder_that_died_are_read(checkpointed, tmp_path, bags,
                                                                  pixels):
    messages = bags.camera(4)
    path = bags.write(tmp_path / 'done', messages) / 'done.db3'
    with sqlite3.connect(path) as database:
        rows = database.execute('SELECT * FROM messages ORDER BY id').fetchall()
        database.execute('DELETE FROM messages WHERE id > ?', (checkpointed,))
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    with database:
        database.executemany('INSERT INTO messages VALUES (?, ?, ?, ?)', rows[checkpointed:])
    _die(path, tmp_path / 'in')
    database.close()
    assert (tmp_path / 'in/done.db3-wal').stat().st_size > 200_000
    summary, copied = _run(tmp_path / 'in/done.db3', tmp_path, bags, pixels)
    assert (summary.frames, summary.skipped_count) == (4, 0)
    assert sorted(copied) == _plain(messages)


def test_a_transaction_that_was_not_committed_is_taken_back(tmp_path, bags, pixels):
    messages = bags.camera(4)
    path = bags.write(tmp_path / 'done', messages) / 'done.db3'
    database = sqlite3.connect(path)
    database.execute('PRAGMA cache_size=1')  # changed pages go to the disk at once
    database.execute('UPDATE messages SET data = zeroblob(100000)')
    _die(path, tmp_path / 'in')
    database.rollback()
    database.close()
    assert (tmp_path / 'in/done.db3-journal').stat().st_size > 200_000
    summary, copied = _run(tmp_path / 'in/done.db3', tmp_path, bags, pixels)
    assert summary.frames == 4 and sorted(copied) == _plain(messages)


def test_without_room_for_a_copy_one_sentence_says_so(tmp_path, bags, monkeypatch):
    path = bags.write(tmp_path / 'in', bags.camera(1)) / 'in.db3'
    path.with_name('in.db3-wal').write_bytes(b'x')

    def full(*words):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(shutil, 'copyfile', full)
    with pytest.raises(RecordingError, match='in.db3 .*no room for a copy .*set TMPDIR'):
        caption_bag(path, tmp_path / 'r/o.mcap', lambda: 1 / 0)


@pytest.mark.parametrize('storage, received_ns', [('sqlite3', -5), ('mcap', 2 ** 63),
                                                  ('mcap', 2 ** 64 - 1)])
def test_impossible_times_of_receipt_cost_their_message_only(storage, received_ns, tmp_path, bags,
                                                             pixels):
    messages = bags.camera(2)
    odd = ('/cam/image', received_ns, messages[0][2])
    (tmp_path / 'in').mkdir()
    if storage == 'mcap':
        source = bags.plain_mcap(tmp_path / 'in/in.mcap', [*messages, odd])
    else:
        source = bags.write(tmp_path / 'in/in', [odd, *messages]) / 'in.db3'
    summary, copied = _run(source, tmp_path, bags, pixels)
    assert summary.frames == 2 and sorted(copied) == _plain(messages)
    (skipped,) = summary.skipped
    assert skipped.reason == f'time of receipt {received_ns} ns is out of range'


def test_a_compressed_message_that_claims_too_much_takes_no_memory(tmp_path, bags, pixels,
                                                                   monkeypatch):
    monkeypatch.setattr(files, '_MOST_MESSAGE_BYTES', 1 << 20)
    messages = [*bags.camera(2), ('/large', bags.start_ns, bags.text('x' * (1 << 20)))]
    source = bags.write(tmp_path / 'in', messages, compress='message')
    summary = caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (2, 1)
    assert 'cannot be unpacked: it is cut off, or larger than 1 MiB' in next(
        iter(summary.skipped)).reason


def test_a_broken_message_of_a_ros1_bag_costs_only_itself(tmp_path, bags, pixels):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore
    types, kind = get_typestore(Stores.ROS1_NOETIC), 'sensor_msgs/msg/Image'
    with Writer(tmp_path / 'in.bag') as writer:
        topic = writer.add_connection('/cam', kind, typestore=types)
        for i, (_, received_ns, (_, data)) in enumerate(bags.camera(4)[::2]):
            message = bags.types.deserialize_cdr(data, kind)
            message.header = types.types['std_msgs/msg/Header'](
                i, message.header.stamp, message.header.frame_id)
            data = types.serialize_ros1(message, kind)
            writer.write(topic, received_ns, data[:50] if i == 1 else data)
    for options in (BagOptions(), BagOptions(captions_only=True, force=True)):
        summary = caption_bag(tmp_path / 'in.bag', tmp_path / 'r/o.mcap', lambda: pixels, options)
        assert (summary.frames, summary.skipped_count) == (3, 1)
        (skipped,) = summary.skipped
        assert skipped.received_ns == bags.start_ns + bags.step_ns
        assert 'message of 50 bytes cannot be unpacked' in skipped.reason
