"""Cases of Exchange in which the client keeps to the rules."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from google.rpc import code_pb2

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute_client.conformance.daemon import Case, Daemon
from pydotcompute_client.conformance.probes import TYPE, number_in, probe
from pydotcompute_client.conformance.results import BrokenError, require
from pydotcompute_client.conformance.talk import Incoming, Talk, reason_of

__all__ = ["SESSIONS"]


def _probes(*numbers: int) -> list[bytes]:
    return [probe(number) for number in numbers]


def _numbers(messages: list[Incoming]) -> list[int]:
    return [number_in(message.body) for message in messages]


def _begun(daemon: Daemon, credit: int = 1_000, **config: Any) -> Talk:
    """Return a session with a new kernel."""
    talk = daemon.talk()
    talk.begin(daemon.launch(**config), credit=credit)
    return talk


def _require_replies(talk: Talk, sent: list[bytes]) -> None:
    """Raise BrokenError unless these requests, and no others, are answered in the session, once each and in order."""
    talk.hear_messages(len(sent))
    answers = [message.answers for message in talk.received]
    require(answers == sent, f"{len(sent)} requests have {len(answers)} replies, to others or in another order")


def _open(daemon: Daemon) -> None:
    opened = _begun(daemon).opened
    names = [each.full_name for each in opened.types]
    require(opened.session_token, "`opened` has no token")
    require(names == [TYPE], f"`opened` has the types {names}")
    require(opened.types[0].files.file, "`opened` does not define its types")
    require(opened.credit.messages and opened.credit.bytes, "`opened` gives no credit")
    require(not opened.received_through and not opened.acks_received, "a new session has received something")
    require(opened.session_timeout.ToNanoseconds() > 0, "`opened` has no session_timeout")


def _batch(daemon: Daemon) -> None:
    talk = _begun(daemon)
    sent = talk.send(*_probes(*range(100)))
    talk.until_accepted(100)
    _require_replies(talk, sent)
    require(_numbers(talk.received) == [*range(100)], "the bodies are others")


def _credit(daemon: Daemon) -> None:
    talk = _begun(daemon, credit=0)
    sent = talk.send(*_probes(1, 2, 3))
    talk.until_accepted(3)
    daemon.until(talk.kernel_id, messages_processed=3)
    for credit in (1, 3):
        talk.ack(credit=credit)  # A reply before it would be beyond the credit, which `Talk` notices.
        talk.hear_messages(credit)
    _require_replies(talk, sent)


def _daemon_credit(daemon: Daemon) -> None:
    talk = _begun(daemon, input_queue_size=8)
    daemon.pause(talk.kernel_id)
    credit = talk.opened.credit.messages
    talk.send(*_probes(*range(credit)))
    talk.until_accepted(credit)
    require(talk.accepted.credit.messages == credit, "a full mailbox gives credit")
    daemon.go_on(talk.kernel_id)
    while talk.accepted.credit.messages <= credit:
        talk.hear("accepted")


def _full(daemon: Daemon, credit: int) -> Talk:
    """Return a session that has two messages in a mailbox of that size, and has sent three more."""
    talk = daemon.talk()
    rejecting = pb.BACKPRESSURE_STRATEGY_REJECT
    talk.begin(daemon.launch(input_queue_size=2, backpressure_strategy=rejecting), credit=credit)
    daemon.pause(talk.kernel_id)
    talk.send(*_probes(1, 2))
    talk.until_accepted(2)
    talk.send(*_probes(3, 4), first=3)
    talk.send(*_probes(5), first=5)
    return talk


def _refused(daemon: Daemon) -> None:
    talk = _full(daemon, credit=1_000)
    refusals = talk.hear_refusals(3)
    require([each.sequence for each in refusals] == [3, 4, 5], "other sequences are refused")
    require({reason_of(each.status) for each in refusals} == {"QUEUE_FULL"}, "the reason is not QUEUE_FULL")
    talk.until_accepted(5)
    daemon.go_on(talk.kernel_id)
    talk.hear_messages(2)
    require(_numbers(talk.received) == [1, 2], "the session does not go on")


def _refused_without_credit(daemon: Daemon) -> None:
    talk = _full(daemon, credit=0)
    talk.hear_refusals(3)
    talk.until_accepted(5)


def _resume(daemon: Daemon) -> None:
    talk = _begun(daemon)
    sent = talk.send(*_probes(1, 2, 3))
    talk.until_accepted(3)
    talk.hear_messages(3)
    replies = talk.received[1:]
    talk.cut()
    opened = talk.resume(received_through=1)
    require(opened.received_through == 3, f"`opened` says received through {opened.received_through}, and not 3")
    del talk.received[1:]
    talk.hear_messages(3)
    require(talk.received[1:] == replies, "what comes again is something else")
    sent += talk.send(*_probes(4))
    _require_replies(talk, sent)


def _resend(daemon: Daemon) -> None:
    talk = _begun(daemon)
    sent = talk.send(*_probes(1, 2, 3))
    talk.until_accepted(3)
    talk.cut()
    talk.resume()
    talk.send(*_probes(1, 2, 3), first=1, ids=sent)
    sent += talk.send(*_probes(4))
    _require_replies(talk, sent)
    daemon.until(talk.kernel_id, messages_processed=4)


def _taken_over(daemon: Daemon) -> None:
    first = _begun(daemon)
    sent = first.send(*_probes(1))
    _require_replies(first, sent)
    second = daemon.talk()
    second.take_over(first)
    status = first.status()
    require(status is not None, "the stream that has lost its session ends with OK")
    assert status is not None
    require(status.code == code_pb2.ABORTED and not status.details, f"it ends with {reason_of(status)}")
    require(status.message, "it ends without words")
    second.send(*_probes(2))
    second.hear_messages(1)


def _bye_and_token(daemon: Daemon) -> None:
    talk = _begun(daemon)
    talk.say(bye=pb.Bye())
    require((ending := talk.ending()) == "OK", f"the stream ends with {ending} after `bye`")
    require((ending := _refused_opening(talk)) == "SESSION_LOST", f"resuming it is {ending}, and not SESSION_LOST")


def _half_close(daemon: Daemon) -> None:
    talk = _begun(daemon)
    daemon.pause(talk.kernel_id)
    sent = talk.send(*_probes(1))
    talk.until_accepted(1)
    talk.half_close()
    require((ending := talk.ending()) == "OK", f"the stream ends with {ending}")
    require(talk.resume().received_through == 1, "the session has not received the message")
    daemon.go_on(talk.kernel_id)
    _require_replies(talk, sent)


def _unknown_token(daemon: Daemon) -> None:
    talk = daemon.talk()
    talk.kernel_id = daemon.launch()
    ending = _refused_opening(talk, session_token=uuid4().bytes)
    require(ending == "SESSION_LOST", f"it is {ending}")


def _other_kernel(daemon: Daemon) -> None:
    talk = _begun(daemon)
    other = daemon.talk()
    other.opened = talk.opened
    ending = _refused_opening(other, kernel_id="")
    require(ending == "MESSAGE_INVALID", f"an `open` that names no kernel is {ending}")
    _require_replies(talk, talk.send(*_probes(1)))


def _refused_opening(talk: Talk, **fields: object) -> str:
    """Return how the daemon ends a stream that it does not answer with `opened`."""
    try:
        talk.resume(**fields)
    except BrokenError:
        return talk.ending()
    raise BrokenError("`open` is answered with `opened`")


def _error_in_bye(daemon: Daemon) -> None:
    talk = daemon.talk()
    talk.say_first(open=pb.Open(kernel_id=f"nobody-{uuid4().hex}", error_in_bye=True))
    status = talk.hear("bye").status
    require(reason_of(status) == "KERNEL_NOT_FOUND", f"`bye` has {reason_of(status)}")
    talk.half_close()
    require((ending := talk.ending()) == "KERNEL_NOT_FOUND", f"the stream ends with {ending}")


def _outputs(daemon: Daemon) -> None:
    talk = _begun(daemon)
    talk.send(probe(9, outputs=4))
    talk.hear_messages(1)
    require(not talk.received[0].is_output, "an output comes that nobody has asked for")
    talk.ack(1, outputs=3)
    talk.hear_messages(4)
    outputs = talk.received[1:]
    require(_numbers(outputs) == [0, 1, 2], f"the outputs are {_numbers(outputs)}")
    require(all(each.is_output for each in outputs), "outputs are not marked")
    talk.ack(3, returned=[4], outputs=2)
    other = daemon.talk()
    other.begin(talk.kernel_id)
    other.ack(outputs=1)
    other.hear_messages(1)
    require(other.received[0].message_id == outputs[2].message_id, "what was returned does not go to the next client")


def _withdrawn(daemon: Daemon) -> None:
    talk = _begun(daemon)
    daemon.pause(talk.kernel_id)
    first, second = talk.send(*_probes(1, 2))
    talk.until_accepted(2)
    talk.ack(withdrawn=[first])
    talk.until_acknowledged()
    daemon.go_on(talk.kernel_id)
    _require_replies(talk, [second])


def _undeliverable(daemon: Daemon) -> None:
    talk = _begun(daemon)
    talk.send(*_probes(1, 2))
    talk.hear_messages(2)
    talk.ack(2, undeliverable=[1])
    daemon.until(talk.kernel_id, messages_dropped=1)


def _ack_again(daemon: Daemon) -> None:
    talk = _begun(daemon)
    talk.send(*_probes(1, 2))
    talk.hear_messages(2)
    talk.ack(2, undeliverable=[1])
    talk.say(ack=pb.Ack(number=1, through=2, undeliverable=[1]))
    talk.ack(2)
    talk.until_acknowledged()


def _inquiry(daemon: Daemon) -> None:
    talk = _begun(daemon)
    require(talk.opened.explains, "`opened.explains` is not set")
    daemon.pause(talk.kernel_id)
    sent = talk.send(*_probes(1, 2))
    talk.until_accepted(2)
    talk.say(inquiry=pb.Inquiry(message_ids=sent[1], receive=True))
    delays = talk.hear("explanation").delays
    require([each.message_id for each in delays] == [sent[1], b""], "the explanation is of other requests")
    require(delays[0].before == 1, f"{delays[0].before} messages are before the second")


def _parts(daemon: Daemon) -> None:
    talk = daemon.talk()
    opened = talk.begin(daemon.launch(), part_bytes=4_096)
    require(opened.part_bytes >= 4_096, f"`opened.part_bytes` is {opened.part_bytes}")
    body, size = probe(5, "long " * 2_000), 4_096
    for offset in range(0, len(body), size):
        talk.say(part=pb.Part(body_bytes=len(body), offset=offset, data=body[offset : offset + size]))
    sent = talk.send(b"", body_in_parts=True)
    _require_replies(talk, sent)
    require(talk.received[0].body == body, "the reply has another body")
    require("part" in talk.kinds, "the reply has not come in parts, though it is longer than the client's part_bytes")


def _ending_kernel(daemon: Daemon) -> None:
    talk = _begun(daemon)
    sent = talk.send(*_probes(1))
    _require_replies(talk, sent)
    daemon.terminate(talk.kernel_id)
    require(reason_of(talk.hear("closed").status) == "KERNEL_STATE_INVALID", "`closed` has another reason")
    require(reason_of(talk.hear("bye").status) == "KERNEL_STATE_INVALID", "`bye` has another reason")
    talk.ack(1)
    talk.say(bye=pb.Bye())
    require((ending := talk.ending()) == "OK", f"the stream ends with {ending}")


def _unknown_field(daemon: Daemon) -> None:
    talk = _begun(daemon)
    batch = pb.Batch(first_sequence=1, message_ids=uuid4().bytes, bodies=_probes(1)).SerializeToString()
    batch += b"\xf2\x3e\x03new"  # Field 1006, of bytes.
    talk.say_bytes(b"\x12" + bytes([len(batch)]) + batch)
    talk.sent = 1
    talk.hear_messages(1)


SESSIONS = (
    Case("open", "`open` is answered with `opened`: a token, the types with their files, credit.", _open),
    Case("batch", "Each request is accepted, and answered once, in order.", _batch),
    Case("credit", "Messages are sent as far as the client's credit goes, and no further.", _credit),
    Case("daemon-credit", "A full mailbox gives no credit, and gives some again as there is room.", _daemon_credit),
    Case("refused", "What the mailbox has no room for is refused by its sequence; the session goes on.", _refused),
    Case("refused-without-credit", "`refused` and `accepted` need no credit.", _refused_without_credit),
    Case("resume", "A new stream says what has come, and brings again what was not received.", _resume),
    Case("resend", "Requests that come twice reach the kernel once.", _resend),
    Case("taken-over", "A stream whose session a later one takes over ends with ABORTED and words.", _taken_over),
    Case("bye", "`bye` ends the stream with OK, and the session: its token is SESSION_LOST.", _bye_and_token),
    Case("half-close", "A client that ends its side without `bye` ends the stream, and not the session.", _half_close),
    Case("unknown-token", "A token of no session is SESSION_LOST.", _unknown_token),
    Case("other-kernel", "A token with another kernel id is MESSAGE_INVALID; the session goes on.", _other_kernel),
    Case("error-in-bye", "With `error_in_bye` an error of the call comes in `bye` first.", _error_in_bye),
    Case("outputs", "Outputs come as far as they are asked for; returned ones go to others.", _outputs),
    Case("withdrawn", "A request that is withdrawn before the kernel takes it is gone.", _withdrawn),
    Case("undeliverable", "A reply whose caller had given up becomes a dead letter.", _undeliverable),
    Case("ack-again", "An Ack that comes again is ignored.", _ack_again),
    Case("inquiry", "`inquiry` is answered with `explanation`.", _inquiry),
    Case("parts", "Bodies may come in parts, and go in parts to a client that takes them.", _parts),
    Case("ending-kernel", "A kernel that ends is told by `closed`, and then `bye`.", _ending_kernel),
    Case("unknown-field", "A field that v1 does not know, in a frame that it knows, is skipped.", _unknown_field),
)
"""The cases, in the order in which they are tried."""
