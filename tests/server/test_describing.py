"""Kernel types that another process describes: the daemon runs nothing of their files, and serves them all the same."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import MessageDeserializationError, MessageTypeError
from pydotcompute.protobuf.json.sample import sample_json
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.schema import lock
from pydotcompute.v1 import (
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
)
from pydotcompute_client import connect
from pydotcompute_server import LoadError, describe_kernel_types, load_kernel_types
from pydotcompute_server.catalog import Catalog
from tests.stubs import failure_of

WARES = '''
import os, sys
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import numpy as np

from pydotcompute import Array, message, ring_kernel

with open(os.environ["IMPORTED_BY"], "a") as file:
    print(os.getpid(), file=file)
print("printed at import")


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Part:
    """A part of an order."""

    name: str = "screw"
    sizes: tuple[int, int] = (1, 2)


@message
class Order:
    """What a customer wants."""

    number: int
    colour: Colour = Colour.BLUE
    kind: Literal["new", "again"] = "new"
    customer: UUID | None = None
    parts: list[Part] = field(default_factory=lambda: [Part()])
    by_name: dict[str, Part | None] = field(default_factory=dict)
    weights: np.ndarray[Any, np.dtype[np.float32]] | None = None
    when: datetime | None = None
    anything: Any = None
    count: int = field(default=3, metadata={"doc": "How many."})

    def __post_init__(self) -> None:
        if self.number < 0 and "STRICT" in os.environ:  # In the worker, and not where this suite imports the file.
            raise ValueError("an order has a number of at least 0")


@message
class Bill:
    """What it costs."""

    number: int = 0
    imported_by: int = 0


@ring_kernel(input_type=Order, output_type=Bill, queue_size=77, service="shop.v1.Till", restart="on_failure")
async def till(ctx):
    """Writes bills.

    Each with a number.
    """
    async for order in ctx:
        await ctx.send(Bill(order.number * order.count, os.getpid(), correlation_id=order.message_id))


@ring_kernel(input_type=Order)
def desk(ctx):
    for order in ctx:
        ctx.send(Surprise("a class that is not declared", correlation_id=order.message_id))


@message
class Surprise:
    text: str = ""
'''
SERVER = "from pydotcompute_server.cli import main; main()"
NOTE = """
from pydotcompute import message, ring_kernel

@message
class Note:
    text: str = ""
"""
ACTOR = """
@ring_kernel(kernel_id="{name}", input_type=Note, output_type=Note{settings})
async def {name}(ctx):
    async for note in ctx:
        await ctx.send(note)
"""


@pytest.fixture(scope="module")
def wares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("kernels") / "wares.py"
    file.write_text(WARES)
    return file


@pytest.fixture(scope="module")
def daemon(wares: Path, start_daemon: Callable[..., Any]) -> Any:
    """A daemon that imports no kernels, with those of `WARES`."""
    environment = {"IMPORTED_BY": str(wares.with_name("imported_by")), "STRICT": "1"}
    return start_daemon(str(wares), "--isolation", "process", "--launch", "all", env=environment)


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def failure(*sources: str, patience: float = 60.0) -> str:
    with pytest.raises(LoadError) as failed:
        describe_kernel_types(sources, patience)
    text = str(failed.value)
    assert "\n" not in text
    return text


# -- what the daemon serves --------------------------------------------------------------------------------------------


def test_a_described_kernel_type_says_what_the_imported_one_says(wares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPORTED_BY", str(wares.with_name("imported_here")))
    described, imported = describe_kernel_types([str(wares)]), load_kernel_types([str(wares)])
    assert described.keys() == imported.keys() == {"till", "desk"}
    theirs, ours = Catalog(), Catalog()
    theirs.add(*described.values())
    ours.add(*imported.values())
    assert {file.name: file for file in theirs.pool.files} == {file.name: file for file in ours.pool.files}
    plain = [field.name for field in fields(KernelType) if field.name not in ("func", "input_type", "output_type")]
    for name, kernel_type in described.items():
        original = imported[name]
        for each in (*plain, "executor", "documentation"):
            assert getattr(kernel_type, each) == getattr(original, each)
        assert [each.schema.full_name for each in theirs.codecs(kernel_type)] == [
            each.schema.full_name for each in ours.codecs(original)
        ]
        samples = [sample_json(each.codecs(kind)[0].schema) for each, kind in ((theirs, kernel_type), (ours, original))]
        assert samples[0] == samples[1]


def test_the_numbers_of_fields_are_those_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "locked.py", NOTE + ACTOR.format(name="locked", settings=""))
    monkeypatch.setattr(lock, "_lock", lock.Lock({"locked.v1.Note": {"gone": 1, "text": 5}}))
    (kernel_type,) = describe_kernel_types([file]).values()
    catalog = Catalog()
    catalog.add(kernel_type)
    (codec,) = catalog.codecs(kernel_type)
    assert codec.descriptor.fields_by_name["text"].number == 5
    assert codec.descriptor.file.serialized_pb.count(b"gone") == 1


async def test_the_daemon_imports_nothing_and_serves_all(daemon: Any, wares: Path) -> None:
    async with connect(daemon.target, scoped=True) as runtime:
        description = await runtime.describe("till")
        assert description.documentation == "Writes bills.\n\nEach with a number."
        assert description.config.input_queue_size == 77
        order: Any = description.input_type
        bill = await runtime.send_and_receive("till", order(14), timeout=30.0)
        assert bill.number == 42
        surprise = await runtime.send_and_receive("desk", order(1), timeout=30.0)
        assert surprise.text == "a class that is not declared"
    importing = {int(line) for line in wares.with_name("imported_by").read_text().split()}
    assert daemon.process.pid not in importing
    assert bill.imported_by != daemon.process.pid  # A template may have imported the file for the worker.
    assert "printed at import" in daemon.log_text()


async def test_what_the_constructor_refuses_is_the_callers_error_and_a_dead_letter(daemon: Any) -> None:
    async with connect(daemon.target, scoped=True) as runtime:
        order: Any = (await runtime.describe("till")).input_type
        with pytest.raises(MessageDeserializationError, match="an order has a number of at least 0") as refused:
            await runtime.send_and_receive("till", order(-1), timeout=30.0)
        assert refused.value.message_type == "Order"
        letters = await runtime.fetch_dead_letters("till")
        assert [(each.reason, each.message.number) for each in letters] == [(DeadLetterReason.UNDELIVERABLE, -1)]
        assert (await runtime.send_and_receive("till", order(2), timeout=30.0)).number == 6


async def test_the_daemon_passes_bodies_on_and_the_worker_refuses_them(daemon: Any) -> None:
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        messages: Any = message_service_pb2_grpc.MessageServiceStub(channel)
        request = message_service_pb2.AskRequest(kernel_id="desk")
        request.message.body.type_url = "type.googleapis.com/wares.v1.Order"
        request.message.body.value = b"\x08\xff"
        failure = await failure_of(messages.Ask(request, timeout=30.0))
        assert failure.reason == "MESSAGE_INVALID"
        assert "$.message.body" in repr(failure)
        letters: Any = dead_letter_service_pb2_grpc.DeadLetterServiceStub(channel)
        page = await letters.ListDeadLetters(dead_letter_service_pb2.ListDeadLettersRequest(kernel_id="desk"))
        assert [each.message.body.value for each in page.dead_letters] == [b""]  # It cannot be shown.
        assert "Order" in page.dead_letters[0].problem
        request.message.body.value = b"\x08\x05\xf8\x07\x01"  # With a field that the class does not know.
        assert (await messages.Ask(request, timeout=30.0)).message.body.type_url.endswith("wares.v1.Surprise")


# -- what it does not --------------------------------------------------------------------------------------------------


def test_an_error_of_a_file_is_that_of_loading(tmp_path: Path) -> None:
    raising = write(tmp_path / "raising.py", "x = 1\nraise ValueError('no')\n")
    assert failure(raising) == f"{raising}: line 2: ValueError: no"
    twice = write(tmp_path / "twice.py", NOTE + ACTOR.format(name="one", settings="") * 2)
    assert "kernel type 'one' is declared twice, in lines 8 and 13" in failure(twice)
    assert "missing.py: no such file" in failure(str(tmp_path / "missing.py"))


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("import os, time; os.fork() or time.sleep(5); os._exit(0)", "ended with exit code 0"),
        ("import time; time.sleep(60)", "takes longer than 0.5 seconds"),
    ],
)
def test_a_file_that_ends_the_process_or_hangs_is_named(tmp_path: Path, line: str, how: str) -> None:
    bad = write(tmp_path / "bad.py", line)
    text = failure(bad, patience=0.5 if "longer" in how else 60.0)
    assert text.startswith(f"{bad}: ")
    assert how in text


def test_two_files_may_have_classes_of_one_name_if_they_are_alike(tmp_path: Path) -> None:
    files = [write(tmp_path / each / "k.py", NOTE + ACTOR.format(name=each, settings="")) for each in "ab"]
    described = describe_kernel_types(files)
    places: list[Any] = [vars(each.input_type)["__elsewhere__"].place for each in described.values()]
    assert [each.file for each in places] == files
    other = NOTE.replace("str", "bytes").replace('""', 'b""')
    write(tmp_path / "b" / "k.py", other + ACTOR.format(name="b", settings=""))
    with pytest.raises(MessageTypeError, match="another one of the same name"):
        describe_kernel_types(files)


async def test_each_folder_imports_the_helper_of_its_own_in_a_template_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = []
    for each in "ab":
        write(tmp_path / each / "helper.py", f"NAME = {each!r}")
        reply = "ctx.send(Note(NAME, correlation_id=note.message_id))"
        actor = ACTOR.format(name=each, settings="").replace("ctx.send(note)", reply)
        files.append(write(tmp_path / each / "k.py", f"from helper import NAME\n{NOTE}{actor}"))
    kernel_types: Any = describe_kernel_types(files)
    async with RingKernelRuntime(kernel_types=kernel_types, isolation="process") as runtime:
        for each in "ab":
            async with runtime.kernel_scope(each):
                note = kernel_types[each].input_type()
                assert (await runtime.send_and_receive(each, note, timeout=60.0)).text == each
    assert "imports it anew" not in caplog.text


def test_a_kernel_type_that_wants_to_run_in_the_daemon_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "here.py", NOTE + ACTOR.format(name="here", settings=', isolation="none"'))
    assert failure(file).startswith("""kernel type 'here' has isolation="none", but with --isolation process""")


def test_the_daemon_does_not_start_with_a_file_that_crashes(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.py", "import ctypes; ctypes.string_at(0)")
    command = [sys.executable, "-c", SERVER, bad, "--isolation", "process", "--listen", "127.0.0.1:0"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].endswith("the process that imports it was ended by SIGSEGV")
    assert "Segmentation fault" in run.stderr
