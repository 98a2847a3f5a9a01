# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Recordings found and fetched, on disk and elsewhere."""

import errno
import os
import shutil
import zipfile
from collections import namedtuple

import pytest

from caption_ros.bags.recording import Recording
from caption_ros.errors import OptionError, OutputError, RecordingError
from caption_ros.fleet import storage
from caption_ros.fleet.storage import find_sources, open_place, shown


@pytest.fixture
def fleet(tmp_path, bags):
    """A folder with a split-able rosbag2 folder, a file, and things that are no recordings."""
    root = tmp_path / 'in'
    bags.write(root / 'a/drive', bags.camera(3))
    bags.write(tmp_path / 'single', bags.camera(1), 'mcap')
    (root / 'b').mkdir()
    (tmp_path / 'single/single.mcap').rename(root / 'b/one.mcap')
    (root / 'b/notes.txt').write_text('nothing')
    return root


def _names(sources):
    return [source.name for source in sources]


def test_recordings_below_a_folder_are_found_the_largest_first(fleet, tmp_path):
    sources = find_sources(str(fleet), str(tmp_path / 'out'))
    assert _names(sources) == ['a/drive', 'b/one.mcap']
    assert sources[0].size_bytes > sources[1].size_bytes > 0
    assert sources[0].label == str(fleet / 'a/drive')
    assert [source.fetch(tmp_path) for source in sources] == [fleet / 'a/drive',
                                                             fleet / 'b/one.mcap']


def test_the_output_below_the_folder_is_no_source(fleet, bags):
    bags.write(fleet / 'out/a/drive/captioned', bags.camera(1))
    assert len(find_sources(str(fleet), str(fleet / 'out'))) == 2
    assert len(find_sources(str(fleet), str(fleet / 'ou'))) == 3


@pytest.mark.parametrize(('place', 'name'), [('a/drive', 'drive'), ('b/one.mcap', 'one.mcap')])
def test_one_recording_is_a_fleet_too(fleet, place, name):
    (source,) = find_sources(str(fleet / place), '/nowhere')
    assert source.name == name


def test_a_list_names_recordings_and_folders(fleet, tmp_path):
    names = tmp_path / 'list.txt'
    names.write_text(f'# mine\nin/a/drive\n\n{fleet}/b\n{fleet}/b/one.mcap\nfile://{fleet}/none\n')
    sources = find_sources(str(names), '/nowhere')
    below = str(fleet).lstrip('/')
    assert sorted(_names(sources)) == [f'{below}/a/drive', f'{below}/b/one.mcap', f'{below}/none']
    with pytest.raises(RecordingError, match='in/none does not exist'):
        Recording(sources[-1].fetch(tmp_path))


def test_links_to_folders_are_followed_and_loops_end(fleet, tmp_path, bags):
    bags.write(tmp_path / 'disk/far', bags.camera(2))
    (fleet / 'a/linked').symlink_to(tmp_path / 'disk')
    (fleet / 'a/again').symlink_to(fleet / 'a/drive')  # goes by its own path
    (fleet / 'b/up').symlink_to(fleet)
    (fleet / 'b/self').symlink_to(fleet / 'b/self')
    (fleet / 'b/away').symlink_to(tmp_path)  # where OUT lies
    bags.write(tmp_path / 'out/a/drive/captioned', bags.camera(1))
    bags.write(tmp_path / 'beside', bags.camera(1))
    sources = find_sources(str(fleet), str(tmp_path / 'out'))
    assert sorted(_names(sources)) == ['a/drive', 'a/linked/far', 'b/away/beside',
                                       'b/away/single', 'b/one.mcap']
    (far,) = [source for source in sources if source.name == 'a/linked/far']
    assert far.fetch(tmp_path) == fleet / 'a/linked/far'
    assert bags.read(far.fetch(tmp_path)) == bags.read(tmp_path / 'disk/far')


def test_a_link_is_a_place_too(fleet, tmp_path, bags):
    (tmp_path / 'link').symlink_to(fleet)
    bags.write(fleet / 'out/a/drive/captioned', bags.camera(1))
    for out in (fleet / 'out', tmp_path / 'link/out'):
        sources = find_sources(str(tmp_path / 'link'), str(out))
        assert _names(sources) == ['a/drive', 'b/one.mcap']


@pytest.fixture
def close(monkeypatch):
    """Return a function that makes a folder unreadable, for root too, whom no mode stops."""
    scandir, closed = os.scandir, set()

    def refusing(path='.'):
        if os.fspath(path) in closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return scandir(path)

    def close(folder):
        folder.chmod(0)
        if os.geteuid() == 0:
            closed.add(str(folder))
            monkeypatch.setattr(os, 'scandir', refusing)
    return close


@pytest.mark.parametrize('place', ['in', 'list.txt'])
def test_a_folder_that_cannot_be_read_is_bad_input(fleet, tmp_path, close, place):
    (tmp_path / 'list.txt').write_text('in\n')
    close(fleet / 'a')
    with pytest.raises(OptionError, match='^[^ ]*in/a cannot be read: Permission denied; make '):
        find_sources(str(tmp_path / place), str(tmp_path / 'out'))


def test_what_a_disk_keeps_for_itself_is_passed_over(fleet, tmp_path, close):
    (fleet / 'lost+found').mkdir()
    close(fleet / 'lost+found')
    assert len(find_sources(str(fleet), str(tmp_path / 'out'))) == 2


def test_recordings_in_an_archive_and_in_memory_come_as_copies(fleet, tmp_path, copy_to_memory,
                                                               bags):
    archive = tmp_path / 'all.zip'
    with zipfile.ZipFile(archive, 'w') as out:
        for path in fleet.rglob('*'):
            out.write(path, path.relative_to(fleet))
    copy_to_memory(fleet)
    for place, label in ((f'zip://::{archive}', f'zip://a/drive::{archive}'),
                         ('memory://robots', 'memory:///robots/a/drive')):
        sources = find_sources(place, '/nowhere')
        assert _names(sources) == ['a/drive', 'b/one.mcap'] and sources[0].label == label
        for i, source in enumerate(sources):
            folder = tmp_path / f'copy{i}'
            folder.mkdir()
            copy = source.fetch(folder)
            assert copy.is_relative_to(folder)
            assert bags.read(copy) == bags.read(fleet / source.name)
            shutil.rmtree(folder)


def test_an_archive_writes_nowhere_else(tmp_path, bags):
    path = bags.write(tmp_path / 'single', bags.camera(1), 'mcap') / 'single.mcap'
    with zipfile.ZipFile(tmp_path / 'evil.zip', 'w') as out:
        out.write(path, '../../../evil.mcap')
    (source,) = find_sources(f'zip://::{tmp_path}/evil.zip', '/nowhere')
    assert source.name == 'evil.mcap'
    (tmp_path / 'copy').mkdir()
    assert source.fetch(tmp_path / 'copy') == tmp_path / 'copy/recording/evil.mcap'


def test_two_recordings_with_one_place_for_their_results_are_refused(tmp_path, bags, memory):
    path = bags.write(tmp_path / 'single', bags.camera(1), 'mcap') / 'single.mcap'
    (tmp_path / 'list').write_text(f'{path}\n{path}\nmemory://{path}\n')
    with pytest.raises(OptionError, match='results of .* and memory.* would both go to'):
        find_sources(str(tmp_path / 'list'), '/nowhere')


def test_a_copy_has_the_size_that_was_listed_and_room(tmp_path, fleet, memory, copy_to_memory,
                                                        monkeypatch):
    copy_to_memory(fleet)
    source = find_sources('memory://robots/b', '/nowhere')[0]
    few = namedtuple('Usage', 'free')(10 << 20)
    monkeypatch.setattr(storage.shutil, 'disk_usage', lambda folder: few)
    with pytest.raises(OutputError, match='10 MiB free; set TMPDIR'):
        source.fetch(tmp_path)
    monkeypatch.undo()
    memory.pipe_file('/robots/b/one.mcap', b'cut')
    with pytest.raises(RecordingError, match='one.mcap was listed with [0-9]+ bytes and 3 came'):
        source.fetch(tmp_path)


def test_what_fsspec_does_not_know_pyarrow_may_open():
    system, _ = open_place('mock:///bucket')  # pyarrow's own file system for tests
    assert type(system).__name__ == 'ArrowFSWrapper'


@pytest.mark.parametrize(('place', 'kind', 'said'), [
    ('none', RecordingError, 'none holds no recording; give a folder'),
    ('empty', RecordingError, 'empty holds no recording'),
    ('empty.txt', RecordingError, 'empty.txt holds no recording'),
    ('picture.png', OptionError, 'is no recording and cannot be read as a list'),
    ('nonsense://me:secret@there', OptionError, '^nonsense://there cannot be opened'),
])
def test_a_place_without_recordings_is_bad_input(tmp_path, place, kind, said):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty.txt').write_text('\n# nothing\n')
    (tmp_path / 'picture.png').write_bytes(b'\x89PNG\xff')
    with pytest.raises(kind, match=said):
        find_sources(place if '://' in place else str(tmp_path / place), '/nowhere')


def test_passwords_are_not_shown():
    assert shown('ftp://me:secret@host/a::x://b:c@d') == 'ftp://host/a::x://d'
