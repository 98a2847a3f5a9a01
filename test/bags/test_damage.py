# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Damaged recordings: what can be read is captioned, the rest counted, and IN stays as it is."""

import sqlite3

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from caption_ros.bags.job import BagOptions, caption_bag
from caption_ros.errors import OutputError, RecordingError

mcap = pytest.importorskip('mcap.writer')
FRAMES = 12


def caption(source, tmp_path, bags, pixels, **options):
    with bags.untouched(source):
        return caption_bag(source, tmp_path / 'r/o.mcap', lambda: pixels, BagOptions(**options))


def _cut(path, share):
    raw = path.read_bytes()
    path.write_bytes(raw[:round(len(raw) * share)])


@pytest.mark.parametrize('compress', [None, 'storage'])
@pytest.mark.parametrize('share', [0.5, 0.98])
def test_an_unfinished_mcap_gives_what_was_written(share, compress, tmp_path, bags, pixels):
    messages = bags.camera(FRAMES)
    source = bags.write(tmp_path / 'in', messages, 'mcap', compress) / 'in.mcap'
    _cut(source, share)
    summary = caption(source, tmp_path, bags, pixels)
    copied = [(m[0], m[1], m[4]) for m in bags.read(tmp_path / 'r/o.mcap')
              if m[0] not in ('/caption', '/captions')]
    assert copied == [(name, t, data) for name, t, (_, data) in messages[:len(copied)]]
    images = sum(name == '/cam/image' for name, _, _ in copied)
    assert (summary.frames, summary.skipped_count) == (images, 1) and 0 < images < FRAMES + 1
    (skipped,) = summary.skipped
    assert skipped.reason == ('in.mcap: it was not finished when it was recorded, or cut later; '
                              f'{len(copied)} messages of it can be read')


def test_an_unfinished_mcap_without_chunks_gives_all_but_the_torn_message(tmp_path, bags, pixels):
    messages = bags.camera(4)
    source = bags.plain_mcap(tmp_path / 'in.mcap', messages, is_finished=False,
                        use_chunking=False)
    source.write_bytes(source.read_bytes()[:-100_000])  # amid the third image
    summary = caption(source, tmp_path, bags, pixels)
    assert (summary.frames, summary.skipped_count) == (3, 1)


def test_an_mcap_without_index_or_order_is_read_whole(tmp_path, bags, pixels):
    messages = bags.camera(4)
    messages[2], messages[5] = messages[5], messages[2]
    source = bags.plain_mcap(tmp_path / 'in.mcap', messages, use_chunking=False,
                        index_types=mcap.IndexType.NONE, use_statistics=False,
                        repeat_channels=False, repeat_schemas=False, use_summary_offsets=False)
    summary = caption(source, tmp_path, bags, pixels)
    assert (summary.frames, summary.skipped_count) == (4, 0)
    assert sorted(t for t, _ in bags.said(tmp_path / 'r/o.mcap')) == [
        bags.start_ns + i * bags.step_ns for i in range(4)]


def test_an_mcap_with_a_broken_summary_is_read_all_the_same(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(4), 'mcap') / 'in.mcap'
    raw = bytearray(source.read_bytes())
    start = int.from_bytes(raw[-28:-20], 'little')
    raw[start:-40] = b'\xee' * len(raw[start:-40])
    source.write_bytes(raw)
    summary = caption(source, tmp_path, bags, pixels)
    assert summary.frames == 4 and summary.skipped_count >= 1
    assert 'its summary is broken' in next(iter(summary.skipped)).reason


def test_a_broken_chunk_of_an_unfinished_mcap_costs_its_own_messages(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(FRAMES), 'mcap', 'storage') / 'in.mcap'
    _cut(source, 0.95)
    raw = bytearray(source.read_bytes())
    magic = b'\x28\xb5\x2f\xfd'
    at = raw.index(magic, raw.index(magic) + 4)  # the first chunk has the topics, too
    raw[at:at + 4] = bytes(4)
    source.write_bytes(raw)
    summary = caption(source, tmp_path, bags, pixels)
    assert 0 < summary.frames < FRAMES
    assert ['a chunk is broken' in one.reason for one in summary.skipped] == [True, False]


def test_a_chunk_with_a_wrong_checksum_is_not_believed(tmp_path, bags, pixels):
    source = bags.plain_mcap(tmp_path / 'in.mcap', bags.camera(FRAMES), is_finished=False,
                        compression=mcap.CompressionType.NONE)
    raw = bytearray(source.read_bytes())
    raw[len(raw) * 3 // 4] ^= 1  # a pixel of the second chunk; the first has the topics, too
    source.write_bytes(raw)
    summary = caption(source, tmp_path, bags, pixels)
    assert 0 < summary.frames < FRAMES
    assert 'a chunk is broken: crc validation failed' in next(iter(summary.skipped)).reason


@pytest.mark.parametrize('make, words', [
    (lambda raw: raw[:9], 'not finished .* and no message in it can be read'),
    (lambda raw: raw[:5000], 'not finished .* and no message in it can be read'),
    (lambda raw: b'\x89MCAP0\r\n' + b'\x05' + b'\xff' * 8 + raw[20:5000], 'and no message'),
    (lambda raw: b'x' * 5000, 'invalid magic'),
    (lambda raw: raw.replace(b'ros2', b'ros1', 1)[:90_000], "profile is 'ros1', wanted ros2"),
])
def test_an_mcap_of_which_nothing_can_be_read_is_refused(make, words, tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2), 'mcap') / 'in.mcap'
    source.write_bytes(make(source.read_bytes()))
    with pytest.raises(RecordingError, match=words) as caught:
        caption(source, tmp_path, bags, pixels)
    assert '\n' not in str(caught.value) and not (tmp_path / 'r').exists()


def test_a_truncated_sqlite3_gives_what_can_be_read(tmp_path, bags, pixels):
    source = bags.write(tmp_path / 'in', bags.camera(FRAMES))
    _cut(source / 'in.db3', 0.6)
    try:
        summary = caption(source, tmp_path, bags, pixels)
    except RecordingError as error:
        assert 'in.db3' in str(error) and '\n' not in str(error)
    else:
        assert 0 < summary.frames < FRAMES and summary.skipped_count >= 1


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_messages_of_an_unknown_type_are_copied(storage, tmp_path, bags, pixels):
    source = tmp_path / 'in'
    odd = [(b'\x00\x01\x00\x00' + bytes([i] * 9)) for i in range(3)]
    messages = bags.camera(3)
    types = get_typestore(Stores.EMPTY)
    types.register(get_types_from_msg('', 'nobody_msgs/msg/Knows'))
    with Writer(source, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        strange = writer.add_connection('/odd', 'nobody_msgs/msg/Knows', msgdef='',
                                        rihs01=types.hash_rihs01('nobody_msgs/msg/Knows'))
        image = writer.add_connection('/cam', 'sensor_msgs/msg/Image', typestore=bags.types)
        for data, (_, received_ns, (_, pixels_data)) in zip(odd, messages[::2]):
            writer.write(strange, received_ns, data)
            writer.write(image, received_ns, pixels_data)
    with bags.untouched(source):
        summary = caption_bag(source, tmp_path / f'r/o.{"mcap" if storage == "mcap" else "db3"}',
                              lambda: pixels)
    assert (summary.frames, summary.skipped_count) == (3, 0)
    copied = [m for m in bags.read(summary.out) if m[0] == '/odd']
    assert [(m[2], m[4]) for m in copied] == [('nobody_msgs/msg/Knows', data) for data in odd]


@pytest.mark.parametrize('old, new, frames', [
    ('message_count: 4', 'message_count: 9', 2), ('message_count: 4', 'message_count: 1', 2),
    ('storage_identifier: sqlite3', 'storage_identifier: mcap', 2),
    ('nanoseconds: ', 'nanoseconds: -9', 2),
])
def test_the_data_is_believed_where_metadata_yaml_disagrees(old, new, frames, tmp_path, bags,
                                                            pixels):
    source = bags.write(tmp_path / 'in', bags.camera(2))
    text = (source / 'metadata.yaml').read_text()
    assert old in text
    (source / 'metadata.yaml').write_text(text.replace(old, new))
    summary = caption(source, tmp_path, bags, pixels)
    assert summary.frames == frames and summary.skipped_count == ('message_count' in old)


@pytest.mark.parametrize('limit', [200, 1000, 3000, 100_000, 600_000])
def test_wherever_the_disk_gets_full_the_run_goes_on_later(limit, tmp_path, bags, pixels):
    import resource
    source = bags.write(tmp_path / 'in', bags.camera(6, masks=True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OutputError, match='go on with --resume') as caught:
            caption(source, tmp_path, bags, pixels, batch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert '\n' not in str(caught.value)
    left = sorted(path.name for path in (tmp_path / 'r').iterdir())
    assert left in (['captions.jsonl.part'], [])
    summary = caption(source, tmp_path, bags, pixels, batch=2, resume=True)
    assert (summary.frames, summary.skipped_count) == (6, 0)
    caption_bag(source, tmp_path / 'whole/o.mcap', lambda: pixels, BagOptions(batch=2))
    assert (tmp_path / 'r/captions.jsonl').read_bytes() == (
        tmp_path / 'whole/captions.jsonl').read_bytes()


@pytest.mark.parametrize('share, words', [(0.0, 'empty'), (0.3, 'rosbag reindex'),
                                          (0.9, 'rosbag reindex')])
def test_a_cut_ros1_bag_is_refused_with_what_to_do(share, words, tmp_path, bags, pixels):
    from rosbags.rosbag1 import Writer as Ros1Writer
    types, kind = get_typestore(Stores.ROS1_NOETIC), 'std_msgs/msg/String'
    with Ros1Writer(tmp_path / 'in.bag') as writer:
        topic = writer.add_connection('/words', kind, typestore=types)
        for i in range(50):
            writer.write(topic, i, types.serialize_ros1(types.types[kind](50 * 'word '), kind))
    _cut(tmp_path / 'in.bag', share)
    with pytest.raises(RecordingError, match=f'in.bag cannot be read .*{words}') as caught:
        caption(tmp_path / 'in.bag', tmp_path, bags, pixels)
    assert '\n' not in str(caught.value) and not (tmp_path / 'r').exists()


def test_a_database_that_is_no_recording_is_refused(tmp_path, bags, pixels):
    with sqlite3.connect(tmp_path / 'in.db3') as database:
        database.execute('CREATE TABLE photos (name TEXT)')
    database.close()
    with pytest.raises(RecordingError, match='in.db3 cannot be read as a recording'):
        caption(tmp_path / 'in.db3', tmp_path, bags, pixels)
