# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from PIL import Image

from caption_ros.errors import CaptionRosError, OptionError
from caption_ros.scenes import FIRST_TRAINING_SEED
from caption_ros.training import samples as module
from caption_ros.training.samples import JsonlSamples, TabletopSamples


def test_no_evaluation_seed_is_ever_trained_on(monkeypatch):
    seeds = []
    real = module.TabletopStream

    def record(seed, *size):
        seeds.append(seed)
        return real(seed, *size)
    monkeypatch.setattr(module, 'TabletopStream', record)
    source = TabletopSamples(2, 6, (16, 20))
    for step in (0, 1, 1000):
        source.batch(step)
    assert min(seeds) >= FIRST_TRAINING_SEED and len(set(seeds)) == len(seeds) >= 6


def test_a_step_gives_the_same_batch_each_time():
    source = TabletopSamples(2, 6, (16, 20))
    for first, second in zip(source.batch(3), source.batch(3)):
        assert first.caption == second.caption and np.array_equal(first.rgb, second.rgb)


def test_cells_name_the_object_under_the_mask():
    source = TabletopSamples(4, 12, (16, 20))
    for sample in source.batch(0):
        if sample.mask is None:
            continue
        size = sample.cells[..., 2][_middle(sample.mask)]
        assert sample.caption.split()[1] == ('small', 'large')[int(size) - 1]


def _middle(mask):
    rows, cols = np.nonzero(mask)
    i = np.argmin(np.hypot(rows - rows.mean(), cols - cols.mean()))
    return rows[i] * 16 // mask.shape[0], cols[i] * 20 // mask.shape[1]


@pytest.fixture
def folder(tmp_path):
    for name in 'ab':
        Image.new('RGB', (40, 30), 'red').save(tmp_path / f'{name}.png')
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    return tmp_path


def _write(folder, *rows):
    path = folder / 'data.jsonl'
    path.write_text('\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_users_file_gives_image_mask_and_box(folder):
    path = _write(folder, {'image': 'a.png', 'caption': 'held out'},
                  {'image': 'a.png', 'caption': 'one', 'mask': 'mask.png'},
                  {'image': 'b.png', 'caption': 'two', 'box': [1, 2, 11, 22]})
    source = JsonlSamples(path, batch_size=2)
    by_caption = {sample.caption: sample for sample in source.batch(0)}
    assert by_caption['one'].mask.sum() == 15 * 15
    assert by_caption['two'].mask.sum() == 10 * 20
    assert [sample.caption for sample in source.held_out()] == ['held out']


@pytest.mark.parametrize('row, text', [
    pytest.param('{"image"', 'line 2: not JSON', id='broken line'),
    pytest.param({'image': 'a.png'}, 'non-empty "caption"', id='no caption'),
    pytest.param({'image': 'a.png', 'caption': 'x', 'bbox': [1]}, 'keys are', id='unknown key'),
    pytest.param({'image': 'no.png', 'caption': 'x'}, "line 2: image 'no.png' is no file",
                 id='no picture'),
    pytest.param({'image': 'a.png', 'caption': 'x', 'mask': 'no.png'}, "mask 'no.png' is no file",
                 id='no mask'),
    pytest.param({'image': 'a.png', 'caption': 'x', 'box': [1, 2, 'a', 4]},
                 'a box of four numbers', id='box of letters'),
    pytest.param({'image': 'a.png', 'caption': 'x', 'box': [1, 2, 3]}, 'a box of four numbers',
                 id='short box'),
    pytest.param('{"image": "a.png", "caption": "x", "box": [1, 2, NaN, 4]}',
                 'a box of four numbers', id='NaN'),
    pytest.param({'image': 'iVBOR' * 200, 'caption': 'x'}, "line 2: image 'iVBOR.{75}' is no file",
                 id='picture in base64'),
    pytest.param({'image': 'a.png', 'caption': 'x \ud83d'}, 'line 2: the caption holds half a',
                 id='half a letter'),
    pytest.param('{"image": "a.png", "caption": "x", "box": [1, 2, ' + '9' * 5000 + ', 4]}',
                 'line 2: not JSON', id='endless number'),
    pytest.param('{"image": "a.png", "caption": "x", "box": [1, 2, ' + '9' * 400 + ', 4]}',
                 'a box of four numbers', id='long number'),
    pytest.param({'image': 'a.png', 'caption': 'x', 'box': [20, 10, 5, 8]},
                 r'x0 < x1 and y0 < y1, got \[20, 10, 5, 8\]', id='corner and size'),
])
def test_a_bad_line_is_named(folder, row, text):
    with pytest.raises(CaptionRosError, match=text):
        JsonlSamples(_write(folder, {'image': 'a.png', 'caption': 'x'}, row), 2)


def test_a_mask_of_another_size_is_scaled_and_one_of_nothing_refused(folder):
    Image.fromarray(np.full((2, 2), 255, np.uint8)).save(folder / 'small.png')
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / 'empty.png')
    rows = [{'image': 'a.png', 'caption': 'x', 'mask': name}
            for name in ('small.png', 'empty.png')]
    samples = JsonlSamples(_write(folder, *rows), 1)
    (sample,) = samples.held_out()
    assert sample.mask.shape == sample.rgb.shape[:2] and sample.mask.all()
    with pytest.raises(OptionError, match="line 2: mask 'empty.png' marks nothing"):
        samples.batch(0)


def test_a_file_may_begin_with_a_mark_and_must_be_utf_8(folder):
    row = json.dumps({'image': 'a.png', 'caption': 'x'})
    path = folder / 'data.jsonl'
    path.write_text(f'{row}\n{row}', 'utf-8-sig')
    assert JsonlSamples(path, 1).batch(0)
    path.write_bytes(row.encode('utf-16'))
    with pytest.raises(OptionError, match='data.jsonl cannot be read'):
        JsonlSamples(path, 1)


def test_a_caption_may_hold_separators_that_are_no_line_ends_of_json(folder):
    caption = 'one\u2028two\x85three'
    row = json.dumps({'image': 'a.png', 'caption': caption}, ensure_ascii=False)
    path = folder / 'data.jsonl'
    path.write_bytes(f'{row}\r\n{row}\r\n'.encode())
    assert JsonlSamples(path, 1).captions() == [caption] * 2


def test_a_frame_comes_again_in_later_batches_with_other_phrases():
    source = TabletopSamples(6, 6, (16, 20), passes=3)
    now, later = (source.batch(step) for step in (100, 100 + module._PASS_GAP))
    again = [sample for sample in later if any(sample.rgb is old.rgb for old in now)]
    assert {sample.caption for sample in again if sample.mask is None} <= {
        sample.caption for sample in now}
    assert len({id(sample.rgb) for sample in again}) == 4 and len(later) == 12


def test_a_resumed_run_draws_the_frames_of_earlier_steps():
    unbroken, resumed = (TabletopSamples(3, 3, (16, 20), passes=3) for _ in range(2))
    unbroken.batch(5)
    for first, second in zip(unbroken.batch(7), resumed.batch(7)):
        assert first.caption == second.caption and np.array_equal(first.rgb, second.rgb)


def test_cells_say_which_object_it_is_from_the_left():
    frame = module.TabletopStream(7).frame(0)
    cells = module.cell_labels(frame, 16, 20)
    middle = _middle(frame.exact_labels == 2)
    assert cells[middle][3] == 2 and cells.max(axis=(0, 1))[3] == len(frame.region_captions)
