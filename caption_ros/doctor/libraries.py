# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Libraries that convert images, and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from caption_ros.doctor.finding import INFO, OK, PROBLEM, Finding, one_line


def check_conversion() -> Iterator[Finding]:
    """Convert one pixel of an image message with each library."""
    fixes = {'rosbags': 'pip install rosbags-image',
             'cv_bridge': "install your ROS's cv_bridge; a numpy 1 build of it fails beside "
                          'numpy 2'}
    failures = {name: _conversion_failure(name) for name in fixes}
    # Each stands in for the other, so only the lack of both stops anybody.
    level = PROBLEM if all(failures.values()) else INFO
    names = {'rosbags': 'rosbags-image', 'cv_bridge': 'cv_bridge'}
    for backend, failure in failures.items():
        if failure:
            note = '' if level == PROBLEM else '; the other one is used'
            yield Finding(names[backend], level, f'not usable ({failure}){note}', fixes[backend])
        else:
            yield Finding(names[backend], OK, 'converts images')


def _conversion_failure(backend: str) -> str:
    from caption_ros.image import rgb_from_raw
    try:
        pixel = rgb_from_raw(bytes((3, 2, 1)), height=1, width=1, step=3, encoding='bgr8',
                             backend=backend)
    except Exception as error:  # a library built for another numpy raises anything
        return one_line(error)
    return '' if pixel.tolist() == [[[1, 2, 3]]] else f'bgr8 3 2 1 became {pixel.tolist()}'


def check_models() -> Iterator[Finding]:
    """Look for the checkpoints of known models; nothing is downloaded."""
    from caption_ros.captioners import KNOWN, local_checkpoint, models_folder, ready_checkpoint
    for card in KNOWN.values():
        folder = local_checkpoint(card)
        name = f'model {card.name}'
        if folder is not None and ready_checkpoint(card) is None:
            yield Finding(name, INFO, f'{folder} is here without {card.also}; needed '
                          'only if you choose it',
                          f'put it into {models_folder() / card.name}')
        elif folder is not None:
            yield Finding(name, OK, str(folder))
        elif card.is_packaged:
            yield Finding(name, PROBLEM, 'ships with the package and is not there',
                          'install caption_ros again')
        else:
            yield Finding(name, INFO, 'not on this machine; needed only if you choose it (looked '
                          f'in {models_folder() / card.name} and {_hub_cache()})',
                          f'hf download {card.checkpoint} --local-dir '
                          f'{models_folder() / card.name}')


def _hub_cache() -> str:
    from huggingface_hub import constants
    return str(constants.HF_HUB_CACHE)
