"""Text from elsewhere, made safe to print."""

import json
import unicodedata

import pytest

from pydotcompute.exceptions import KernelFailedError, KernelNotFoundError
from pydotcompute.printable import escaped, escaped_json, escaped_lines

EVERYTHING = "".join(map(chr, range(0x11000)))
CONTROLS = {character for character in EVERYTHING if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")}
DIRECTIONS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c")


def test_controls_and_directions_are_escaped_and_nothing_else() -> None:
    assert {character for character in EVERYTHING if escaped(character) != character} == CONTROLS | DIRECTIONS
    assert escaped(EVERYTHING).encode().isascii() is False


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
        ("a\nb\r", r"a\nb\r"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\x9b2J", r"\x9b2J"),
        ("\ud800", r"\ud800"),
        ("größe 日本　語 👩\u200d🔬 C:\\new", "größe 日本　語 👩\u200d🔬 C:\\new"),
    ],
)
def test_the_escape_is_that_of_a_literal(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_lines_stay_lines_and_are_indented() -> None:
    assert escaped_lines("a\tb\r\nc\rd\x1b\ne", "  ") == "a\tb\n  c\\rd\\x1b\n  e"


def test_json_means_the_same() -> None:
    document = [*EVERYTHING, dict.fromkeys(CONTROLS | DIRECTIONS, 1)]
    shown = escaped_json(json.dumps(document, ensure_ascii=False))
    assert json.loads(shown) == document
    assert not (CONTROLS | DIRECTIONS) & set(shown)


def test_an_error_has_its_fields_as_they_are_and_a_text_that_is_safe() -> None:
    error = KernelFailedError("a", "ValueError", "\x1b[2J\nmore")
    assert error.cause_message == "\x1b[2J\nmore"
    assert str(error) == "kernel 'a' failed: ValueError: \\x1b[2J\nmore"
    assert "\x1b" not in str(KernelNotFoundError("a", ["\x1b[2J"]))
