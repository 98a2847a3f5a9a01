# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The program ``caption-ros``: commands, and one line on stderr for what goes wrong."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from caption_ros import __version__
from caption_ros.commands.bag import bag
from caption_ros.commands.bags import bags
from caption_ros.commands.bench import bench
from caption_ros.commands.convert import convert
from caption_ros.commands.demo import demo
from caption_ros.commands.doctor import doctor
from caption_ros.commands.evaluate import evaluate
from caption_ros.commands.image import image
from caption_ros.commands.models import models
from caption_ros.commands.replay import replay
from caption_ros.commands.search import search
from caption_ros.commands.train import train
from caption_ros.commands.web import web
from caption_ros.errors import (
    CaptionRosError,
    CheckpointError,
    ImageFormatError,
    OptionError,
    RecordingError,
    RegionError,
)

_BAD_INPUT = (CheckpointError, ImageFormatError, OptionError, RecordingError,
              RegionError)

_INTERRUPTED = 130

app = typer.Typer(name='caption-ros', no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False,
                  help='Say what a camera sees, and what is at the thing a mask points at.')
app.command()(demo)
app.command()(image)
app.command()(bag)
app.command()(bags)
app.command()(search)
app.command()(replay)
app.command()(models)
app.command()(doctor)
app.command()(train)
app.command('eval')(evaluate)
app.command()(bench)
app.command()(web)
app.add_typer(convert, name='convert')


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f'caption-ros {__version__}')
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, '--debug', help='Show tracebacks.'),
    version: bool = typer.Option(False, '--version', callback=_version, is_eager=True,
                                 help='Show the version and stop.'),
) -> None:
    pass


def main() -> None:
    """Run the program; exit 2 for bad input, 1 for a failed job."""
    debug = '--debug' in sys.argv
    words = [word for word in sys.argv[1:] if word != '--debug']  # behind the command, too
    try:
        # Not standalone, wrong use is raised and not drawn as a box.
        status = app(words, standalone_mode=False)
        if status == _INTERRUPTED:  # typer makes that of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(status if isinstance(status, int) else 0)
    except CaptionRosError as error:
        if debug:
            raise
        typer.echo(f'caption-ros: {error}', err=True)
        sys.exit(2 if isinstance(error, _BAD_INPUT) else 1)
    except KeyboardInterrupt:
        typer.echo('caption-ros: stopped', err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:  # the last catch: a user sees a sentence, a developer --debug
        if hasattr(error, 'format_message'):  # of click, which newer typers bring themselves
            _tell_wrong_use(error)
        if debug:
            raise
        typer.echo(f'caption-ros: {type(error).__name__}: {error} '
                   '(run with --debug for the traceback)', err=True)
        sys.exit(1)


def _tell_wrong_use(error: Any) -> NoReturn:
    if type(error).__name__ == 'NoArgsIsHelpError':
        error.show()
    else:
        context = getattr(error, 'ctx', None)
        hint = '' if context is None else f' (see {context.command_path} --help)'
        typer.echo(f'caption-ros: {" ".join(error.format_message().split())}{hint}', err=True)
    sys.exit(error.exit_code)


if __name__ == '__main__':
    main()
