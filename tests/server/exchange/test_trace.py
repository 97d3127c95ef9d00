"""The session in bytes of docs/wire.md is one that the daemon has held."""

import os
from collections.abc import Callable
from textwrap import wrap
from typing import Any

import grpc
import pytest

from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from tests.docs.pages import ROOT
from tests.server.exchange.helpers import go_on, pause
from tests.stubs import Talk, Wire

PAGE = ROOT / "docs" / "wire.md"
HEADING = "### A session in bytes\n"
FENCE = "```text\n"

KERNEL = "conformance"
TOKEN = bytes(range(32))
EPOCH = "0123456789abcdef"
REQUESTS = [bytes.fromhex(each * 16) for each in ("a1", "a2")]
REPLIES = [bytes.fromhex(each * 16) for each in ("b1", "b2")]
CREDIT = pb.Credit(messages=100, bytes=1_000_000)


@pytest.fixture(scope="module")
def conformant(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the kernel that the page talks to."""
    return start_daemon("pydotcompute_client.conformance.kernels")


class Trace:
    """The frames of a session, with what is random in them made plain."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines += ["", f"# {text}"]

    def client(self, text: str, frame: pb.ExchangeRequest) -> pb.ExchangeRequest:
        """Note a frame, and return it."""
        plain = pb.ExchangeRequest()
        plain.CopyFrom(frame)
        if plain.open.session_token:
            plain.open.session_token = TOKEN
        self._note("client", text, plain if frame.HasField("open") else frame)
        return frame

    def daemon(self, text: str, frame: pb.ExchangeResponse) -> None:
        plain = pb.ExchangeResponse()
        plain.CopyFrom(frame)
        if plain.WhichOneof("frame"):
            plain.ClearField("accepted")
        if plain.HasField("opened"):
            assert len(plain.opened.session_token) == len(TOKEN)
            assert len(plain.opened.daemon_epoch) == len(EPOCH)
            plain.opened.session_token, plain.opened.daemon_epoch = TOKEN, EPOCH
            for each in plain.opened.types:
                each.ClearField("files")
        if plain.HasField("batch"):
            plain.batch.message_ids = REPLIES[plain.batch.first_sequence - 1]
        self._note("daemon", text, plain)

    def _note(self, side: str, text: str, frame: pb.ExchangeRequest | pb.ExchangeResponse) -> None:
        self.lines += ["", f"{side}: {text}"]
        self.lines += wrap(
            frame.SerializeToString(deterministic=True).hex(" "),
            32 * 3,
            initial_indent="    ",
            subsequent_indent="    ",
        )


def request(number: int) -> pb.ExchangeRequest:
    batch = pb.Batch(first_sequence=number, message_ids=REQUESTS[number - 1], bodies=[bytes([8, 6 + number])])
    return pb.ExchangeRequest(batch=batch)


async def trace(wire: Wire) -> list[str]:
    """Hold the session, and return its trace."""
    one, made = Talk(wire), Trace()

    async def say(text: str, frame: pb.ExchangeRequest) -> None:
        await one.call.write(made.client(text, frame))

    async def hear(text: str, kind: str) -> None:
        await one.hear(kind)
        made.daemon(text, one.frames[-1])

    config = kernel_pb.KernelConfig(input_queue_size=8)
    await wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="k", kernel_type=KERNEL, config=config))
    wire.launched.append("k")
    await wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id="k"))
    await pause(wire, "k")
    await say(
        "open k, with credit for 100 messages and 1,000,000 bytes",
        pb.ExchangeRequest(open=pb.Open(kernel_id="k", credit=CREDIT)),
    )
    await hear("opened, with the token 00 to 1f, and credit for 8 messages and 16 MiB", "opened")
    one.opened = one.frames[-1].opened
    await say("a batch that begins with 1: the id a1…, the body 08 07", request(1))
    one.sent = 1
    await one.until_accepted(1)
    made.daemon("accepted through 1", pb.ExchangeResponse(accepted=one.accepted))
    await go_on(wire, "k")
    await hear("a batch that begins with 1: the id b1…, which answers a1…", "batch")
    one.acks = 1
    await say("ack 1, through 1", pb.ExchangeRequest(ack=pb.Ack(number=1, through=1)))
    await one.heard()
    made.daemon("accepted through 1, and ack 1 has come", pb.ExchangeResponse(accepted=one.accepted))
    await say("a batch that begins with 2: the id a2…", request(2))
    await one.received(2)
    made.say("The stream is cut. The client has not seen the reply, which is sequence 2 of the daemon's.")
    one.cut()
    one.calls.append(wire.messages.Exchange())
    one.seen = 1
    opening = pb.Open(kernel_id="k", session_token=one.opened.session_token, received_through=1, credit=CREDIT)
    await say("open k again, with the token; everything through 1 has come", pb.ExchangeRequest(open=opening))
    await hear("opened; everything through 2 has come, and ack 1", "opened")
    await hear("the batch that begins with 2, again: the id b2…, which answers a2…", "batch")
    last = pb.ExchangeRequest(ack=pb.Ack(number=2, through=2), bye=pb.Bye())
    await say("bye, and ack 2, through 2", last)
    assert await one.ended() is grpc.StatusCode.OK
    made.say("The daemon ends the stream with OK.")
    return made.lines[1:]


async def test_the_page_shows_a_session_that_the_daemon_holds(conformant: Any) -> None:
    async with grpc.aio.insecure_channel(conformant.target) as channel:
        wire = Wire(channel)
        made = "\n".join(await trace(wire)) + "\n"
        await wire.terminate("k", timeout=0.5)
    before, section = PAGE.read_text().split(HEADING)
    start = section.index(FENCE) + len(FENCE)
    end = section.index("```", start)
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(f"{before}{HEADING}{section[:start]}{made}{section[end:]}")
    else:
        assert section[start:end] == made, "the frames have changed; run with UPDATE_GOLDEN=1"
