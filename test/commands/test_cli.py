# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: exit status, what it prints, one line on stderr.

Starting Python with torch takes seconds, so most of these run in this process, and each way to end
once as a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from caption_ros.cli import main
from caption_ros.errors import CaptionRosError
from caption_ros.scenes import scene_frame

SHARED = Path(__file__).parents[3] / 'shared'


def _run_process(*words):
    return subprocess.run([sys.executable, '-m', 'caption_ros.cli', *map(str, words)],
                          capture_output=True, text=True, timeout=150)


@pytest.fixture
def run(monkeypatch, capfd):
    """Return a function that runs the program here, as _run_process does elsewhere."""
    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['caption-ros', *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, end.value.code or 0, said.out, said.err)
    return run


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scene')
    frame = scene_frame(0)
    Image.fromarray(frame.rgb).save(folder / 'scene.png')
    Image.fromarray(frame.labels).save(folder / 'mask.png')
    return folder, frame


def test_a_picture_is_captioned_whole_by_mask_and_by_box(scene, run):
    folder, frame = scene
    done = _run_process('image', folder / 'scene.png', '--mask', folder / 'mask.png', '--json',
                        '--describe', 'both')
    assert done.returncode == 0, done.stderr
    captions = json.loads(done.stdout)['captions']
    assert captions[0]['text'] == frame.scene_caption and captions[0]['region'] is None
    assert [c['text'] for c in captions[1:]] == list(frame.region_captions.values())
    box = captions[1]['region']['box']
    done = run('image', folder / 'scene.png', '--box', *box)
    assert done.returncode == 0 and f'region {box}: a ' in done.stdout
    assert 'tabletop knows only its simulated tabletops' in done.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason='no shared photographs')
def test_every_shared_photograph_goes_through(run):
    images = SHARED / 'images'
    masks = {'attn_image.png': ['attn_mountain_bike.png', 'attn_suit.png'],
             'dogs_image.png': ['dogs_Boston_bull.png', 'dogs_Rhodesian_ridgeback.png']}
    for name in ('coco_000000039769.png', 'llava-next_example1.png', *masks):
        words = [word for mask in masks.get(name, ()) for word in ('--mask', images / mask)]
        done = run('image', images / name, *words, '--json')
        assert done.returncode == 0, done.stderr
        captions = json.loads(done.stdout)['captions']
        assert len(captions) == max(1, len(masks.get(name, ())))
        assert all(caption['text'] for caption in captions)


def test_a_broken_file_among_others_is_counted_and_the_rest_goes_on(scene, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0 half a file')
    done = _run_process('image', tmp_path / 'broken.jpg', scene[0] / 'scene.png')
    assert done.returncode == 1
    assert 'broken.jpg' in done.stderr and '1 of 2 pictures failed' in done.stderr
    assert 'scene.png: a ' in done.stdout


@pytest.mark.parametrize('words, text', [
    (['image', 'no.png'], 'no.png does not exist'),
    (['image', '{scene}', '--model', 'bilp'], "'bilp' is unknown; wanted one of tabletop"),
    (['image', '{scene}', '--model', 'vit-gpt2'], 'download nlpconnect/vit-gpt2'),
    (['image', '{scene}', '--focus', 'crop'], 'alpha'),
    (['image', '{scene}', '--focus', 'beam'], 'focus must be one of'),
    (['image', '{scene}', '--num-beams', '0'], 'num_beams must be'),
    (['image', '{scene}', '--box', '0', '0', '0', '9'], 'covers nothing of an image'),
    (['eval', '--scenes', '5', '--first-seed', '99998'], 'evaluation seeds are 0 to 99999'),
    (['train', '{tmp}', '--resume'], 'holds no state to resume'),
])
def test_bad_input_is_one_line_and_status_2(words, text, scene, tmp_path, run):
    words = [word.format(scene=scene[0] / 'scene.png', tmp=tmp_path) for word in words]
    done = (_run_process if words[1:] == ['no.png'] else run)(*words)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith('note:')]
    assert len(lines) == 1 and text in lines[0]


def test_models_tells_what_is_here(run):
    done = run('models', '--json')
    rows = {row['name']: row for row in json.loads(done.stdout)}
    assert rows['tabletop']['local'].endswith('weights/tabletop')
    assert rows['vit-gpt2']['checkpoint'] == 'nlpconnect/vit-gpt2-image-captioning'
    assert {'family', 'focus', 'licence', 'memory_mb_float32'} <= set(rows['blip'])
    assert 'tabletop' in run('models').stdout


def test_a_llava_alone_is_not_the_model_that_sees_regions(run, tmp_path, monkeypatch):
    monkeypatch.setenv('CAPTION_ROS_MODELS', str(tmp_path))
    folder = tmp_path / 'alpha-clip-llava'
    folder.mkdir()
    (folder / 'config.json').write_text('{"model_type": "llava"}')
    for wanted in ('', str(folder)):
        rows = {row['name']: row for row in json.loads(run('models', '--json').stdout)}
        assert rows[folder.name]['local'] == wanted
        (folder / 'clip.pth').touch()


@pytest.mark.parametrize('words, text', [
    (['image'], "Missing argument 'files'"),
    (['image', 'a.png', '--num-beams', 'x'], "Invalid value for '--num-beams'"),
    (['image', 'a.png', '--colour', 'red'], 'No such option'),
    (['say'], "No such command 'say'"),
])
def test_wrong_use_is_one_line_and_status_2(run, words, text):
    done = run(*words)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.count('\n') == 1 and text in done.stderr
    assert done.stderr.startswith('caption-ros: ') and '--help)' in done.stderr


@pytest.mark.parametrize('words', [['--debug', 'image', 'no.png'], ['image', 'no.png', '--debug']])
def test_debug_shows_the_traceback_wherever_it_stands(words, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['caption-ros', *words])
    with pytest.raises(CaptionRosError, match='no.png does not exist'):
        main()


def test_without_a_command_the_help_is_shown(run):
    done = run()
    assert 'Usage: ' in done.stdout and 'Traceback' not in done.stderr


def test_pillow_has_no_word_of_its_own_about_a_large_picture():
    code = ('import io, numpy; from PIL import Image; '
            'from caption_ros.image import rgb_from_compressed as read; file = io.BytesIO(); '
            'Image.new("1", (16384, 6000)).save(file, "PNG"); print(read(file.getvalue()).shape)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          timeout=100)
    assert (done.stdout, done.stderr) == ('(6000, 16384, 3)\n', '')


@pytest.mark.parametrize('words, text', [
    (['--json', '/no/such/folder/out.json'], 'out.json cannot be written'),
    (['--plot', '/no/such/folder/out.png'], 'out.png cannot be written'),
    (['--plot', 'out.doc'], 'is no picture file; wanted one of .png')])
def test_a_bench_that_could_not_be_written_is_not_begun(run, words, text):
    done = run('bench', *words)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and text in done.stderr


@pytest.mark.parametrize('words, text', [
    (['--init', '/no/such/folder'], 'does not exist'), (['--device', 'quantum'], 'device'),
    (['--data', 'no.jsonl'], 'no.jsonl cannot be read')])
def test_a_training_that_cannot_be_is_not_begun(run, tmp_path, words, text):
    data = tmp_path / 'data.jsonl'
    Image.new('RGB', (20, 20)).save(tmp_path / 'a.png')
    data.write_text('{"image": "a.png", "caption": "a"}\n' * 2)
    words = words if '--data' in words else [*words, '--data', data]
    done = run('train', tmp_path / 'out', '--steps', 1, *words)
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and text in done.stderr
    assert not (tmp_path / 'out').exists()


def test_training_leaves_a_folder_that_is_not_empty_alone(run, tmp_path):
    (tmp_path / 'config.json').write_text('precious')
    done = run('train', tmp_path, '--steps', 1)
    assert done.returncode == 2 and 'is not empty; choose another folder' in done.stderr
    assert (tmp_path / 'config.json').read_text() == 'precious'
