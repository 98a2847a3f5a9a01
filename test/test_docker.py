# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Dockerfiles, read and not built: what they copy is here, and nothing in them runs as root."""

import fnmatch
import json
import re
import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'docker').glob('*.Dockerfile'))
KNOWN = {'ARG', 'CMD', 'COPY', 'ENTRYPOINT', 'ENV', 'FROM', 'LABEL', 'RUN', 'USER', 'VOLUME',
         'WORKDIR'}


def instructions(text):
    """Return (instruction, arguments) of a Dockerfile, its lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    joined = re.sub(r'\\\n\s*', ' ', '\n'.join(lines))
    return [tuple((line.split(None, 1) + [''])[:2]) for line in joined.splitlines()
            if line.strip()]


def ignored(path):
    """Tell whether .dockerignore keeps a path of the repository out."""
    patterns = [line for line in (ROOT / '.dockerignore').read_text().splitlines()
                if line and not line.startswith('#')]
    return any(fnmatch.fnmatch(path.strip('/'), pattern) for pattern in patterns)


def faults(text):
    """Return what is wrong with a Dockerfile."""
    found, stages, user, last = [], set(), '', {}
    steps = instructions(text)
    if not steps or next(name for name, _ in steps if name != 'ARG') != 'FROM':
        found.append('does not begin with FROM')
    for name, rest in steps:
        last[name] = rest
        if name not in KNOWN:
            found.append(f'{name} is no instruction that is used here')
        if name == 'FROM':
            user = ''
            stages |= set(re.findall(r'\sAS\s+(\S+)', rest))
        if name == 'USER':
            user = rest
        if name == 'COPY':
            options = [word for word in rest.split() if word.startswith('--')]
            sources = [word for word in rest.split() if not word.startswith('--')][:-1]
            stage = [word.removeprefix('--from=') for word in options if '--from=' in word]
            found += [f'no stage {word}' for word in stage if word not in stages]
            if not stage:
                found += [f'{word} is not here' for word in sources
                          if not (ROOT / word).exists() or ignored(word)]
        if name in ('CMD', 'ENTRYPOINT', 'VOLUME') and not isinstance(json.loads(rest), list):
            found.append(f'{name} {rest} is no list')
        if name == 'RUN' and 'apt-get install' in rest and 'rm -rf /var/lib/apt/lists' not in rest:
            found.append('lists of apt stay in the image')
        if name == 'RUN':
            done = subprocess.run(['sh', '-n'], input=rest, text=True, capture_output=True)
            found += [done.stderr] if done.returncode else []
    if user in ('', 'root', '0'):
        found.append('runs as root')
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_a_dockerfile_has_no_fault(path):
    assert faults(path.read_text()) == []


@pytest.mark.parametrize('text, fault', [
    ('RUN true\nUSER a', 'does not begin with FROM'),
    ('FROM a\nRUN true', 'runs as root'),
    ('FROM a\nUSER a\nFROM b', 'runs as root'),
    ('FROM a\nCOPPY x y\nUSER a', 'COPPY is no instruction'),
    ('FROM a\nCOPY setup.py gone.py ./\nUSER a', 'gone.py is not here'),
    ('FROM a\nCOPY test/ test/\nUSER a', 'test/ is not here'),
    ('FROM a\nCOPY --from=b /x /x\nUSER a', 'no stage b'),
    ('FROM a\nRUN apt-get update \\\n  && apt-get install -y x\nUSER a', 'lists of apt'),
    ('FROM a\nRUN if true; then \\\n  echo\nUSER a', 'yntax error')])
def test_the_check_sees_a_fault(text, fault):
    assert any(fault in each for each in faults(text))


def test_there_is_an_image_for_rocm_and_one_for_the_cpu():
    assert [path.name for path in FILES] == ['cpu.Dockerfile', 'rocm.Dockerfile']
    rocm = (ROOT / 'docker/rocm.Dockerfile').read_text()
    # The image's own ROCm build of torch stays, and the build stops if it did not.
    assert '.[keep-torch,' in rocm and 'torch.version.hip' in rocm
    assert 'rocm/pytorch:' in rocm and 'ros:jazzy' in rocm


def test_where_ros_comes_from_reaches_the_image_as_a_file(tmp_path):
    # The package ros2-apt-source puts its file elsewhere, and a link to it into sources.list.d.
    (tmp_path / 'etc/apt/sources.list.d').mkdir(parents=True)
    (tmp_path / 'usr').mkdir()
    (tmp_path / 'usr/ros2.sources').write_text('Types: deb')
    link = tmp_path / 'etc/apt/sources.list.d/ros2.sources'
    link.symlink_to(tmp_path / 'usr/ros2.sources')
    steps = instructions((ROOT / 'docker/rocm.Dockerfile').read_text())
    stage = steps[:[name for name, _ in steps].index('FROM', 3)]
    for name, rest in stage:
        if name == 'RUN':
            subprocess.run(['sh', '-ec', re.sub(r' /', f' {tmp_path}/', rest)], check=True)
    source = next(rest.split()[1] for name, rest in steps
                  if name == 'COPY' and rest.endswith(' /etc/apt/sources.list.d/'))
    copied = tmp_path / source.strip('/') / 'ros2.sources'
    assert copied.read_text() == 'Types: deb' and not copied.is_symlink()


def test_python_finds_the_amdsmi_that_rocm_brings_along(tmp_path):
    steps = instructions((ROOT / 'docker/rocm.Dockerfile').read_text())
    step, = (part for name, rest in steps if name == 'RUN' for part in rest.split(' && ')
             if 'amdsmi.pth' in part)
    python = tmp_path / 'python3'
    python.write_text(f'#!/bin/sh\necho {tmp_path}\n')  # its folder of packages
    python.chmod(0o755)
    subprocess.run(['sh', '-c', step], env={'PATH': f'{tmp_path}:/usr/bin:/bin'}, check=True)
    assert (tmp_path / 'amdsmi.pth').read_text() == '/opt/rocm/share/amd_smi\n'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_everything_that_the_package_installs_is_copied(path, monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **words: given.update(words))
    monkeypatch.chdir(ROOT)
    runpy.run_path('setup.py')
    steps = instructions(path.read_text())
    copied = {word.rstrip('/') for name, rest in steps if name == 'COPY' and '--from' not in rest
              for word in rest.split()[:-1]}
    wanted = {source.split('/')[0] for _, sources in given['data_files'] for source in sources}
    assert wanted | {'caption_ros', 'setup.py', 'setup.cfg', 'README.md'} <= copied
    linked = ' '.join(rest for name, rest in steps if name == 'RUN')
    for script in given['entry_points']['console_scripts']:
        assert f'/opt/caption_ros/bin/{script.split(" = ")[0]} ' in linked
    extras = re.search(r"'\.\[([\w,-]+)\]'", linked)[1].split(',')
    assert set(extras) <= set(given['extras_require'])


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_no_server_is_named_and_caches_are_volumes(path):
    text = path.read_text()
    assert '://' not in text
    volumes = json.loads(dict(instructions(text))['VOLUME'])
    environment = ' '.join(rest for name, rest in instructions(text) if name == 'ENV')
    for variable in ('XDG_CACHE_HOME', 'CAPTION_ROS_MODELS', 'HF_HOME'):
        value = re.search(rf'{variable}=(\S+)', environment)[1]
        assert any(value.startswith(volume) for volume in volumes), variable


def test_the_entrypoint_is_a_script_that_runs_what_is_asked_for(tmp_path):
    script = (ROOT / 'docker/entrypoint.sh').read_text()
    ros = tmp_path / 'jazzy'
    ros.mkdir()
    (ros / 'setup.bash').write_text('export SOURCED=yes\n')
    copy = tmp_path / 'entrypoint.sh'
    copy.write_text(script.replace('/opt/ros/', f'{tmp_path}/'))
    done = subprocess.run(['bash', copy, 'sh', '-c', 'echo $SOURCED $0', 'a b'], text=True,
                          env={'PATH': '/usr/bin:/bin', 'ROS_DISTRO': 'jazzy'},
                          capture_output=True, check=True)
    assert done.stdout == 'yes a b\n'


def test_the_documentation_says_how_to_run_the_image_for_rocm():
    text = (ROOT / 'docs/rocm.md').read_text()
    run = next(block for block in re.findall(r'```sh\n(.*?)```', text, re.S)
               if 'docker run' in block)
    for word in ('--device=/dev/kfd', '--device=/dev/dri', '--group-add video',
                 '--group-add "$(stat -c %g /dev/kfd)"', ':/cache', 'caption_ros:rocm'):
        assert word in run, word
    assert f'docker build -f docker/{FILES[1].name}' in text
