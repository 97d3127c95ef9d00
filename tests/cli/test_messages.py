"""The commands that exchange messages: ask, send, receive and acknowledge."""

import json
from collections.abc import Callable
from uuid import UUID

from tests.cli.command import WAIT, start


def test_the_installed_command_asks_the_calculator(target: str) -> None:
    with start(target, "ask", "calculator", '{"a":10,"b":5}') as process:
        stdout, stderr = process.communicate(timeout=WAIT)
    assert (process.returncode, stderr) == (0, b"")
    assert json.loads(stdout) == {"result": 15.0, "success": True}


def test_ask_prints_the_whole_message_as_json(ok: Callable[..., str]) -> None:
    message = json.loads(ok("ask", "calculator", '{"a": 1, "b": 0, "operation": "div"}', "--json"))["message"]
    assert UUID(message["messageId"]) != UUID(message["correlationId"])
    assert message["priority"] == 128
    assert message["body"] == {
        "@type": "type.googleapis.com/calculator.v1.CalculationResponse",
        "result": 0.0,
        "success": False,
        "error": "Division by zero",
    }


def test_what_was_sent_is_answered_to_the_same_client_id(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator")
    first = ok("send", kernel, '{"a": 1}', "--client-id", "one").strip()
    second = json.loads(ok("send", kernel, '{"a": 2}', "--client-id", "two", "--json"))["messageId"]
    reply = json.loads(ok("receive", kernel, "--client-id", "two", "--json"))["message"]
    assert (reply["correlationId"], reply["body"]["result"]) == (second, 2.0)
    reply = json.loads(ok("receive", kernel, "--client-id", "one", "--json"))["message"]
    assert (reply["correlationId"], reply["body"]["result"]) == (first, 1.0)
    assert "timed out after 0.01 s" in fail(4, "receive", kernel, "--client-id", "one", "--timeout", "0.01")


def test_what_was_sent_to_another_run_of_the_daemon_is_lost_and_one_is_told(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator")
    epoch = json.loads(ok("send", kernel, '{"a": 1}', "--json"))["daemonEpoch"]
    assert epoch
    ok("send", kernel, '{"a": 2}', "--daemon-epoch", epoch)
    received = json.loads(ok("receive", kernel, "--daemon-epoch", epoch, "--json"))
    assert received["daemonEpoch"] == epoch
    for command in (["send", kernel, "{}"], ["receive", kernel]):
        told = fail(1, *command, "--daemon-epoch", "earlier")
        assert "the daemon has restarted since (its epoch was earlier and is" in told
        assert "what was sent before and not answered is lost" in told


def test_receive_takes_as_many_messages_as_it_is_told(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("repeater")
    ok("send", kernel, '{"text": "again and again", "count": 3}')
    bodies = [json.loads(line) for line in ok("receive", kernel, "--count", "3").splitlines()]
    assert bodies == [{"text": "again and again", "count": index} for index in range(3)]


def test_what_was_received_with_a_lease_is_acknowledged_by_its_delivery_id(
    ok: Callable[..., str], fail: Callable[..., str], launched: Callable[..., str]
) -> None:
    kernel = launched("calculator")
    for a in range(2):
        ok("send", kernel, json.dumps({"a": a}))
    delivery_id, _, body = ok("receive", kernel, "--lease", "60s").partition(" ")
    assert (UUID(delivery_id).version, json.loads(body)) == (4, {"result": 0.0, "success": True})
    received = json.loads(ok("receive", kernel, "--lease", "60", "--json"))
    assert (received["message"]["body"]["result"], received["redelivered"]) == (1.0, False)
    assert ok("acknowledge", kernel, delivery_id, received["deliveryId"]) == "2 acknowledged\n"
    assert json.loads(ok("acknowledge", kernel, delivery_id, "--json")) == {"unknownDeliveryIds": []}
    assert "or never received with a lease: 7f3a, 7f3b" in fail(1, "acknowledge", kernel, "7f3a", delivery_id, "7f3b")
    assert "at most 600 s" in fail(1, "receive", kernel, "--lease", "601")


def test_a_higher_priority_is_handled_sooner(ok: Callable[..., str], launched: Callable[..., str]) -> None:
    kernel = launched("calculator")
    ok("deactivate", kernel)
    for a, options in enumerate([["--priority", "1"], [], ["--priority", "255"]]):
        ok("send", kernel, json.dumps({"a": a}), *options)
    ok("reactivate", kernel)
    assert [json.loads(line)["result"] for line in ok("receive", kernel, "--count", "3").splitlines()] == [2, 1, 0]


def test_a_kernel_without_message_types_takes_no_messages(fail: Callable[..., str], ok: Callable[..., str]) -> None:
    assert "declared without an input_type" in fail(1, "ask", "private", "{}")
    assert "INPUT         -" in ok("describe", "private")
