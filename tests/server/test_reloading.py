"""Files of kernels that are loaded again while the daemon serves them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2

from pydotcompute.access.roles import Grant, Rights, Role
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelFailedError,
    NotPermittedError,
    PyDotComputeError,
)
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute.v1 import kernel_service_pb2_grpc
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute_client import connect
from pydotcompute_server import Call, Daemon, Method, Proceed, Settings, describe_kernel_types
from pydotcompute_server.principals import Principal, calling_as
from tests.contract.world import PATIENCE, eventually
from tests.embedded import embedded

SHOP = '''
import asyncio
import os
from pathlib import Path
from pydotcompute import message, ring_kernel

@message(package="reloaded.shop.v1")
class Order:
    number: int = 0
    wait_for: str = ""
    {order}

@message(package="reloaded.shop.v1")
class Receipt:
    number: int = 0
    text: str = ""
    pid: int = 0
    {receipt}

@ring_kernel(input_type=Order, output_type=Receipt)
async def till(ctx):
    """{documentation}"""
    {beginning}
    async for order in ctx:
        while order.wait_for and not Path(order.wait_for).exists():
            await asyncio.sleep(0.005)
        await ctx.send(Receipt(order.number, {text}, os.getpid(), correlation_id=order.message_id))
{more}
'''
MORE = """
@message(package="reloaded.shop.v1")
class Parcel:
    weight: float = 0.0

@ring_kernel(input_type=Parcel, output_type=Parcel)
async def scales(ctx):
    async for parcel in ctx:
        await ctx.send(parcel)
"""


def as_operator_of(pattern: str) -> Any:
    """A step that takes everybody for the operator of the kernels of this pattern."""
    principal = Principal("olga", Rights((Grant(Role.OPERATOR, (pattern,)),)))

    def step(method: Method, proceed: Proceed) -> Proceed:
        async def call_as(call: Call) -> None:
            calling_as(principal)
            await proceed(call)

        return call_as

    return step


class Shop:
    """A daemon that serves a file, and the file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fields = {"order": "", "receipt": ""}  # What a field once is it stays.
        self.write()
        self.target = ""

    def write(self, text: str = "'old'", **parts: str) -> None:
        """Write the file with these parts. Its age differs from what it was, however quick this is."""
        blank = {**self.fields, "documentation": "A till.", "beginning": "", "more": ""}
        age = self.file.stat().st_mtime_ns if self.file.exists() else 0
        self.file.write_text(SHOP.format(text=text, **{**blank, **parts}))
        os.utime(self.file, ns=(age + 1_000_000_000, age + 1_000_000_000))


@pytest.fixture(scope="module")
def shop(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("shop") / "shop.py")
    shop.target = start_daemon(str(shop.file), "--isolation", "process", "--launch", "till").target
    return shop


async def test_new_workers_take_over_while_old_ones_finish_and_nothing_is_lost(shop: Shop, tmp_path: Path) -> None:
    shop.write()
    async with connect(shop.target) as runtime:
        await runtime.reload()
        order: Any = (await runtime.describe("till")).input_type
        gate = tmp_path / "gate"
        held = asyncio.create_task(runtime.send_and_receive("till", order(0, str(gate)), timeout=PATIENCE))
        waiting = [
            asyncio.create_task(runtime.send_and_receive("till", order(number), timeout=PATIENCE))
            for number in range(1, 20)
        ]
        await eventually(lambda: runtime.get_telemetry("till").queue_depth == 19)  # type: ignore[union-attr]
        shop.write("'new'", documentation="Another till.", more=MORE)
        done = await runtime.reload(str(shop.file))
        assert (done.kernel_ids, done.new_kernel_types, done.changed_types) == (["till"], ["scales"], [])
        told = await asyncio.gather(*waiting)
        assert [(each.number, each.text) for each in told] == [(number, "new") for number in range(1, 20)]
        assert not held.done()
        await asyncio.to_thread(gate.touch)
        last = await held
        assert (last.number, last.text) == (0, "old")
        assert last.pid not in {each.pid for each in told}
        assert await runtime.fetch_dead_letters("till") == []
        description = await runtime.describe("till")
        assert (description.documentation, description.instances) == ("Another till.", 1)

        await runtime.launch("scales")
        await runtime.activate("scales")
        parcel: Any = (await runtime.describe("scales")).input_type
        assert (await runtime.send_and_receive("scales", parcel(2.5), timeout=PATIENCE)).weight == 2.5
        async with grpc.aio.insecure_channel(shop.target) as channel:
            ask: Any = channel.unary_unary("/reloaded.shop.v1.Scales/Ask")
            assert await ask(b"\x09\x00\x00\x00\x00\x00\x00\x04\x40") == b"\x09\x00\x00\x00\x00\x00\x00\x04\x40"
        await runtime.terminate("scales")


async def test_a_module_that_the_file_imports_is_imported_again_too(
    start_daemon: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "wording.py").write_text("TEXT = 'old'")
    shop = Shop(tmp_path / "shop.py")
    shop.write("TEXT", more="from wording import TEXT")
    async with connect(start_daemon(str(shop.file), "--isolation", "process", "--launch", "till").target) as runtime:
        order: Any = (await runtime.describe("till")).input_type
        assert (await runtime.send_and_receive("till", order(1), timeout=PATIENCE)).text == "old"
        (tmp_path / "wording.py").write_text("TEXT = 'renewed'")
        await runtime.reload()
        assert (await runtime.send_and_receive("till", order(2), timeout=PATIENCE)).text == "renewed"


async def test_a_compatible_change_of_messages_is_taken_and_open_sessions_go_on(shop: Shop) -> None:
    shop.write(more=MORE)
    async with connect(shop.target) as old_client, grpc.aio.insecure_channel(shop.target) as channel:
        await old_client.reload()
        order: Any = (await old_client.describe("till")).input_type
        assert (await old_client.send_and_receive("till", order(1), timeout=PATIENCE)).text == "old"
        shop.fields = {"order": 'colour: str = "red"', "receipt": "paid: bool = True"}
        shop.write("order.colour", more=MORE)
        done = await old_client.reload()
        assert done.changed_types == ["reloaded.shop.v1.Order", "reloaded.shop.v1.Receipt"]
        assert (await old_client.send_and_receive("till", order(2), timeout=PATIENCE)).text == "red"
        # A program that knows the new types, here without a class for them.
        described = await kernel_service_pb2_grpc.KernelServiceStub(channel).DescribeKernel(
            pb.DescribeKernelRequest(kernel_id="till")
        )
        assert '"colour": "red"' in described.sample_json
        pool = TypePool()
        for each in (described.input_type, described.output_type):
            pool.add_files(each.files.file)
        request: Any = pool.message_class("reloaded.shop.v1.Order")(number=3, colour="blue")
        ask: Any = channel.unary_unary("/reloaded.shop.v1.Till/Ask")
        receipt: Any = pool.message_class("reloaded.shop.v1.Receipt").FromString(await ask(request.SerializeToString()))
        assert (receipt.number, receipt.text, receipt.paid) == (3, "blue", True)
        as_json: Any = channel.unary_unary("/pydotcompute.v1.MessageService/Ask")
        body, message = struct_pb2.Struct(), message_pb.Message()
        body.update({"number": 4, "colour": "green"})
        message.body.Pack(body)
        asked = message_pb.AskRequest(kernel_id="till", message=message)
        answer: Any = message_pb.AskResponse.FromString(await as_json(asked.SerializeToString()))
        assert "green" in str(answer)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"text": "'new'", "order": "number: str = ''"}, "reloaded.shop.v1.Order.number: was int64, is string"),
        ({"text": "'new'", "more": "raise RuntimeError('not today')"}, "RuntimeError: not today"),
        ({"text": "'new'", "more": "import os; os._exit(3)"}, "ended with exit code 3"),
        ({"text": "'new'", "more": ""}, "kernel type 'scales' is gone; declare it again"),
    ],
    ids=["another type", "raises", "ends", "gone"],
)
async def test_what_breaks_is_refused_and_nothing_changes(shop: Shop, parts: dict[str, str], problem: str) -> None:
    shop.write(more=MORE)
    async with connect(shop.target) as runtime:
        await runtime.reload()
        order: Any = (await runtime.describe("till")).input_type
        before = await runtime.send_and_receive("till", order(1), timeout=PATIENCE)
        shop.write(**{"more": MORE, **parts, "text": "'new'"})
        with pytest.raises(PyDotComputeError) as refused:
            await runtime.reload()
        assert isinstance(refused.value, InvalidConfigurationError)
        assert problem in str(refused.value)
        assert (await runtime.send_and_receive("till", order(2), timeout=PATIENCE)).pid == before.pid


async def test_an_actor_that_does_not_begin_is_refused(shop: Shop) -> None:
    shop.write(more=MORE)
    async with connect(shop.target) as runtime:
        await runtime.reload()
        order: Any = (await runtime.describe("till")).input_type
        before = await runtime.send_and_receive("till", order(1), timeout=PATIENCE)
        shop.write("'new'", beginning="raise ValueError('not yet')", more=MORE)
        with pytest.raises(KernelFailedError, match="ValueError: not yet"):
            await runtime.reload()
        assert (await runtime.send_and_receive("till", order(2), timeout=PATIENCE)).pid == before.pid


async def test_a_file_that_the_daemon_does_not_serve_is_refused(shop: Shop) -> None:
    async with connect(shop.target) as runtime:
        with pytest.raises(InvalidConfigurationError, match="the daemon was not started with it, but with"):
            await runtime.reload("/etc/passwd")


async def test_a_daemon_that_has_imported_the_files_itself_refuses() -> None:
    async with embedded() as daemon, connect(daemon.address) as runtime:
        with pytest.raises(InvalidConfigurationError, match="isolation=none: the daemon has imported the files"):
            await runtime.reload()
        with pytest.raises(InvalidConfigurationError, match="isolation=none"):
            await daemon.reload_kernels()


def test_watching_needs_isolation() -> None:
    with pytest.raises(InvalidConfigurationError, match="only a daemon with --isolation process"):
        Settings(reload=True)


async def test_only_who_is_operator_of_all_of_it_reloads(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop.py")
    types = await asyncio.to_thread(describe_kernel_types, [str(shop.file)])
    steps = (as_operator_of("other/*"),)
    settings = Settings(listen="127.0.0.1:0", isolation="process", kernels=[str(shop.file)])
    daemon = Daemon(settings, types, steps)
    await daemon.start()
    running = asyncio.create_task(daemon.run())
    try:
        async with connect(daemon.address) as runtime:
            with pytest.raises(NotPermittedError, match="KernelService/Reload: it needs the role operator for kernel"):
                await runtime.reload()
        shop.write(more=MORE)
        done = await daemon.reload_kernels()
        assert (done.kernel_ids, done.new_kernel_types) == ([], ["scales"])
    finally:
        daemon.stop()
        await running


async def test_a_daemon_loads_files_that_change_by_itself(start_daemon: Callable[..., Any], tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop.py")
    daemon = start_daemon(str(shop.file), "--isolation", "process", "--launch", "till", "--reload")
    await eventually(lambda: "watching for changes" in daemon.log_text())
    async with connect(daemon.target) as runtime:
        order: Any = (await runtime.describe("till")).input_type
        shop.write("'new'", more="raise RuntimeError('not today')")
        await eventually(lambda: "what was loaded before goes on" in daemon.log_text())
        assert (await runtime.send_and_receive("till", order(1), timeout=PATIENCE)).text == "old"
        shop.write("'new'")
        await eventually(lambda: "kernels were loaded again" in daemon.log_text())
        await eventually_says(runtime, order, "new")


async def eventually_says(runtime: Any, order: Any, text: str) -> None:
    while (await runtime.send_and_receive("till", order(1), timeout=PATIENCE)).text != text:
        pass
