# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A picture of what a bench measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caption_ros.errors import CaptionRosError

_LABELS = {'regions': 'regions of a frame', 'cameras': 'cameras in a batch',
           'image': 'size of the image', 'tokens': 'tokens'}


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw ratios, and growth curves if there are any.

    Args:
        figures: What measure() returned, with ``growth`` from growth() if wanted.
        path: Picture to write; its ending is its format.

    Raises:
        CaptionRosError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaptionRosError('a plot needs matplotlib, which is not installed: '
                              "pip install 'caption_ros[plots]'") from error
    curves = {name: points for name, points in figures.get('growth', {}).items()
              if name in _LABELS}
    figure = Figure(figsize=(4 + 3 * len(curves), 3.5), layout='constrained')
    axes = figure.subplots(1, 1 + len(curves), squeeze=False)[0]
    rows = figures['ratios']
    middle = [row['ratio'] for row in rows]
    # Whiskers go from a median: a ratio of medians may lie outside of the rounds' own range.
    below = [max(row['ratio'] - row['low'], 0) for row in rows]
    above = [max(row['high'] - row['ratio'], 0) for row in rows]
    axes[0].barh([row['what'] for row in rows], middle, xerr=[below, above], capsize=4,
                 color=['C1' if row['what'].endswith(', again') else 'C0' for row in rows])
    for place, row in enumerate(rows):
        axes[0].annotate(f' {row["ratio"]:.1f}', (max(row['high'], row['ratio']), place),
                         xytext=(4, 0), textcoords='offset points', va='center')
    axes[0].margins(x=0.25)  # for the numbers
    axes[0].invert_yaxis()  # the first on top
    axes[0].axvline(1, color='black', linewidth=0.8)
    axes[0].set_xlabel('times as fast as published code')
    for axis, (name, points) in zip(axes[1:], curves.items()):
        axis.plot([str(x) for x, _ in points], [ms for _, ms in points], marker='o')
        axis.set_xlabel(_LABELS[name])
        axis.set_ylabel('ms a batch' if name == 'cameras' else 'ms a frame')
        axis.set_ylim(0, 1.1 * max(ms for _, ms in points))
        axis.tick_params(axis='x', labelrotation=30 if name == 'image' else 0)
    figure.suptitle(f'{figures["model"]}, {figures["dtype"]} on {figures["device"]}')
    figure.savefig(path, dpi=120)
