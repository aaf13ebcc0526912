"""User errors. The command line prints them in one line and exits with code 2."""

from __future__ import annotations

import re

_QUOTED = 80  # characters of a value in a message
_WORD = 300  # of a path or a name
_MESSAGE = 1200  # of a whole message
_TAIL = 300  # the end of a long message stays: it says what to do


class InputError(Exception):
    """Bad input. The message is one line: the file or key, what is wrong, and the remedy.

    Values that come from outside may be long: the message leaves out their middle.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_one_line(str(message)))


def quoted(value: object) -> str:
    """A value as an error message shows it: its ``repr``, without the middle of a long one."""
    if isinstance(value, str) and len(value) > _QUOTED:
        return f"{value[: _QUOTED - 15]!r}... ({len(value)} characters)"
    try:
        text = repr(value)
    except ValueError:  # Python prints no integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."


def _one_line(message: str) -> str:
    """The message in one line, without the middle of what is very long."""
    text = re.sub(rf"\S{{{_WORD},}}", lambda word: f"{word[0][:60]}...{word[0][-20:]}", " ".join(message.split()))
    return text if len(text) <= _MESSAGE else f"{text[: _MESSAGE - _TAIL]} ... {text[-_TAIL:]}"
