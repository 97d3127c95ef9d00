"""What an event of the log looks like, as text and as JSON."""

import json
import logging
import sys
from typing import Any

import pytest

from pydotcompute_server.process.logs import _JsonFormatter, _TextFormatter


def record(text: str = "hello %s", *arguments: object, level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    made = logging.getLogger("a.logger").makeRecord("a.logger", level, "", 0, text, arguments, None, extra=fields)
    made.created = 1_000_000_000.25
    return made


def failed(made: logging.LogRecord) -> logging.LogRecord:
    try:
        raise ValueError("no\nvalue")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_json_has_the_text_the_fields_and_the_time() -> None:
    assert json.loads(_JsonFormatter().format(record("hello %s", "you", kernel_id="a", path=Ellipsis, count=2))) == {
        "event": "hello you",
        "level": "info",
        "logger": "a.logger",
        "kernel_id": "a",
        "path": "Ellipsis",
        "count": 2,
        "timestamp": "2001-09-09T01:46:40.250000Z",
    }


def test_json_has_the_traceback_and_is_one_line() -> None:
    text = _JsonFormatter().format(failed(record("it fails")))
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: no\nvalue")


def test_what_json_has_no_number_for_cannot_be_logged() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _JsonFormatter().format(record("hello", count=float("nan")))


def test_a_line_of_text_has_its_fields_in_order() -> None:
    text = _TextFormatter(colors=False).format(record("hello %s", "you", level=logging.WARNING, b="two words", a=1))
    time, _, rest = text.partition(" ")
    assert time.endswith(":40.250000")
    assert rest == "[warning  ] hello you                      [a.logger] a=1 b='two words'"


def test_a_traceback_is_below_its_line() -> None:
    _, *below, last, value = _TextFormatter(colors=False).format(failed(record("it fails"))).splitlines()
    assert below[0] == "    Traceback (most recent call last):"
    assert (last, value) == ("    ValueError: no", "    value")


@pytest.mark.parametrize(("level", "color"), [("DEBUG", 32), ("INFO", 32), ("WARNING", 33), ("ERROR", 31)])
def test_a_terminal_gets_colors(level: str, color: int) -> None:
    made = record("hello", level=logging.getLevelNamesMapping()[level], key="value")
    text = _TextFormatter(colors=True).format(made)
    assert f"[\x1b[{color}m\x1b[1m{level.lower():9}\x1b[0m]" in text
    assert text.endswith("\x1b[36mkey\x1b[0m=\x1b[35mvalue\x1b[0m")
