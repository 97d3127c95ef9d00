"""Sends a daemon what no client should, and judges how it answers.

    python -m tests.chaos.fuzzing --inputs 100000 --seed 1

Half of the attempts are calls of unary RPCs, half are conversations on Exchange; each payload and each frame is one
input. An attempt is made of the seed and its own number alone, so that one can be looked at by itself: `--only 4711`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import itertools
import pkgutil
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from pydotcompute import v1
from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1.kernel_service_pb2_grpc import KernelServiceStub
from tests.chaos.kernels import Entry
from tests.chaos.memory import Memory
from tests.chaos.mutations import Mutator
from tests.chaos.processes import Daemon, Processes
from tests.chaos.recording import EXCHANGE, Conversation, everything, record

__all__ = ["Verdict", "fuzz"]

TARGETS = ("ledger", "everything", "narrow", "forgetful")
"""Kernels that are attacked; what is wrong with them between two rounds is repaired."""
WORDS = (*TARGETS * 4, "new-1", "new-2", "Everything", "kernels.v1.Entry", str(UUID(int=11)), "\u00e9")
HANGS_AFTER = 15.0
"""Seconds after which what has no status never gets one."""
MAY_WAIT = 0.1
"""Seconds for a call that rightly waits for something: a message that nobody sends, say."""
NOTICED_AFTER = 5.0
"""Seconds that a reply to the client beside may take."""
AT_ONCE = 16
LONGEST_EXAMPLE = 1_000
ROUND = 256
"""Attempts between two repairs."""
RENEW_EVERY = 4
"""Rounds after which the targets are launched anew, so that nothing gathers that is there to be kept."""
WARM_UP_SHARE = 0.3
"""Of the inputs, before memory is watched."""
FAULTS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.ABORTED,  # No kernel of the suite fails, whatever it is sent.
    grpc.StatusCode.CANCELLED,
}
TAKEN_OVER = "a later stream, opened with the same token, has taken the session over"
"""The attempts use each other's tokens, and on a busy machine an earlier one may still be under way."""
MASKED = "Internal error from Core"
"""What grpcio's client makes of every status that the daemon ends a stream with while it writes to it. A fault of the
daemon's that is hidden so is still in its log."""
TRACEBACK = re.compile(
    r"(?:Traceback .*\n(?:[ \t].*\n)+\S.*\n\n(?:During|The above) .*\n\n)*"
    r"Traceback \(most recent call last\):\n((?:[ \t].*\n)+)(\S.*)"
)
"""A traceback in the log, with those of its causes before it."""
CLIENT_GONE = "grpc._cython.cygrpc.ExecuteBatchError"
"""What gRPC itself logs when a call's deadline passes at the very moment of its answer."""
BROKEN_CALL = (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError, asyncio.InvalidStateError)


@dataclass
class Verdict:
    """What came of it."""

    inputs: int = 0
    attempts: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    """How often each status was the answer, beside the method."""
    findings: dict[str, list[str]] = field(default_factory=dict)
    """What the daemon did wrong, with the attempts in which it did; empty if nothing."""
    memory: Memory = field(default_factory=lambda: Memory("daemon"))
    """By the number of inputs, not by time."""

    def found(self, finding: str, example: str = "") -> None:
        """Note what is wrong."""
        self.findings.setdefault(re.sub(r"\d+", "#", finding), []).append(example)

    def __str__(self) -> str:
        parts = [
            f"{len(examples)} times: {finding}\n  {examples[0][:LONGEST_EXAMPLE]}"
            for finding, examples in self.findings.items()
        ]
        return "\n".join(parts)


class Fuzzer:
    """Makes attempts at one daemon."""

    def __init__(
        self, channel: grpc.aio.Channel, seed: int, recorded: list[Conversation], bodies: dict[str, type[Message]]
    ) -> None:
        self._channel = channel
        self._kernels: Any = KernelServiceStub(channel)
        self._seed = seed
        self._recorded = recorded
        self._bodies = bodies
        self._samples = {kernel_id: _sample(kernel_id) for kernel_id in TARGETS}
        self._tokens: list[bytes] = []
        self.verdict = Verdict()
        self._methods = _methods()
        self.untouched: set[str] = set()
        """Kernels that are not repaired, because they are not attacked."""

    async def attempt(self, number: int) -> None:
        """Make one attempt."""
        dice = random.Random(f"{self._seed}/{number}")
        mutator = Mutator(dice, WORDS, self._bodies)
        self.verdict.attempts += 1
        try:
            async with asyncio.timeout(2 * HANGS_AFTER):
                await (self._call if dice.random() < 0.5 else self._converse)(number, dice, mutator)
        except TimeoutError:
            self.verdict.found("no status", f"attempt {number}")

    def _judge(self, number: int, method: str, code: grpc.StatusCode, details: str, sent: object) -> None:
        masked = details == MASKED
        self.verdict.codes[f"{method} {'unseen' if masked else code.name}"] += 1
        if code in FAULTS and not masked and not details.startswith(TAKEN_OVER):
            self.verdict.found(f"{method} {code.name}: {details[:200]!r}", f"attempt {number}: {sent!s:.600}")

    def _judge_inside(self, number: int, method: str, answer: Message) -> None:
        """Look for statuses in what the daemon has sent."""
        if isinstance(answer, status_pb2.Status):
            code = next(code for code in grpc.StatusCode if code.value[0] == answer.code)
            self._judge(number, f"{method}, inside,", code, answer.message, "")
        for field_, value in answer.ListFields():
            if field_.message_type is None or field_.message_type.GetOptions().map_entry:
                continue
            for part in value if field_.is_repeated else [value]:
                self._judge_inside(number, method, part)

    # -- unary ---------------------------------------------------------------------------------------------------------

    async def _call(self, number: int, dice: random.Random, mutator: Mutator) -> None:
        method = dice.choice(self._methods)
        if dice.random() < 0.5:
            request = mutator.message(method.input_type, share=dice.choice((0.3, 0.7, 1.0)))
        else:
            request = self._valid(method, dice)
            for _ in range(dice.randrange(3)):
                request = mutator.tweaked(request)
        payload = request.SerializeToString()
        if dice.random() < 0.3:
            payload = mutator.garbled(payload)
        self.verdict.inputs += 1
        name = f"/{method.containing_service.full_name}/{method.name}"
        waits = _may_wait(method, payload)
        try:
            timeout = MAY_WAIT if waits else HANGS_AFTER
            if method.server_streaming:
                stream: Any = self._channel.unary_stream(name)(payload, timeout=timeout)
                answer = await stream.read()
                stream.cancel()
            else:
                answer = await self._channel.unary_unary(name)(payload, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            told = _details(error)
            if told is None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
                if not waits:
                    self.verdict.found(f"{method.name} hangs", f"attempt {number}: {payload!s:.600}")
            elif code not in FAULTS and (told is None or told.code != code.value[0]):
                problem = f"{method.name} {code.name} without details of its own: {details[:120]!r}"
                self.verdict.found(problem, f"attempt {number}: {payload!s:.600}")
            self._judge(number, method.name, code, details, payload)
            return
        self._judge(number, method.name, grpc.StatusCode.OK, "", payload)
        response = message_factory.GetMessageClass(method.output_type).FromString(answer)
        self._judge_inside(number, method.name, response)

    def _valid(self, method: MethodDescriptor, dice: random.Random) -> Any:
        """A request that there is nothing wrong with, but for the state that its kernel may be in."""
        request: Any = message_factory.GetMessageClass(method.input_type)()
        names = method.input_type.fields_by_name
        kernel_id = dice.choice(TARGETS)
        if "kernel_id" in names:
            request.kernel_id = kernel_id
        if "timeout" in names:
            request.timeout.FromMilliseconds(dice.choice((1, 50)))
        if "message" in names:
            request.message.body.CopyFrom(self._samples[kernel_id])
        return request

    # -- Exchange ------------------------------------------------------------------------------------------------------

    async def _converse(self, number: int, dice: random.Random, mutator: Mutator) -> None:
        frames = self._spoiled(dice, mutator)
        call: Any = self._channel.stream_stream(EXCHANGE)(timeout=HANGS_AFTER)
        heard = 0
        progress = asyncio.Event()

        async def listen() -> None:
            nonlocal heard
            with contextlib.suppress(*BROKEN_CALL):
                while (answer := await call.read()) is not grpc.aio.EOF:
                    heard += 1
                    progress.set()
                    response = pb.ExchangeResponse.FromString(answer)
                    self._judge_inside(number, "Exchange", response)
                    self._remember_token(response)
            progress.set()

        listening = asyncio.create_task(listen())
        abrupt = dice.random() < 0.1
        try:
            for after, frame in frames:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        while heard < after and not listening.done():
                            progress.clear()
                            await progress.wait()
                self.verdict.inputs += 1
                await call.write(frame)
            await call.done_writing()
        except BROKEN_CALL:
            pass  # The daemon has ended the call; its status says why.
        if abrupt:
            call.cancel()
        await listening
        code = await call.code()
        details = await call.details() or ""
        sent = [frame for _, frame in frames]
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self.verdict.found("Exchange hangs", f"attempt {number}: {sent!s:.2000}")
        if not abrupt or code is not grpc.StatusCode.CANCELLED:
            self._judge(number, "Exchange", code, details, sent)

    def _spoiled(self, dice: random.Random, mutator: Mutator) -> list[tuple[int, bytes]]:
        """A recorded conversation with something wrong."""
        frames = list(dice.choice(self._recorded).frames)
        begins_well = dice.random() < 0.8
        for place in range(begins_well, len(frames)):
            if dice.random() < 0.3:
                after, frame = frames[place]
                frames[place] = (after, self._spoil(frame, dice, mutator))
        for _ in range(dice.randrange(4)):
            place = dice.randrange(begins_well, len(frames) + 1)
            match dice.randrange(4):
                case 0:
                    del frames[place : place + 1]
                case 1:
                    frames[place:place] = frames[place : place + 1] * dice.choice((1, 1, 30))
                case 2:
                    frames[place:place] = reversed([frames.pop() for _ in range(len(frames) - place)])
                case 3:
                    frames.insert(place, (0, mutator.message(pb.ExchangeRequest.DESCRIPTOR).SerializeToString()))
        if self._tokens and dice.random() < 0.2 and frames:
            frames[0] = (0, self._with_token(frames[0][1], dice))
        return frames

    def _spoil(self, frame: bytes, dice: random.Random, mutator: Mutator) -> bytes:
        way = dice.random()
        if way < 0.6:
            spoiled: bytes = mutator.tweaked(pb.ExchangeRequest.FromString(frame)).SerializeToString()
            return spoiled
        if way < 0.9:
            return mutator.garbled(frame)
        return dice.choice((b"", b"\xff", frame * 2, dice.randbytes(30)))

    def _remember_token(self, response: pb.ExchangeResponse) -> None:
        if response.HasField("opened"):
            self._tokens = [*self._tokens[-49:], response.opened.session_token]

    def _with_token(self, frame: bytes, dice: random.Random) -> bytes:
        """The frame with the token of an earlier conversation of this fuzzer's, if it is one that opens."""
        with contextlib.suppress(DecodeError):
            opening = pb.ExchangeRequest.FromString(frame)
            if opening.HasField("open"):
                opening.open.session_token = dice.choice(self._tokens)
                return opening.SerializeToString()
        return frame

    # -- between the rounds --------------------------------------------------------------------------------------------

    async def repair(self, renew: bool) -> None:
        """Terminate strangers; launch what is missing, and activate what is paused."""
        listed = await self._kernels.ListKernels(kernel_pb.ListKernelsRequest(), timeout=HANGS_AFTER)
        active = set(self.untouched)
        for kernel in listed.kernels:
            if kernel.state == kernel_pb.KERNEL_STATE_FAILED:
                self.verdict.found(f"kernel {kernel.kernel_id!r} has failed: {kernel.failure}")
            if kernel.kernel_id in self.untouched:
                continue
            as_it_was = kernel.kernel_type == kernel.kernel_id and kernel.state == kernel_pb.KERNEL_STATE_ACTIVE
            if kernel.kernel_id in TARGETS and as_it_was and not renew:
                active.add(kernel.kernel_id)
                continue
            request = kernel_pb.TerminateRequest(kernel_id=kernel.kernel_id)
            request.timeout.FromMilliseconds(100)
            await self._kernels.Terminate(request, timeout=HANGS_AFTER)
        for kernel_id in TARGETS:
            if kernel_id not in active:
                await self.launch(kernel_id, kernel_id)

    async def launch(self, kernel_id: str, kernel_type: str) -> None:
        """Launch and activate a kernel."""
        await self._kernels.Launch(kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type=kernel_type))
        await self._kernels.Activate(kernel_pb.ActivateRequest(kernel_id=kernel_id))


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The status that the daemon has put beside the code; None if there is none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            return status_pb2.Status.FromString(value)
    return None


def _methods() -> list[MethodDescriptor]:
    """Every RPC that takes one request."""
    names = sorted(module.name for module in pkgutil.iter_modules(v1.__path__) if module.name.endswith("_service_pb2"))
    files = [importlib.import_module(f"{v1.__name__}.{name}").DESCRIPTOR for name in names]
    services = [service for file in files for service in file.services_by_name.values()]
    return [method for service in services for method in service.methods if not method.client_streaming]


def _may_wait(method: MethodDescriptor, payload: bytes) -> bool:
    """Whether a call may rightly take as long as it is let."""
    if "timeout" not in method.input_type.fields_by_name:
        return False
    try:
        message_factory.GetMessageClass(method.input_type).FromString(payload)
    except DecodeError:
        return False
    return True


def _sample(kernel_id: str) -> any_pb2.Any:
    """A body that this kernel takes."""
    message = everything() if kernel_id == "everything" else Entry(number=3)
    value = Codec(type(message), TypePool()).encode(message)
    return any_pb2.Any(type_url=f"type.googleapis.com/kernels.v1.{type(message).__name__}", value=value)


async def _bodies(kernels: Any) -> dict[str, type[Message]]:
    """The message classes of the kernels, as the daemon describes them."""
    pool = DescriptorPool()
    known: set[str] = set()
    names: list[str] = []
    for target in TARGETS:
        answer = await kernels.DescribeKernel(kernel_pb.DescribeKernelRequest(kernel_id=target))
        for message_type in (answer.input_type, answer.output_type):
            for file in message_type.files.file:
                if file.name not in known:
                    pool.Add(file)
                    known.add(file.name)
            names.append(message_type.full_name)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in sorted(set(names))}


async def _attack(daemon: Daemon, target: str, seed: int, inputs: int, only: int | None, untouched: str) -> Verdict:
    recorded = await record(target)
    async with grpc.aio.insecure_channel(target) as channel:
        fuzzer = Fuzzer(channel, seed, recorded, await _bodies(KernelServiceStub(channel)))
        fuzzer.untouched = {untouched}
        verdict = fuzzer.verdict
        if only is not None:
            await fuzzer.attempt(only)
            return verdict
        numbers: Iterator[int] = itertools.count()
        for round_ in itertools.count(1):

            async def work(some: Iterator[int]) -> None:
                for number in some:
                    await fuzzer.attempt(number)

            some = itertools.islice(numbers, ROUND)
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work(some))
            await fuzzer.repair(renew=round_ % RENEW_EVERY == 0)
            verdict.memory.add(verdict.inputs, daemon.resident_bytes)
            if verdict.inputs >= inputs:
                return verdict
    raise AssertionError("the rounds have no end of their own")


def fuzz(inputs: int, seed: int, only: int | None = None) -> Verdict:
    """Attack a daemon with so many inputs, while a well-behaved client uses it."""
    with Processes(seed) as processes:
        daemon, target = processes.daemon(session_timeout=1.0)
        healthy_kernel = f"healthy-{uuid4().hex}"
        with grpc.insecure_channel(target) as channel:
            stub: Any = KernelServiceStub(channel)
            stub.Launch(kernel_pb.LaunchRequest(kernel_id=healthy_kernel, kernel_type="ledger"))
            stub.Activate(kernel_pb.ActivateRequest(kernel_id=healthy_kernel))
        healthy = processes.client(target, kernel=healthy_kernel, window=8, pause=1)
        healthy.under_way()
        verdict = asyncio.run(_attack(daemon, target, seed, inputs, only, healthy_kernel))
        report = healthy.stop()
        for problem in report.problems:
            verdict.found(f"the client beside it: {problem}")
        if report.answered != report.sent:
            verdict.found(f"the client beside it has {report.answered} replies to {report.sent} requests")
        if report.slowest > NOTICED_AFTER:
            verdict.found(f"the client beside it has waited {report.slowest:.1f} s for a reply")
        if verdict.memory.grows(WARM_UP_SHARE * verdict.inputs):
            verdict.found(f"memory grows: {verdict.memory}")
        if (code := daemon.end()) != 0:
            verdict.found(f"the daemon has ended with {code}")
        log = processes.log("daemon")
        for trace, error in TRACEBACK.findall(log):
            if not error.startswith(CLIENT_GONE):
                verdict.found(f"the daemon has logged {error}", trace)
        print(f"the client beside it: {report.answered} replies, the slowest {report.slowest * 1000:.0f} ms")
    return verdict


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzzing", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one attempt")
    given = parser.parse_args()
    started = time.monotonic()
    verdict = fuzz(given.inputs, given.seed, given.only)
    print(
        f"{verdict.inputs} inputs in {verdict.attempts} attempts, {time.monotonic() - started:.0f} s, seed {given.seed}"
    )
    print(verdict.memory)
    for answer, count in sorted(verdict.codes.items()):
        print(f"{count:8} {answer}")
    print(verdict)
    sys.exit(1 if verdict.findings else 0)


if __name__ == "__main__":
    main()
