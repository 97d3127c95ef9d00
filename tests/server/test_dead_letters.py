"""DeadLetterService by its stub, and the two commands that use it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from click.testing import CliRunner, Result

from pydotcompute.ring_kernels import DeadLetterReason
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute_client import RemoteRuntime, UnreadableMessage, connect, dead_letters
from pydotcompute_client.cli.main import main
from tests.stubs import PATIENCE, Failure, Wire, failure_of

MAX_MESSAGE_BYTES = 800_000

KERNELS = '''
from dataclasses import dataclass
from pydotcompute import message, ring_kernel

@message
@dataclass
class Note:
    text: str = ""
    count: int = 0

@ring_kernel(input_type=Note, output_type=Note, input_queue_size=1, backpressure="drop_oldest")
async def last(ctx):
    """Keeps the last note alone while it is paused."""
    async for note in ctx:
        await ctx.send(Note(note.text, correlation_id=note.message_id))

@ring_kernel(input_type=Note, output_type=Note)
async def scribbler(ctx):
    """Answers with a text so many times as long; one that says "spoil" with what turns out to be no text at all."""
    async for note in ctx:
        answer = Note(note.text * note.count, correlation_id=note.message_id)
        await ctx.send(answer)
        if note.text == "spoil":
            answer.text = object()
'''


@pytest.fixture(scope="module")
def daemon(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon with the kernel types above, and a limit for a message's size."""
    file: Path = tmp_path_factory.mktemp("kernels") / "notes.py"
    file.write_text(KERNELS)
    return start_daemon(str(file), "--max-message-bytes", str(MAX_MESSAGE_BYTES))


async def clog(wire: Wire, texts: list[str]) -> str:
    """A paused kernel that has dropped all of these but the last."""
    kernel_id = await wire.launch("last")
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for text in texts:
        await wire.send(kernel_id, text=text)
    return kernel_id


async def page(wire: Wire, kernel_id: str, **request: Any) -> pb.ListDeadLettersResponse:
    """A page of a kernel's dead letters."""
    answer: pb.ListDeadLettersResponse = await wire.dead_letters.ListDeadLetters(
        pb.ListDeadLettersRequest(kernel_id=kernel_id, **request)
    )
    return answer


async def requeue(wire: Wire, kernel_id: str, *ids: int) -> pb.RequeueDeadLettersResponse:
    answer: pb.RequeueDeadLettersResponse = await wire.dead_letters.RequeueDeadLetters(
        pb.RequeueDeadLettersRequest(kernel_id=kernel_id, ids=ids)
    )
    return answer


def ids(listed: pb.ListDeadLettersResponse) -> list[int]:
    return [letter.id for letter in listed.dead_letters]


# -- listing -----------------------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_listed_with_all_there_is_to_know(wire: Wire) -> None:
    kernel_id = await wire.launch("last")
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    await wire.describe(kernel_id)
    sent = message_pb.Message(
        message_id=str(uuid4()), priority=7, correlation_id=str(uuid4()), body=wire.body("notes.v1.Note", text="ü")
    )
    await wire.messages.Send(message_pb.SendRequest(kernel_id=kernel_id, message=sent))
    await wire.send(kernel_id, text="b")
    listed = await page(wire, kernel_id)
    (letter,) = listed.dead_letters
    assert (letter.id, letter.message, letter.problem) == (1, sent, "")
    assert letter.reason == pb.DEAD_LETTER_REASON_DROPPED
    assert letter.direction == pb.DEAD_LETTER_DIRECTION_TO_KERNEL
    assert "dropped to make room" in letter.detail
    assert abs(letter.time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() < 60
    assert (listed.next_page_token, listed.discarded) == ("", 0)


async def test_the_types_of_the_bodies_come_with_them(wire: Wire) -> None:
    kernel_id = await clog(wire, ["a", "b", "c"])
    listed = await page(wire, kernel_id)
    fresh = Wire(wire.channel)
    (message_type,) = listed.types
    fresh.learn(message_type)
    assert [fresh.fields(letter.message.body)["text"] for letter in listed.dead_letters] == ["a", "b"]


async def test_pages_have_every_dead_letter_once_also_when_more_come_meanwhile(wire: Wire) -> None:
    kernel_id = await clog(wire, list("abcdef"))
    first = await page(wire, kernel_id, page_size=2)
    assert (ids(first), bool(first.next_page_token)) == ([1, 2], True)
    await wire.send(kernel_id, text="g")
    await requeue(wire, kernel_id, 1)
    second = await page(wire, kernel_id, page_size=2, page_token=first.next_page_token)
    third = await page(wire, kernel_id, page_size=2, page_token=second.next_page_token)
    assert (ids(second), ids(third), third.next_page_token) == ([3, 4], [5, 6], "")


async def test_a_page_has_a_hundred_if_it_is_not_said_and_a_thousand_at_most(wire: Wire) -> None:
    kernel_id = await clog(wire, ["x"] * 1_005)
    await wire.until(kernel_id, messages_dropped=1_004)
    assert len((await page(wire, kernel_id)).dead_letters) == 100
    listed = await page(wire, kernel_id, page_size=5_000)
    assert (ids(listed), listed.next_page_token, listed.discarded) == (list(range(5, 1_005)), "", 4)


async def test_a_page_of_large_messages_is_short_and_a_larger_one_has_its_own(wire: Wire) -> None:
    kernel_id = await clog(wire, ["x" * size for size in (200_000, 200_000, 200_000, 700_000, 1, 1)])
    pages: list[list[int]] = []
    token = ""
    while not pages or token:
        listed = await page(wire, kernel_id, page_token=token)
        token = listed.next_page_token
        pages.append(ids(listed))
    assert pages == [[1, 2], [3], [4], [5]]


async def test_a_message_that_cannot_be_encoded_is_listed_without_its_body(wire: Wire) -> None:
    kernel_id = await wire.launch("scribbler")
    for text, count in (("a", 1), ("spoil", 1), ("b", 2)):
        await wire.send(kernel_id, text=text, count=count, client_id="quiet")
    await wire.until(kernel_id, messages_processed=3)
    await forget(wire, kernel_id, "quiet")
    await wire.until(kernel_id, messages_dropped=3)
    listed = await page(wire, kernel_id)
    first, spoilt, last = listed.dead_letters
    assert [wire.fields(letter.message.body)["text"] for letter in (first, last)] == ["a", "bb"]
    assert not spoilt.message.HasField("body")
    assert "$.text: expected str, got object" in spoilt.problem
    assert UUID(spoilt.message.correlation_id)
    assert {letter.reason for letter in listed.dead_letters} == {pb.DEAD_LETTER_REASON_CALLER_GONE}


async def forget(wire: Wire, kernel_id: str, client_id: str) -> None:
    """Have the daemon forget a client, whose replies then become dead letters: there are a thousand after it."""
    for number in range(1_000):
        await wire.send(kernel_id, client_id=f"{client_id} {number}")


async def test_a_reply_that_is_too_long_is_listed_without_its_body_and_fits_nowhere(daemon: Any, wire: Wire) -> None:
    kernel_id = await wire.launch("scribbler")
    async with connect(daemon.target) as runtime:
        note: Any = (await runtime.describe(kernel_id)).input_type
        with pytest.raises(Exception, match="the limit is 800000"):
            await runtime.send_and_receive(kernel_id, note(text="x" * 1_000, count=1_000), timeout=PATIENCE)
        (letter,) = await runtime.fetch_dead_letters(kernel_id)
    assert letter.reason is DeadLetterReason.UNDELIVERABLE
    (listed,) = (await page(wire, kernel_id)).dead_letters
    assert (listed.message.HasField("body"), listed.reason) == (False, pb.DEAD_LETTER_REASON_UNDELIVERABLE)
    assert "the limit is 800000" in listed.problem


async def test_a_reply_that_no_unary_call_can_return_is_a_dead_letter_and_stays_one(wire: Wire) -> None:
    kernel_id = await wire.launch("scribbler")
    await wire.send(kernel_id, text="spoil", count=1)
    assert (await failure_of(wire.receive(kernel_id))).reason == "MESSAGE_INVALID"
    assert (await failure_of(wire.ask(kernel_id, text="spoil", count=1))).reason == "MESSAGE_INVALID"
    letters = (await page(wire, kernel_id)).dead_letters
    assert [(letter.id, letter.reason) for letter in letters] == [
        (number, pb.DEAD_LETTER_REASON_UNDELIVERABLE) for number in (1, 2)
    ]
    answer = await requeue(wire, kernel_id)
    assert (list(answer.ids), answer.remaining) == ([], 2), "it is not of the kernel's type"


@pytest.mark.parametrize("token", ["next", "-1", "1.0", "²", "1" * 21])
async def test_a_page_token_that_is_none_is_refused(wire: Wire, token: str) -> None:
    kernel_id = await wire.launch("last")
    problem, path = "not a token of ours", "$.page_token"
    detail = {
        "message_type": "ListDeadLettersRequest",
        "problem": problem,
        "path": path,
        "violations": [(path, problem)],
    }
    failure = await failure_of(page(wire, kernel_id, page_token=token))
    assert failure == Failure(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID", detail, [(path, problem)])


# -- putting back ------------------------------------------------------------------------------------------------------


async def test_no_ids_are_all_of_them(wire: Wire) -> None:
    kernel_id = await wire.launch("scribbler")
    await wire.kernels.Deactivate(kernel_pb.DeactivateRequest(kernel_id=kernel_id))
    for text in "ab":
        await failure_of(wire.ask(kernel_id, timeout=0, text=text, count=1))
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    await wire.until(kernel_id, messages_dropped=2)
    answer = await requeue(wire, kernel_id)
    assert (list(answer.ids), answer.remaining) == ([1, 2], 0)
    received = [wire.fields((await wire.receive(kernel_id)).body)["text"] for _ in range(2)]
    assert sorted(received) == ["a", "b"]


async def test_requeue_tells_which_were_put_back_and_how_many_are_left(wire: Wire) -> None:
    kernel_id = await clog(wire, list("abcd"))
    answer = await requeue(wire, kernel_id)
    assert (list(answer.ids), answer.remaining) == ([], 3)
    await wire.kernels.Reactivate(kernel_pb.ReactivateRequest(kernel_id=kernel_id))
    await wire.until(kernel_id, messages_processed=1)
    answer = await requeue(wire, kernel_id, 2, 9)
    assert (list(answer.ids), answer.remaining) == ([2], 2)
    await wire.until(kernel_id, messages_processed=2)
    assert ids(await page(wire, kernel_id)) == [1, 3]


async def test_errors_have_their_reasons(wire: Wire) -> None:
    for call in (page(wire, "nobody"), requeue(wire, "nobody")):
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
    kernel_id = await wire.launch("last", activate=False)
    assert ids(await page(wire, kernel_id)) == []
    detail = {
        "kernel_id": kernel_id,
        "state": "LAUNCHED",
        "operation": "requeue_dead_letters",
        "allowed_states": ["ACTIVE", "DEACTIVATED"],
    }
    failure = await failure_of(requeue(wire, kernel_id))
    assert failure == Failure(grpc.StatusCode.FAILED_PRECONDITION, "KERNEL_STATE_INVALID", detail)


# -- the Python client -------------------------------------------------------------------------------------------------


async def test_the_client_reads_every_page(daemon: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "LARGEST_PAGE", 2)
    kernel_id = await clog(wire, list("abcdef"))
    async with connect(daemon.target) as remote:
        letters = await remote.fetch_dead_letters(kernel_id)
        assert remote.get_dead_letters(kernel_id) == letters
    assert [letter.message.text for letter in letters] == list("abcde")


async def test_a_message_that_cannot_be_had_is_represented_by_its_header(daemon: Any, wire: Wire) -> None:
    kernel_id = await wire.launch("scribbler")
    async with connect(daemon.target) as remote:
        note: Any = (await remote.describe(kernel_id)).input_type
        sent = note(text="spoil", count=1, priority=9)
        await lose_the_reply(remote, kernel_id, sent)
        (letter,) = await remote.fetch_dead_letters(kernel_id)
    found = letter.message
    assert isinstance(found, UnreadableMessage)
    assert (found.correlation_id, found.priority) == (sent.message_id, 128)
    assert "expected str, got object" in found.problem


async def lose_the_reply(remote: RemoteRuntime, kernel_id: str, message: Any) -> None:
    with pytest.raises(Exception, match="expected str, got object"):
        await remote.send_and_receive(kernel_id, message, timeout=PATIENCE)


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(daemon: Any) -> Callable[..., Result]:
    """Runs the command in this process."""

    def run(*arguments: str) -> Result:
        env = {"PYDOTCOMPUTE_TARGET": daemon.target}
        return CliRunner().invoke(main, arguments, env=env, prog_name="pydotcompute")

    return run


@pytest.fixture
def kernel(run: Callable[..., Result]) -> Iterator[str]:
    """A paused kernel that has dropped three notes, and has one in its mailbox."""
    kernel_id = f"last-{uuid4().hex[:8]}"
    run("launch", kernel_id, "--type", "last", "--activate")
    run("deactivate", kernel_id)
    for text in ("first", "second " * 20, "third\nline", "fourth"):
        assert run("send", kernel_id, json.dumps({"text": text}), "--client-id", "sender").exit_code == 0
    yield kernel_id
    run("terminate", kernel_id)


def test_dead_letters_are_a_table_of_one_line_each(run: Callable[..., Result], kernel: str) -> None:
    shown = run("dead-letters", kernel)
    assert (shown.exit_code, shown.stderr) == (0, "")
    head, first, second, third = shown.stdout.splitlines()
    assert head.split() == ["ID", "TIME", "DIRECTION", "REASON", "BODY", "DETAIL"]
    assert first.split()[0] == "1"
    assert abs(datetime.fromisoformat(" ".join(first.split()[1:3])).timestamp() - datetime.now().timestamp()) < 60
    assert first.split()[3:5] == ["TO_KERNEL", "DROPPED"]
    assert '{"text": "first", "count": 0}' in first
    assert "dropped to make room" in first
    assert "second second" in second
    assert "…" in second
    assert "second " * 20 not in second
    assert third.split()[0] == "3"


def test_dead_letters_as_json_are_whole(run: Callable[..., Result], kernel: str) -> None:
    document = json.loads(run("dead-letters", kernel, "--json").stdout)
    assert document["discarded"] == 0
    assert [letter["id"] for letter in document["deadLetters"]] == [1, 2, 3]
    second = document["deadLetters"][1]
    assert second["message"]["body"]["text"] == "second " * 20
    assert second["reason"] == "DEAD_LETTER_REASON_DROPPED"
    assert UUID(second["message"]["messageId"])


async def test_the_table_says_how_many_are_gone_and_shows_those_without_a_body(
    run: Callable[..., Result], daemon: Any, wire: Wire
) -> None:
    kernel_id = await clog(wire, ["x"] * 1_003)
    shown = run("dead-letters", kernel_id).stdout.splitlines()
    assert len(shown) == 1 + 1_000 + 2
    assert shown[-2:] == ["", "2 older ones are gone"]
    spoilt = await wire.launch("scribbler")
    async with connect(daemon.target) as remote:
        note: Any = (await remote.describe(spoilt)).input_type
        await lose_the_reply(remote, spoilt, note(text="spoil", count=1))
    (_, row) = run("dead-letters", spoilt).stdout.splitlines()
    assert row.split()[3:6] == ["FROM_KERNEL", "UNDELIVERABLE", "-"]


def test_a_kernel_without_dead_letters_has_an_empty_table(run: Callable[..., Result], kernel: str) -> None:
    run("reactivate", kernel)
    for number in "123":
        assert run("requeue", kernel, number).exit_code == 0
        assert run("receive", kernel).exit_code == 0
    shown = run("dead-letters", kernel)
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 1)


def test_requeue_says_what_it_has_done_and_fails_if_that_is_not_all(run: Callable[..., Result], kernel: str) -> None:
    full = run("requeue", kernel, "--all")
    assert (full.exit_code, full.stdout) == (1, "requeued: none\n")
    assert full.stderr == "error: 3 not requeued, for want of room or as not of the kernel's types\n"
    run("reactivate", kernel)
    for _ in range(4):
        run("receive", kernel, "--client-id", "sender")
    some = run("requeue", kernel, "2", "9")
    assert (some.exit_code, some.stdout) == (1, "requeued: 2\n")
    assert some.stderr.endswith("no such dead letter: 9\n")
    run("receive", kernel)
    one = run("requeue", kernel, "3", "--json")
    assert (one.exit_code, json.loads(one.stdout)) == (0, {"ids": [3], "remaining": 1})
    run("receive", kernel)
    rest = run("requeue", kernel, "--all")
    assert (rest.exit_code, rest.stdout, rest.stderr) == (0, "requeued: 1\n", "")


@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["first"], ["0"]], ids=" ".join)
def test_requeue_wants_ids_or_all(run: Callable[..., Result], kernel: str, arguments: list[str]) -> None:
    result = run("requeue", kernel, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_both_commands_complete_kernels(run: Callable[..., Result], daemon: Any, kernel: str) -> None:
    for command in ("dead-letters", "requeue"):
        words = {"COMP_WORDS": f"pydotcompute {command} ", "COMP_CWORD": "2", "PYDOTCOMPUTE_TARGET": daemon.target}
        env = {"_PYDOTCOMPUTE_COMPLETE": "bash_complete", **words}
        assert f"plain,{kernel}" in CliRunner().invoke(main, [], env=env, prog_name="pydotcompute").stdout.split()
