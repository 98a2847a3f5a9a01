# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Search in an index: what fits, in which order, and as which passages."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caption_ros.cli import main
from caption_ros.errors import OptionError
from caption_ros.fleet.index import SCHEMA, open_index
from caption_ros.fleet.search import forms, search_index, words_of

SECOND = 10 ** 9
START = 1_480_227_350_196_105_142


@pytest.fixture
def make_index(tmp_path):
    def make(rows, row_group_size=3):
        """Write an index of (text, score, seconds, bag) or dicts."""
        values = [row if isinstance(row, dict) else dict(zip(
            ('text', 'score', 'stamp', 'bag'), row)) for row in rows]
        values = [{'bag': 'a', 'topic': '/cam', 'received': 0, **row,
                   'stamp': START + round(row.get('stamp', 0) * SECOND)} for row in values]
        path = tmp_path / 'index.parquet'
        pq.write_table(pa.Table.from_pylist(values, SCHEMA), path, row_group_size=row_group_size)
        return path
    return make


def found(path, query, **options):
    with open_index(str(path)) as index:
        passages, _ = search_index(index, query, **options)
    return [passage.best['text'] for passage in passages]


TEXTS = ['A Red Mug', 'two red mugs on a table', 'a mug beside a red box', 'a smug bred cat',
         'a redder mugging', 'red-mug', 'ein rotes Fässchen', 'FÄSSCHEN', 'berries and boxes']


@pytest.mark.parametrize(('query', 'hits'), [
    ('red mug', [0, 1, 2, 5]),
    ('RED MUGS', [0, 1, 2, 5]),
    ('mug, red!', [0, 1, 2, 5]),
    ('fässchen', [6, 7]),
    ('berry', [8]),
    ('box', [2, 8]),
    ('table red', [1]),
    ('red dragon', []),
    ('re', []),
    ('.*', None),
])
def test_a_hit_has_all_words_in_any_case_order_and_number(make_index, query, hits):
    path = make_index([(text, 0.5, 100 * i, 'a') for i, text in enumerate(TEXTS)])
    if hits is None:
        with pytest.raises(OptionError, match='must have 1 to 32 words'):
            found(path, query)
    else:
        assert sorted(found(path, query)) == sorted(TEXTS[i] for i in hits)


def test_phrases_short_captions_and_sure_captions_come_first(make_index):
    path = make_index([('a mug beside a red box', 0.9, 0, 'a'),
                       ('a red mug on a table with a plant', 0.9, 100, 'a'),
                       ('a red mug', 0.5, 200, 'a'), ('a red mug', 0.9, 300, 'b'),
                       (None, 0.9, 400, 'b'), ('a red mug', None, 500, 'b')])
    with open_index(str(path)) as index:
        passages, captions = search_index(index, 'red mug')
        best, _ = search_index(index, 'red mug', top=1)
    assert [(p.best['text'], p.best['score'] and round(p.best['score'], 1)) for p in passages] == [
        ('a red mug', 0.9), ('a red mug', 0.5), ('a red mug on a table with a plant', 0.9),
        ('a red mug', None), ('a mug beside a red box', 0.9)]
    assert captions == 5 and best == passages[:1]


def test_hits_close_together_are_one_passage_with_its_best_caption(make_index):
    rows = [('a red mug', 0.5 + i / 100, 0.1 * i, 'a') for i in range(20)]
    rows += [('a red mug', 0.4, 60, 'a'), ('a red mug', 0.3, 0, 'b')]
    rows += [{'text': 'a red mug', 'score': 0.2, 'topic': '/other', 'stamp': 1, 'bag': 'a'}]
    path = make_index(rows[::-1])
    with open_index(str(path)) as index:
        first, second, third, fourth = search_index(index, 'mug')[0]
        assert len(search_index(index, 'mug', top=99, gap_s=-1)[0]) == len(rows)
    assert (first.captions, first.begin_ns) == (20, START)
    assert first.end_ns == START + round(1.9 * SECOND)
    assert first.best['score'] == pytest.approx(0.69) and first.best['stamp'] == first.end_ns
    assert [(p.captions, p.best['bag'], p.best['topic']) for p in (second, third, fourth)] == [
        (1, 'a', '/cam'), (1, 'b', '/cam'), (1, 'a', '/other')]


def test_images_without_a_stamp_have_the_time_of_receipt(make_index):
    path = make_index([{'text': 'a mug', 'score': 0.5, 'stamp': -START / SECOND, 'received': 77}])
    table = pq.read_table(path)
    stamp = pa.array([0], pa.timestamp('ns', tz='UTC'))
    pq.write_table(table.set_column(table.schema.get_field_index('stamp'), 'stamp', stamp), path)
    with open_index(str(path)) as index:
        (passage,), _ = search_index(index, 'mug')
    assert passage.begin_ns == 77


@pytest.mark.parametrize(('one', 'other'), [
    ('mug', 'mugs'), ('box', 'boxes'), ('berry', 'berries'), ('glass', 'glasses'),
    ('bus', 'buses'), ('toy', 'toys'), ('potato', 'potatoes'), ('shoe', 'shoes')])
def test_singular_and_plural_find_each_other(one, other):
    assert other in forms(one) and one in forms(other)


def test_words_are_what_regular_expressions_call_words():
    assert words_of('Red  mug-7!') == ['red', 'mug', '7']
    with pytest.raises(OptionError, match='must have 1 to 32 words'):
        words_of('a ' * 33)


def _main(capsys, monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['caption-ros', 'search', *map(str, words)])
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    return (status, *capsys.readouterr())


def test_the_command_prints_hits_and_its_status_tells_whether_there_are_some(
        make_index, capsys, monkeypatch):
    path = make_index([{'text': 'a red mug', 'score': 0.875, 'stamp': 1, 'bag': '/b/drive',
                        'label': 3, 'x0': 1, 'y0': 2, 'x1': 3, 'y1': 4, 'area_px': 4},
                       {'text': 'a red mug', 'score': 0.5, 'stamp': 2.5, 'bag': '/b/drive'}])
    status, out, err = _main(capsys, monkeypatch, 'red mugs', '--index', path)
    assert (status, out) == (
        0, '/b/drive /cam 1480227351.196105142 +1.5s 2x 0.88 a red mug\n')
    assert err == '2 captions fit, 2 of them in the 1 passages shown\n'
    status, out, err = _main(capsys, monkeypatch, 'red', '--index', path.parent, '--json',
                             '--gap', '0')
    first, second = [json.loads(line) for line in out.splitlines()]
    assert first == {
        'bag': '/b/drive', 'topic': '/cam', 'stamp': {'sec': 1480227351, 'nanosec': 196105142},
        'received_ns': 0, 'text': 'a red mug', 'score': 0.875, 'match': None, 'focus': None,
        'region': {'label': 3, 'box': [1, 2, 3, 4], 'area_px': 4}, 'captions': 1,
        'begin': {'sec': 1480227351, 'nanosec': 196105142},
        'end': {'sec': 1480227351, 'nanosec': 196105142}, 'relevance': 1.2917}
    assert second['region'] is None
    status, out, err = _main(capsys, monkeypatch, 'dragon', '--index', path)
    assert (status, out) == (1, '') and "no caption has all words of 'dragon'" in err


@pytest.mark.parametrize(('name', 'said'), [
    ('none.parquet', 'none.parquet does not exist; make an index with caption-ros bags'),
    ('folder', 'folder/index.parquet does not exist'),
    ('junk.parquet', 'is no index of captions: '),
    ('other.parquet', "is no index of captions: it has no column 'bag'"),
])
def test_what_is_no_index_is_bad_input(tmp_path, capsys, monkeypatch, name, said):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'junk.parquet').write_bytes(b'PAR1 not really PAR1')
    pq.write_table(pa.table({'a': [1]}), tmp_path / 'other.parquet')
    status, out, err = _main(capsys, monkeypatch, 'mug', '--index', tmp_path / name)
    assert (status, out) == (2, '') and said in err and err.count('\n') == 1


@pytest.mark.parametrize('command', [('bags', '.', '--out', 'o'), ('search', 'mug')])
def test_without_the_extra_one_sentence_says_what_to_install(command, capsys, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr(sys, 'argv', ['caption-ros', *command])
    with pytest.raises(SystemExit) as end:
        main()
    _, err = capsys.readouterr()
    assert end.value.code == 2 and err.count('\n') == 1
    assert 'pip install caption_ros[fleet]' in err and 'pyarrow, fsspec' in err
