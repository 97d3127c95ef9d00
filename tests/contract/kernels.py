"""The kernels of the contract suite: a daemon loads this file, the tests launch them under ids of their own."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NewType, TypeVar
from uuid import UUID, uuid4

import numpy as np

from pydotcompute import Array, RingKernelMessage, message, ring_kernel
from pydotcompute.exceptions import KernelStateError, PyDotComputeError, QueueTimeoutError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
@dataclass
class Job:
    """A request, with the header declared."""

    number: int = 0
    client: int = 0
    note: str = ""
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
@dataclass
class Result:
    """A reply, or an output if it carries no `correlation_id`."""

    number: int = 0
    client: int = 0
    position: int = 0
    note: str = ""
    message_id: UUID = field(default_factory=uuid4)
    priority: int = 128
    correlation_id: UUID | None = None


@message
class Bare:
    """A message that declares no header."""

    x: float
    series: list[float] = field(default_factory=list)


@message
class Inherited(RingKernelMessage):
    """A message that inherits the header."""

    label: str = ""
    total: float = 0.0


UserId = NewType("UserId", int)
T = TypeVar("T")


@dataclass
class Page(Generic[T]):
    """A generic part of a message."""

    items: list[T] = field(default_factory=list)


@message
class Loose:
    """A message whose body is not fixed."""

    value: Any = None
    items: list = field(default_factory=list)  # type: ignore[type-arg]
    table: dict | None = None  # type: ignore[type-arg]
    users: Page[UserId] = field(default_factory=Page)


def result_of(job: Job, position: int = 0, note: str = "") -> Result:
    """The reply to a job: its number squared."""
    return Result(job.number**2, job.client, position, note, correlation_id=job.message_id)


@ring_kernel(input_type=Job, output_type=Result)
async def square(ctx: KernelContext[Job, Result]) -> None:
    """Answers each job in turn, with the position in which it was handled; the loop written out."""
    position = 0
    while not ctx.should_terminate:
        if not ctx.is_active:
            await ctx.wait_active()
            continue
        try:
            job = await ctx.receive(timeout=0.1)
        except QueueTimeoutError:
            continue
        await ctx.send(result_of(job, position))
        position += 1


@ring_kernel(input_type=Job, output_type=Result)
async def concierge(ctx: KernelContext[Job, Result]) -> None:
    """Says who has sent each job."""
    async for job in ctx:
        who = ctx.principal
        assert who == ctx.principal_of(job)
        await ctx.send(result_of(job, note=str(who)))
        assert ctx.principal_of(job) is None


@ring_kernel(input_type=Job, output_type=Result)
async def concierge_of_batches(ctx: KernelContext[Job, Result]) -> None:
    """Says who has sent each job, of several at once."""
    async for batch in ctx.batches():
        for job in batch:
            await ctx.send(result_of(job, note=str(ctx.principal_of(job))))


@ring_kernel(input_type=Bare, output_type=Bare)
async def echo(ctx: KernelContext[Bare, Bare]) -> None:
    """Sends each request back as it is."""
    async for request in ctx:
        await ctx.send(request)


@ring_kernel(input_type=Loose, output_type=Loose)
async def echo_loose(ctx: KernelContext[Loose, Loose]) -> None:
    """Sends each request back as it is."""
    async for request in ctx:
        await ctx.send(request)


@ring_kernel(input_type=Job)
async def undeclared(ctx: KernelContext[Job, Any]) -> None:
    """Answers an even number with a Result, and an odd one with a Bare; 0 is sent back, and -1 gives a Loose output."""
    async for job in ctx:
        match job.number:
            case 0:
                await ctx.send(job)
            case -1:
                await ctx.send(Loose({"number": -1}))
            case number if number % 2:
                await ctx.send(Bare(float(number), correlation_id=job.message_id))  # type: ignore[call-arg]
            case _:
                await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Job)
async def echo_job(ctx: KernelContext[Job, Job]) -> None:
    """Sends each job back as it is."""
    async for job in ctx:
        await ctx.send(job)


@ring_kernel(input_type=Job, output_type=Job)
async def crier(ctx: KernelContext[Job, Job]) -> None:
    """Says each job again, as an output."""
    async for job in ctx:
        await ctx.send(Job(job.number, job.client, job.note))


@ring_kernel(input_type=Job, output_type=Result)
async def stretcher(ctx: KernelContext[Job, Result]) -> None:
    """Answers each job with a note of as many characters as its client says."""
    async for job in ctx:
        await ctx.send(Result(job.number, note="y" * job.client, correlation_id=job.message_id))


@ring_kernel(input_type=Bare, output_type=Inherited)
async def total(ctx: KernelContext[Bare, Inherited]) -> None:
    """Adds up, from a class without a declared header to one that inherits it."""
    async for bare in ctx:
        message_id = bare.message_id  # type: ignore[attr-defined]  # `@message` has added it.
        await ctx.send(Inherited(label=repr(bare.x), total=bare.x + sum(bare.series), correlation_id=message_id))


async def where(ctx: KernelContext[Job, Result]) -> None:
    """Says what it computes on, and squares there."""
    async for batch in ctx.batches(max_size=4):
        squares = batch.stack("number") ** 2
        await ctx.synchronize()
        assert (await ctx.to_host(squares)).shape == (len(batch),)
        await batch.reply(number=squares, note=f"{ctx.device.kind} {ctx.xp.__name__} {ctx.stream is None}")


@ring_kernel(input_type=Job, output_type=Result, device="cpu")
async def where_cpu(ctx: KernelContext[Job, Result]) -> None:
    """On the CPU."""
    await where(ctx)


@ring_kernel(input_type=Job, output_type=Result, device="auto", memory_limit="64MiB")
async def where_auto(ctx: KernelContext[Job, Result]) -> None:
    """On a GPU if there is one."""
    await where(ctx)


@ring_kernel(input_type=Job, output_type=Result, device="auto")
def where_blocking(ctx: BlockingContext[Job, Result]) -> None:
    """Likewise, in a thread."""
    for job in ctx:
        square = ctx.to_device(np.array([job.number])) ** 2
        ctx.synchronize()
        note = f"{ctx.device.kind} {ctx.xp.__name__} {ctx.stream is None}"
        ctx.send(Result(int(ctx.to_host(square)[0]), note=note, correlation_id=job.message_id))


@ring_kernel(input_type=Job, output_type=Result, device="cuda:99")
async def where_cuda(ctx: KernelContext[Job, Result]) -> None:
    """On a GPU that nobody has."""
    await where(ctx)


@ring_kernel(input_type=Job, output_type=Result)
async def shuffler(ctx: KernelContext[Job, Result]) -> None:
    """Collects a random number of jobs, as far as there are any, and answers them in a random order."""
    dice = random.Random(64)
    while not ctx.should_terminate:
        held = [await ctx.receive()]
        try:
            for _ in range(dice.randrange(32)):
                held.append(await ctx.receive(timeout=0.001))
        except QueueTimeoutError:
            pass
        dice.shuffle(held)
        for job in held:
            await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def gate(ctx: KernelContext[Job, Result]) -> None:
    """Holds its jobs back until one says "open", then answers all."""
    held: list[Job] = []
    async for job in ctx:
        held.append(job)
        if job.note == "open":
            for waiting in held:
                await ctx.send(result_of(waiting))
            held.clear()


@ring_kernel(input_type=Job, output_type=Result)
async def sink(ctx: KernelContext[Job, Result]) -> None:
    """Takes jobs and says nothing."""
    async for _ in ctx:
        pass


@ring_kernel(input_type=Job, output_type=Result)
async def emitter(ctx: KernelContext[Job, Result]) -> None:
    """For each job, as many outputs as its number says, of the priorities that its note lists, if it does."""
    async for job in ctx:
        priorities = [int(text) for text in job.note.split()] or [128] * job.number
        for number in range(job.number):
            await ctx.send(Result(number, job.client, priority=priorities[number]))


@ring_kernel(input_type=Job, output_type=Result)
async def repeater(ctx: KernelContext[Job, Result]) -> None:
    """As many replies to each job as its number says."""
    async for job in ctx:
        for position in range(job.number):
            await ctx.send(Result(job.number, job.client, position, correlation_id=job.message_id))


@ring_kernel(input_type=Job, output_type=Result)
async def hesitant(ctx: KernelContext[Job, Result]) -> None:
    """Squares, with the position in which it was handled, after a few turns of the loop."""
    dice = random.Random(11)
    position = 0
    async for job in ctx:
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)
        await ctx.send(result_of(job, position))
        position += 1


@ring_kernel(input_type=Job, output_type=Result)
async def fickle(ctx: KernelContext[Job, Result]) -> None:
    """Gives most of its receives up: cancels them after a few turns of the loop, or lets them time out."""
    dice = random.Random(7)
    while not ctx.should_terminate:
        if dice.random() < 0.2:
            try:
                job = await ctx.receive(timeout=dice.choice((0, 0.0001)))
            except QueueTimeoutError:
                continue
        else:
            receiving = asyncio.ensure_future(ctx.receive())
            for _ in range(dice.randrange(5)):
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                job = await receiving
            except asyncio.CancelledError:
                continue
        await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def fragile(ctx: KernelContext[Job, Result]) -> None:
    """Squares, keeps a job that says "hold" unanswered, and raises on one that says "boom"."""
    async for job in ctx:
        if job.note == "boom":
            raise ValueError(f"no square of {job.number}")
        if job.note != "hold":
            await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result, restart="on_failure", on_crash="redeliver", max_deliveries=2)
async def tenacious(ctx: KernelContext[Job, Result]) -> None:
    """Squares. It raises on a job that says "boom", and on one that says "stumble" unless it had that before."""
    async for job in ctx:
        if job.note == "boom" or (job.note == "stumble" and not ctx.redelivered):
            raise ValueError(f"no square of {job.number}")
        await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def stillborn(ctx: KernelContext[Job, Result]) -> None:
    """Raises before it first waits."""
    raise LookupError("nothing to start from")


@ring_kernel(input_type=Job, output_type=Result)
async def greeter(ctx: KernelContext[Job, Result]) -> None:
    """Has something to say as soon as it is active."""
    await ctx.wait_active()
    await ctx.send(Result(note=f"{ctx.kernel_id} is_active={ctx.is_active}"))
    async for job in ctx:
        await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def short_lived(ctx: KernelContext[Job, Result]) -> None:
    """Ends by itself after one job."""
    await ctx.send(result_of(await ctx.receive()))


@ring_kernel(input_type=Job, output_type=Result)
async def careful(ctx: KernelContext[Job, Result]) -> None:
    """Works on its first job until it is told to end, and only then replies."""
    job = await ctx.receive()
    await ctx.send(Result(note="started"))
    try:
        await ctx.receive()
    except KernelStateError as error:
        note = f"should_terminate={ctx.should_terminate} state={error.state} is_active={ctx.is_active}"
        await ctx.send(result_of(job, note=note))


@ring_kernel(input_type=Job, output_type=Result)
async def stubborn(ctx: KernelContext[Job, Result]) -> None:
    """Answers its first job, and then heeds nothing but its cancellation."""
    await ctx.send(result_of(await ctx.receive()))
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await ctx.send(Result(note="cancelled"))
        raise


@ring_kernel(input_type=Job, output_type=Result)
async def sleeper(ctx: KernelContext[Job, Result]) -> None:
    """Takes as many milliseconds for a job as its number says."""
    async for job in ctx:
        await asyncio.sleep(job.number / 1000)
        await ctx.send(result_of(job))


@ring_kernel(
    kernel_id="small",
    input_type=Job,
    output_type=Result,
    input_queue_size=4,
    output_queue_size=8,
    backpressure="reject",
)
async def small(ctx: KernelContext[Job, Result]) -> None:
    """Squares; with settings of its own."""
    async for job in ctx:
        await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def confused(ctx: KernelContext[Job, Result]) -> None:
    """Sends what it does not declare."""
    async for job in ctx:
        await ctx.send(Bare(job.number))  # type: ignore[arg-type]


@ring_kernel(input_type=Job, output_type=Result)
async def quitter(ctx: KernelContext[Job, Result]) -> None:
    """Would end the whole process."""
    job = await ctx.receive()
    raise SystemExit(job.number)


@ring_kernel(input_type=Job, output_type=Result)
async def interrupter(ctx: KernelContext[Job, Result]) -> None:
    """Would interrupt the whole process."""
    await ctx.receive()
    raise KeyboardInterrupt


@ring_kernel(input_type=Job, output_type=Result)
def interrupter_in_a_thread(ctx: BlockingContext[Job, Result]) -> None:
    """Would interrupt the whole process."""
    ctx.receive()
    raise KeyboardInterrupt


@ring_kernel(input_type=Job, output_type=Result)
async def sore_loser(ctx: KernelContext[Job, Result]) -> None:
    """Raises when it is told to end."""
    async for _ in ctx:
        pass
    raise RuntimeError("not without a fight")


@ring_kernel(input_type=Job, output_type=Result)
async def batched(ctx: KernelContext[Job, Result]) -> None:
    """Answers eight jobs at a time, or after a fifth of a second what there is, with the size of the batch as the note
    and the place in it as the position. The note "fail" of a job fails the kernel, "half" has every other job answered
    by `ctx.send`, and no other.
    """
    async for batch in ctx.batches(max_size=8, max_delay=0.2):
        notes = [job.note for job in batch]
        if "half" in notes:
            for job in batch[::2]:
                await ctx.send(result_of(job, note="by itself"))
        if "fail" in notes:
            raise RuntimeError(f"a batch of {len(batch)} failed")
        if "half" not in notes:
            numbers = batch.stack("number")
            await batch.reply(
                number=numbers**2, client=[job.client for job in batch], position=range_of(batch), note=str(len(batch))
            )


def range_of(batch: Sequence[object]) -> list[int]:
    """The places in a batch."""
    return list(range(len(batch)))


@ring_kernel(input_type=Job, output_type=Result)
async def tardy(ctx: KernelContext[Job, Result]) -> None:
    """Answers as `sleeper`, but holds a job with the note "hold" as long as the kernel lives."""
    async for job in ctx:
        while job.note == "hold" and not ctx.should_terminate:  # noqa: ASYNC110  # There is no event to wait for.
            await asyncio.sleep(0.002)
        await asyncio.sleep(job.number / 1000)
        await ctx.send(result_of(job))


@ring_kernel(input_type=Job, output_type=Result)
async def tardy_batches(ctx: KernelContext[Job, Result]) -> None:
    """Takes batches of three, and holds one as long as the kernel lives."""
    async for _ in ctx.batches(max_size=3, max_delay=60.0):
        while not ctx.should_terminate:  # noqa: ASYNC110  # There is no event to wait for.
            await asyncio.sleep(0.002)


@ring_kernel(input_type=Job, output_type=Result)
async def patient(ctx: KernelContext[Job, Result]) -> None:
    """Waits as long as it takes for four jobs."""
    async for batch in ctx.batches(max_size=4, max_delay=3600.0):
        await batch.reply(number=batch.stack("number"), position=range_of(batch), note=str(len(batch)))


@ring_kernel(input_type=Job, output_type=Result, executor="thread")
def blocking(ctx: BlockingContext[Job, Result]) -> None:
    """As `square`, in a thread, whose name is the note. The note "fail" of a job fails it, "sleep" holds the thread up
    for as many milliseconds as the number says, "wait" waits for another job until there is none.
    """
    for job in ctx:
        if job.note == "fail":
            raise RuntimeError("as told")
        if job.note == "sleep":
            time.sleep(job.number / 1000)
        if job.note == "wait":
            with contextlib.suppress(QueueTimeoutError):
                ctx.receive(timeout=0.01)
        ctx.send(result_of(job, note=threading.current_thread().name))


@ring_kernel(input_type=Job, output_type=Result)
def blocking_batches(ctx: BlockingContext[Job, Result]) -> None:
    """As `patient`, in a thread."""
    for batch in ctx.batches(max_size=4, max_delay=3600.0):
        batch.reply(number=batch.stack("number"), position=range_of(batch), note=str(len(batch)))


@ring_kernel(input_type=Job, output_type=Result)
async def entrance(ctx: KernelContext[Job, Result]) -> None:
    """Forwards each job to the kernel that its note names: itself, or if its number is odd, as one that is a hundred
    greater. What goes wrong in that is the note of the reply.
    """
    async for job in ctx:
        onward = Job(job.number + 100, job.client, correlation_id=job.message_id) if job.number % 2 else job
        try:
            await ctx.forward(job.note, onward)
        except PyDotComputeError as error:
            await ctx.send(result_of(job, note=f"{type(error).__name__}: {error}"))


@ring_kernel(input_type=Job, output_type=Result)
def blocking_entrance(ctx: BlockingContext[Job, Result]) -> None:
    """As `entrance`, in a thread."""
    for job in ctx:
        ctx.forward(job.note, job)


@ring_kernel(input_type=Job, output_type=Result)
async def batched_entrance(ctx: KernelContext[Job, Result]) -> None:
    """As `entrance`, by the batch."""
    async for batch in ctx.batches(max_size=4):
        for job in batch:
            await ctx.forward(job.note, job)


def onward(job: Job, **header: Any) -> tuple[str, Job]:
    """The kernel that the note of a job names first, and a job for it, with the others that the note names."""
    kernel_id, _, others = job.note.partition(" ")
    return kernel_id, Job(job.number, job.client, others, **header)


def passed_on(job: Job, reply: Any) -> Result:
    """The reply to a job, of what another kernel has replied, or of an error."""
    if isinstance(reply, PyDotComputeError):
        return Result(-1, job.client, note=f"{type(reply).__name__}: {reply}", correlation_id=job.message_id)
    return Result(reply.number, reply.client, reply.position, reply.note, correlation_id=job.message_id)


async def answer_by_asking(ctx: KernelContext[Job, Result], job: Job, **header: Any) -> None:
    """Answers a job with what the kernel replies that its note names, or squares if it names none. What goes wrong in
    that is the note of the reply.
    """
    if not job.note:
        await ctx.send(result_of(job))
        return
    kernel_id, question = onward(job, **header)
    try:
        reply = await ctx.ask(kernel_id, question)
    except PyDotComputeError as error:
        reply = error
    await ctx.send(passed_on(job, reply))


@ring_kernel(input_type=Job, output_type=Result)
async def asker(ctx: KernelContext[Job, Result]) -> None:
    """Asks the kernel that the note of each job names."""
    async for job in ctx:
        await answer_by_asking(ctx, job)


@ring_kernel(input_type=Job, output_type=Result)
async def concurrent_asker(ctx: KernelContext[Job, Result]) -> None:
    """As `asker`, for many jobs at once."""
    async with asyncio.TaskGroup() as tasks:
        async for job in ctx:
            tasks.create_task(answer_by_asking(ctx, job, correlation_id=job.message_id))


@ring_kernel(input_type=Job, output_type=Result)
async def batched_asker(ctx: KernelContext[Job, Result]) -> None:
    """As `asker`, by the batch."""
    async for batch in ctx.batches(max_size=4):
        for job in batch:
            await answer_by_asking(ctx, job, correlation_id=job.message_id)


@ring_kernel(input_type=Job, output_type=Result)
async def anonymous_asker(ctx: KernelContext[Job, Result]) -> None:
    """As `asker`, by the batch, and for no message."""
    async for batch in ctx.batches(max_size=4):
        for job in batch:
            await answer_by_asking(ctx, job)


@ring_kernel(input_type=Job, output_type=Result)
def blocking_asker(ctx: BlockingContext[Job, Result]) -> None:
    """As `asker`, in a thread."""
    for job in ctx:
        kernel_id, question = onward(job)
        try:
            reply = ctx.ask(kernel_id, question) if kernel_id else result_of(job)
        except PyDotComputeError as error:
            reply = error
        ctx.send(passed_on(job, reply))


@ring_kernel(input_type=Job, output_type=Result)
async def hasty_asker(ctx: KernelContext[Job, Result]) -> None:
    """As `asker`, and waits no longer than a twentieth of a second."""
    async for job in ctx:
        try:
            reply = await ctx.ask(*onward(job), timeout=0.05)
        except PyDotComputeError as error:
            reply = error
        await ctx.send(passed_on(job, reply))


@ring_kernel(input_type=Job, output_type=Result)
async def asker_of_bare(ctx: KernelContext[Job, Result]) -> None:
    """Asks in messages of classes that are not its own."""
    async for job in ctx:
        reply = await ctx.ask(job.note, Bare(float(job.number), [1.0, 2.0]))
        await ctx.send(
            Result(int(getattr(reply, "total", -1)), note=type(reply).__name__, correlation_id=job.message_id)
        )


@ring_kernel(input_type=Job, output_type=Result)
async def early_asker(ctx: KernelContext[Job, Result]) -> None:
    """Asks `square`, launched as "early-square", before it takes its first job, and adds the reply to each number."""
    first: Result = await ctx.ask("early-square", Job(5))
    async for job in ctx:
        await ctx.send(Result(job.number + first.number, correlation_id=job.message_id))


@message
class Cloud:
    """Points in space, with a weight for each, and whatever array else."""

    points: Annotated[np.ndarray[Any, Any], Array(dtype="float32", shape=("n", 3))] = field(
        default_factory=lambda: np.zeros((0, 3), np.float32)
    )
    weights: Annotated[np.ndarray[Any, Any], Array(shape=("n",))] | None = None
    others: list[np.ndarray[Any, Any]] = field(default_factory=list)


@ring_kernel(input_type=Cloud, output_type=Cloud)
async def echo_cloud(ctx: KernelContext[Cloud, Cloud]) -> None:
    """Sends each cloud back as it is; one whose priority is 1, with its points turned around."""
    async for cloud in ctx:
        if cloud.priority == 1:  # type: ignore[attr-defined]
            cloud.points = cloud.points.T
        await ctx.send(cloud)


@ring_kernel(input_type=Cloud, output_type=Result)
async def describe_cloud(ctx: KernelContext[Cloud, Result]) -> None:
    """Says of which classes, types and shapes the other arrays arrive."""
    async for cloud in ctx:
        arrays = [f"{type(array).__module__} {array.dtype.str} {array.shape}" for array in cloud.others]
        correlation_id = cloud.message_id  # type: ignore[attr-defined]
        await ctx.send(Result(note=", ".join(arrays), correlation_id=correlation_id))
