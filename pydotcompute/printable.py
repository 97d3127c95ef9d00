r"""Makes text that comes from elsewhere safe to print on a terminal, in a log or in an error.

A control character can move the cursor, write the clipboard or begin a line that looks like another program's. A
character that changes the direction of writing can make a text look like another one. Both are printed as Python would
write them in a literal, such as `\x1b`; all other characters stay.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "escaped_json", "escaped_lines"]

_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BREAKS = "\u2028\u2029"
_LONE_SURROGATES = "\ud800-\udfff"

_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f{_BREAKS}{_DIRECTIONS}{_LONE_SURROGATES}]")
_UNSAFE_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BREAKS}{_DIRECTIONS}{_LONE_SURROGATES}]")
_UNSAFE_IN_JSON = re.compile(f"[\x7f-\x9f{_BREAKS}{_DIRECTIONS}{_LONE_SURROGATES}]")


def _python(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def escaped(text: str) -> str:
    r"""Return a text as one line without control characters: `a\nb` becomes `a`, a backslash, `n` and `b`."""
    return _UNSAFE.sub(_python, text)


def escaped_lines(text: str, indent: str = "") -> str:
    """Return a text of several lines without control characters other than tabs and line feeds.

    Args:
        indent: begins every line but the first, so that none of them passes for a line of somebody else.
    """
    return _UNSAFE_IN_LINES.sub(_python, text.replace("\r\n", "\n")).replace("\n", f"\n{indent}")


def escaped_json(document: str) -> str:
    r"""Return JSON in which the characters that are not safe to print are written as `\u202e`. It means the same."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
