"""Cases of Exchange in which the client breaks a rule: the session ends with MESSAGE_INVALID, and words."""

from __future__ import annotations

from collections.abc import Callable

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_client.conformance.daemon import Case, Daemon
from pydotcompute_client.conformance.probes import probe
from pydotcompute_client.conformance.results import require
from pydotcompute_client.conformance.talk import Talk, reason_of

__all__ = ["VIOLATIONS"]


def _refuses(break_it: Callable[[Talk], object]) -> Callable[[Daemon], None]:
    """Return a case: after this frame, which breaks a rule, the session is over."""

    def try_it(daemon: Daemon) -> None:
        talk = daemon.talk()
        talk.begin(daemon.launch(input_queue_size=8))
        break_it(talk)
        _require_invalid(talk)
        talk.say_first(open=pb.Open(kernel_id=talk.kernel_id, session_token=talk.opened.session_token))
        require((ending := talk.ending()) == "SESSION_LOST", f"the session is not over: {ending}")

    return try_it


def _require_invalid(talk: Talk) -> None:
    status = talk.status()
    require(status is not None, "the stream ends with OK")
    assert status is not None
    require(reason_of(status) == "MESSAGE_INVALID", f"the stream ends with {reason_of(status)}")
    require(status.message, "the stream ends without words")


def _first_frame(daemon: Daemon) -> None:
    talk = daemon.talk()
    talk.say_first(ack=pb.Ack(number=1))
    _require_invalid(talk)


def _received_ahead(daemon: Daemon) -> None:
    talk = daemon.talk()
    opened = talk.begin(daemon.launch())
    talk.cut()
    opening = pb.Open(kernel_id=talk.kernel_id, session_token=opened.session_token, received_through=1)
    talk.say_first(open=opening)
    _require_invalid(talk)


VIOLATIONS = (
    Case("first-frame", "The first frame is `open`.", _first_frame),
    Case("received-ahead", "`open.received_through` is no more than what was sent.", _received_ahead),
    Case(
        "second-open", "`open` is sent once.", _refuses(lambda talk: talk.say(open=pb.Open(kernel_id=talk.kernel_id)))
    ),
    Case("nothing", "A frame has something in it.", _refuses(lambda talk: talk.say())),
    Case(
        "later-version",
        "A frame of a later version is refused.",
        _refuses(lambda talk: talk.say_bytes(b"\x9a\x06\x00")),
    ),
    Case("gap", "Sequences are consecutive.", _refuses(lambda talk: talk.send(probe(), first=3))),
    Case("sequence-0", "Sequences begin with 1.", _refuses(lambda talk: talk.send(probe(), first=0))),
    Case("empty-batch", "A batch has a message.", _refuses(lambda talk: talk.send())),
    Case("over-credit", "Messages are within the daemon's credit.", _refuses(lambda talk: talk.send(*[probe()] * 9))),
    Case("columns", "Columns fit together.", _refuses(lambda talk: talk.send(probe(), ids=[bytes(15)]))),
    Case("priority", "A priority is at most 255.", _refuses(lambda talk: talk.send(probe(), priorities=[256]))),
    Case("ack-0", "An Ack has a number, from 1.", _refuses(lambda talk: talk.say(ack=pb.Ack(through=0)))),
    Case("ack-ahead", "An Ack is of what was sent.", _refuses(lambda talk: talk.ack(1))),
    Case("returned", "What is returned is an output under way.", _refuses(lambda talk: talk.ack(returned=[1]))),
    Case("withdrawn-id", "An id has 16 bytes.", _refuses(lambda talk: talk.ack(withdrawn=[b"short"]))),
    Case(
        "inquiry-ids",
        "Ids of an inquiry have 16 bytes.",
        _refuses(lambda talk: talk.say(inquiry=pb.Inquiry(message_ids=b"x"))),
    ),
    Case(
        "part-gap",
        "Parts follow each other.",
        _refuses(lambda talk: talk.say(part=pb.Part(body_bytes=9, offset=5, data=b"x"))),
    ),
    Case(
        "no-parts",
        "Before `body_in_parts` the parts have come.",
        _refuses(lambda talk: talk.send(b"", body_in_parts=True)),
    ),
)
"""The cases, in the order in which they are tried."""
