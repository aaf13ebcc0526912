"""Text that changes nothing around it when it is printed, whatever the names in it."""

from __future__ import annotations

import unicodedata

# Control, format (such as the marks of right-to-left text) and half characters, and separators of lines.
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # part of Persian words and of emoji


def printable(text: str) -> str:
    r"""One line of text. Characters that move the cursor, switch colours or turn the text around become escapes.

    ESC is written as ``\x1b``, a new line as ``\n``. A byte of a file name that is no UTF-8, which Python keeps as half
    a character, is written as that byte.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _ESCAPED:
        return character
    if "\udc80" <= character <= "\udcff":
        return rf"\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
