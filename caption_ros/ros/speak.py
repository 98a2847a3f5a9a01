# Copyright 2026 caption_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""speak: says the narration aloud with a text-to-speech program such as espeak-ng."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.node import Node
from std_msgs.msg import String

from caption_ros.errors import OptionError
from caption_ros.mailbox import Mailbox
from caption_ros.ros.parameters import ParameterSpec, declare, values_of
from caption_ros.ros.spinning import run_node

_MOST_LETTERS = 1000
_SENTENCE_TIMEOUT_S = 60.0

SPEAK_PARAMETERS = (
    ParameterSpec('command', 'espeak-ng --stdin', 'Program that says what it reads from its '
                  'input, with its arguments; started for each sentence, without a shell.'),
)


class Speaker:
    """Says one sentence at a time; of those that come meanwhile only the newest.

    Args:
        command: Program and arguments; the text goes to its standard input.
        warn: Takes what went wrong, one line; called on the speaker's thread.

    Raises:
        OptionError: If there is no such program.
    """

    def __init__(self, command: str, warn: Callable[[str], None]) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise OptionError(f'command {command!r} cannot be read: {error}') from error
        if not self._command or shutil.which(self._command[0]) is None:
            raise OptionError(f'command {command!r} names no program of this machine; install '
                              'espeak-ng or set command to a program that reads text from its '
                              'input')
        self._warn = warn
        self._sentences: Mailbox[str] = Mailbox()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.said = 0
        self._thread = threading.Thread(target=self._run, name='speaker', daemon=True)
        self._thread.start()

    @property
    def left_out(self) -> int:
        """Sentences that a newer one replaced before they could be said."""
        return self._sentences.dropped

    def say(self, text: str) -> None:
        """Say a text as soon as the one in work is over."""
        text = ' '.join(text.split())[:_MOST_LETTERS]
        if text:
            self._sentences.put(text)

    def close(self) -> None:
        """Fall silent at once."""
        self._sentences.close()
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._sentences.is_closed:
            text = self._sentences.take()
            if text is not None:
                self._speak(text)

    def _speak(self, text: str) -> None:
        with self._lock:
            if self._sentences.is_closed:
                return
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE)
            except OSError as error:
                self._warn(f'{self._command[0]} cannot be started: {error}')
                return
        try:
            _, errors = self._process.communicate(f'{text}\n'.encode(errors='replace'),
                                                  _SENTENCE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self._warn(f'{self._command[0]} did not end within {_SENTENCE_TIMEOUT_S:.0f} s of '
                       'speech: ended it')
            return
        if self._process.returncode == 0:
            self.said += 1
        elif not self._sentences.is_closed:
            said = errors.decode(errors='replace').strip().splitlines()
            self._warn(f'{self._command[0]} ended with status {self._process.returncode}'
                       + (f': {said[-1]}' if said else ''))


class SpeakNode(Node):
    """Says each narration aloud."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('speak', **kwargs)
        self._speaker: Speaker | None = None
        refused = declare(self, SPEAK_PARAMETERS, read_only=True)
        if refused:
            raise OptionError('; '.join(refused.values()))
        self._speaker = Speaker(values_of(self, SPEAK_PARAMETERS)['command'],
                                lambda text: self.get_logger().warning(
                                    text, throttle_duration_sec=5.0))
        self.create_subscription(String, 'narration', self._on_narration, 10)

    def _on_narration(self, message: String) -> None:
        if self._speaker is not None:
            self._speaker.say(message.data)

    def destroy_node(self) -> None:
        """Fall silent and destroy the node."""
        if self._speaker is not None:
            self._speaker.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> None:
    """Run the node."""
    run_node(SpeakNode, args)


if __name__ == '__main__':
    main()
