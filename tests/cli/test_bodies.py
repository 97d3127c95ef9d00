"""Bodies as JSON: where they come from, what is wrong with them, and how they are printed."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from click.testing import Result

from pydotcompute_client.cli import reflection
from tests.cli.command import WAIT
from tests.tools import tool


def test_a_body_comes_from_stdin_or_from_a_file(ok: Callable[..., str], tmp_path: Path) -> None:
    body = '{"a": 6, "b": 7, "operation": "mul"}'
    (tmp_path / "body.json").write_text(body)
    assert json.loads(ok("ask", "calculator", "-", stdin=body))["result"] == 42.0
    assert json.loads(ok("ask", "calculator", f"@{tmp_path / 'body.json'}"))["result"] == 42.0


def test_a_body_may_state_its_type_as_printed_messages_do(ok: Callable[..., str], fail: Callable[..., str]) -> None:
    body = {"@type": "type.googleapis.com/calculator.v1.CalculationRequest", "a": 2}
    assert json.loads(ok("ask", "calculator", json.dumps(body)))["result"] == 2.0
    body["@type"] = "type.googleapis.com/calculator.v1.CalculationResponse"
    error = fail(2, "ask", "calculator", json.dumps(body))
    assert "is of type calculator.v1.CalculationResponse" in error
    assert "takes calculator.v1.CalculationRequest" in error


def test_without_a_body_the_fields_are_told_with_what_they_take(run: Callable[..., Result]) -> None:
    calculator = run("ask", "calculator").stderr.partition("The fields of calculator.v1.CalculationRequest:\n\n")[2]
    assert calculator.splitlines() == [
        "  a          a number",
        "  b          a number",
        "  operation  a text    One of: 'add', 'sub', 'mul', 'div'. If absent: \"add\".",
    ]
    keeper = [line.split("  ") for line in run("send", "keeper").stderr.splitlines()]
    rows = [[part.strip() for part in row if part] for row in keeper if row[0] == "" and len(row) > 1]
    assert [row for row in rows if row[0] in ("inner", "inner.since", "big")] == [
        ["inner", "an object", "Required."],
        ["inner.since", 'a time such as "2000-01-01T00:00:00Z"', "Required."],
        ["big", "an integer", "More than a double holds."],
    ]


def test_without_a_body_an_example_is_shown_that_works(run: Callable[..., Result], ok: Callable[..., str]) -> None:
    for command in ("ask", "send"):
        result = run(command, "calculator")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"Usage: pydotcompute {command} ")
        assert f"pydotcompute {command} calculator '{{" in result.stderr
    sample = result.stderr.partition("'{")[2].partition("}'")[0]
    assert json.loads(ok("ask", "calculator", "{" + sample + "}"))["success"] is True


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('{"text"', ["is no JSON", "line 1 column 8"]),
        (b"\xff", ["is no JSON", "byte 0xff"]),
        ("[" * 100_000, ["is no JSON", "nested too deep"]),
        (b"\xff\xfe{", ["is no JSON: it is not UTF-8: byte 0xff at 0"]),
        ('{"count": ' + "1" * 5001 + "}", ["is no JSON: an integer of 5001 characters is too long"]),
        ("[1]", ["is no cli_kernels.v1.Note", "  $: expected an object, got a list"]),
        ('{"text": 1}', ["  $.text: expected a text, got 1"]),
        (
            '{"count": "many", "tags": {"value": "red"}}',
            ["  $.count: expected an int", "  $.tags.value: expected a list"],
        ),
        ('{"count": 9223372036854775808}', ["  $.count: 9223372036854775808 is outside"]),
        ('{"txt": "x"}', ['  $.txt: no such field: did you mean "text"?; Note has "text", "count", "tags"']),
        ('{"text": "a", "text": "b"}', ["  $.text: the name is there more than once"]),
        ('{"@type": "google.protobuf.Struct", "value": {"count": ""}}', ["  $.value.count: expected an integer"]),
    ],
    ids=[
        *(
            "unfinished",
            "not UTF-8",
            "too deep",
            "UTF-16",
            "too long",
            "a list",
            "no string",
            "two things",
            "too large",
            "unknown",
            "twice",
        ),
        "a Struct",
    ],
)
def test_all_that_is_wrong_with_a_body_is_told_with_its_place(
    fail: Callable[..., str], body: str | bytes, told: list[str]
) -> None:
    for command in ("ask", "send"):
        error = fail(2, command, "silent", "-", stdin=body)
        assert [text for text in told if text not in error] == []
        assert "`pydotcompute ask silent`" in error


def test_what_only_the_daemon_knows_of_a_body_is_told_alike(
    fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("keeper")
    for command in ("ask", "send"):
        error = fail(2, command, kernel, '{"inner": {}, "id": "x"}')
        assert error.splitlines()[1:] == [
            '  $.id: expected a UUID such as "00000000-0000-4000-8000-000000000000", got "x"',
            "  $.inner.since: a value is required, and there is none",
        ]


def test_a_body_may_be_a_struct_as_for_grpcurl(ok: Callable[..., str]) -> None:
    body = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": 10, "b": 5}}
    assert json.loads(ok("ask", "calculator", json.dumps(body)))["result"] == 15.0


def test_grpcurl_and_the_command_take_and_print_the_same(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("keeper")
    fields = {"id": str(UUID(int=1)), "inner": {"since": "2000-01-01T00:00:00Z"}, "big": str(2**63 - 1)}
    body = {"@type": "type.googleapis.com/cli_kernels.v1.Kept", **fields}
    data = json.dumps({"kernel_id": kernel, "message": {"body": body}})
    command = [
        tool("grpcurl"),
        "-plaintext",
        "-emit-defaults",
        "-d",
        data,
        target,
        "pydotcompute.v1.MessageService/Ask",
    ]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=WAIT).stdout)
    ours = json.loads(ok("ask", kernel, json.dumps(body), "--json"))
    assert ours["message"]["body"] == theirs["message"]["body"] == body | {"scale": 1.0}
    assert ours["message"].keys() == theirs["message"].keys()
    printed = ok("ask", kernel, json.dumps(fields))
    assert ok("ask", kernel, printed) == printed, "what is printed can be sent again"
    assert {"@type": body["@type"], **json.loads(printed)} == theirs["message"]["body"]


MIXED = {
    "text": 'tä"xt',
    "whole": 3,
    "half": 0.5,
    "large": 1e16,
    "huge": 1e30,
    "odd": "-Infinity",
    "raw": "AAE=",
    "unit": "UNIT_INCH",
    "when": "2000-01-01T00:00:00.5Z",
    "takes": "1.5s",
    "id": "00000000-0000-4000-8000-000000000000",
    "array": {"dtype": "|u1", "shape": [2], "data": "AAE="},
    "numbers": {"10": 1, "9": 2.5, "-1": 0, "2": 1e-5},
    "flags": {"true": "a", "false": ""},
    "labels": {"b": 1, "a": 0, "B": 2},
    "shapes": [{"circle": {"radius": 0}}, {"square": {"side": 2}}],
    "grid": [{"value": [1, 2]}, {}],
    "pair": [-1, 1e-7],
    "maybe": {"value": []},
}


def test_the_text_of_a_message_is_that_of_grpcurl(
    ok: Callable[..., str], launched: Callable[..., str], target: str
) -> None:
    kernel = launched("mixer")
    data = json.dumps(MIXED)
    method = "cli_kernels.v1.Mixer/Ask"
    header = f"pydotcompute-kernel-id: {kernel}"
    command = [tool("grpcurl"), "-plaintext", "-emit-defaults", "-H", header, "-d", data, target, method]
    theirs = subprocess.run(command, check=True, capture_output=True, timeout=WAIT).stdout.decode()
    theirs = re.sub(r'"(-?[0-9]{1,15})"(?!:)', r"\1", theirs)  # There, 64-bit integers are texts.
    ours = ok("ask", kernel, data)
    assert json.loads(ours) == json.loads(theirs)
    assert "".join(ours.split()) == "".join(theirs.split())
    assert list(json.loads(ours))[:4] == ["text", "zero", "whole", "half"], "zeros are in their place"
    assert ok("ask", kernel, ours) == ours


def test_a_message_of_a_type_that_the_kernel_does_not_declare_is_shown(
    ok: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("vague")
    expected = {"id": str(UUID(int=3)), "inner": {"since": "2000-01-01T00:00:00Z"}, "big": 0, "scale": 1}
    assert json.loads(ok("ask", kernel, '{"count": 3}')) == expected
    ok("send", kernel, '{"count": 3}', "--client-id", "me")
    received = json.loads(ok("receive", kernel, "--client-id", "me", "--json"))
    assert received["message"]["body"] == {"@type": "type.googleapis.com/cli_kernels.v1.Kept", **expected}


def test_a_message_of_a_type_that_nobody_knows_is_shown_in_base64(
    ok: Callable[..., str], launched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As from a daemon without reflection.
    monkeypatch.setattr(reflection, "ServerReflectionStub", Unserved)
    kernel = launched("vague")
    expected = {"@type": "type.googleapis.com/cli_kernels.v1.Secret", "value": "CgF4"}
    assert json.loads(ok("ask", kernel, '{"text": "secret"}')) == expected
    ok("send", kernel, '{"text": "secret"}', "--client-id", "me")
    received = json.loads(ok("receive", kernel, "--client-id", "me", "--json"))
    assert received["message"]["body"] == expected


class Unserved:
    """The stub of a service that the daemon does not have."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.ServerReflectionInfo: grpc.StreamStreamMultiCallable[Any, bytes] = channel.stream_stream(
            "/no.such.Service/ServerReflectionInfo",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=bytes,
        )


def test_dead_letters_have_their_bodies_in_the_same_form(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("repeater", "--input-queue-size", "1", "--backpressure", "drop_oldest")
    ok("deactivate", kernel)
    for text in ("first", "second"):
        ok("send", kernel, json.dumps({"text": text}))
    (letter,) = json.loads(ok("dead-letters", kernel, "--json"))["deadLetters"]
    body = {"text": "first", "count": 0}
    assert letter["message"]["body"] == {"@type": "type.googleapis.com/cli_kernels.v1.Note", **body}
    assert json.dumps(body) in ok("dead-letters", kernel)
    assert ok("send", kernel, json.dumps(letter["message"]["body"]))


def test_a_file_that_is_not_there_is_named(fail: Callable[..., str]) -> None:
    assert "cannot read /no/such/body.json" in fail(2, "ask", "calculator", "@/no/such/body.json")
