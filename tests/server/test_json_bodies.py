"""Bodies from clients that know no types: JSON in a Struct, and what is said about one that is wrong."""

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, struct_pb2

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.messages import LONGEST_STRUCT
from tests.stubs import Failure, Wire, failure_of
from tests.tools import tool

KERNELS = """
import enum
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID
from pydotcompute import message, ring_kernel

class Unit(enum.Enum):
    METRE = 1
    INCH = 2

@dataclass
class Circle:
    radius: float

@dataclass
class Rectangle:
    width: float = 1.0

@message
class Drawing:
    id: UUID
    shapes: list[Circle | Rectangle] = field(default_factory=list)
    unit: Unit = Unit.METRE
    tags: list[UUID] | None = None
    made: datetime | None = None
    big: int = 0

    def __post_init__(self):
        if self.big == 13:
            raise ValueError("an unlucky number")

@ring_kernel(kernel_id="drawer", input_type=Drawing, output_type=Drawing)
async def drawer(ctx):
    async for drawing in ctx:
        await ctx.send(drawing)
"""
DRAWING = "drawings.v1.Drawing"
IDENT = "00000000-0000-4000-8000-000000000000"
STRUCT = "google.protobuf.Struct"
WAIT = 20.0


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    kernels = tmp_path_factory.mktemp("kernels") / "drawings.py"
    kernels.write_text(KERNELS)
    address: str = start_daemon(str(kernels), "--launch", "drawer").target
    return address


@pytest.fixture
async def wire(target: str) -> AsyncIterator[Wire]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield Wire(channel)


Put = Callable[[any_pb2.Any], Awaitable[Any]]


@pytest.fixture(params=["Send", "Ask"])
def put(request: pytest.FixtureRequest, wire: Wire) -> Put:
    """Puts a message with this body into the kernel's mailbox."""
    asked: Any = pb.SendRequest if request.param == "Send" else pb.AskRequest
    method = getattr(wire.messages, request.param)
    return lambda body: method(asked(kernel_id="drawer", message=pb.Message(body=body)), timeout=WAIT)


def struct(**fields: Any) -> any_pb2.Any:
    """The body of a client that knows no types."""
    value = struct_pb2.Struct()
    value.update(fields)
    body = any_pb2.Any()
    body.Pack(value)
    return body


async def refusal(call: Awaitable[Any]) -> Failure:
    """How a message is refused whose body is wrong."""
    failure = await failure_of(call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID")
    return failure


async def test_a_struct_is_read_as_the_kernels_input_type(wire: Wire) -> None:
    body = struct(
        id=IDENT, shapes=[{"circle": {"radius": 2}}], unit="UNIT_INCH", big=2**53, made="2000-01-01T00:00:00Z"
    )
    answer = await wire.messages.Ask(pb.AskRequest(kernel_id="drawer", message=pb.Message(body=body)), timeout=WAIT)
    await wire.describe("drawer")
    assert answer.message.body.TypeName() == DRAWING
    assert wire.fields(answer.message.body) == {
        "id": IDENT,
        "shapes": [{"circle": {"radius": 2.0}}],
        "unit": "UNIT_INCH",
        "big": str(2**53),
        "made": "2000-01-01T00:00:00Z",
    }


async def test_a_struct_that_was_sent_is_received_as_the_output_type(wire: Wire) -> None:
    request = pb.SendRequest(kernel_id="drawer", client_id="me", message=pb.Message(body=struct(id=IDENT)))
    sent = await wire.messages.Send(request, timeout=WAIT)
    message = await wire.receive("drawer", client_id="me")
    assert (message.message_id, message.body.TypeName()) == (sent.message_id, DRAWING), "it is an echo"


async def test_all_that_is_wrong_with_a_struct_is_told_with_its_place_in_the_request(put: Put) -> None:
    wrong = struct(
        idd="x", big="many", shapes=[{"circle": {"radius": "wide"}}, {}, {"circle": {"radius": 1}}], unit="FOOT"
    )
    failure = await refusal(put(wrong))
    assert failure.violations == failure.detail["violations"]
    assert failure.violations == [
        ("$.message.body.value.big", 'expected an integer, got "many"'),
        (
            "$.message.body.value.idd",
            'no such field: did you mean "id"?; Drawing has "id", "shapes", "unit", "tags", "made", "big"',
        ),
        ("$.message.body.value.shapes[0].circle.radius", 'expected a number, got "wide"'),
        ("$.message.body.value.shapes[1]", 'expected one of "circle", "rectangle", and there is none'),
        ("$.message.body.value.unit", 'expected one of "UNIT_METRE", "UNIT_INCH", got "FOOT"'),
        ("$.message.body.value.id", "a value is required, and there is none"),
    ]


async def test_an_integer_that_a_struct_has_rounded_is_refused(put: Put) -> None:
    failure = await refusal(put(struct(id=IDENT, big=2**53 + 1.0e3)))
    assert failure.detail["path"] == "$.message.body.value.big"
    assert "may have been rounded" in failure.detail["problem"]
    await put(struct(id=IDENT, big=str(2**53 + 1)))


async def test_what_the_class_itself_refuses_is_the_problem_of_the_body(put: Put) -> None:
    failure = await refusal(put(struct(id=IDENT, big=13)))
    assert failure.violations == [("$.message.body.value", "ValueError: an unlucky number")]


async def test_all_that_is_wrong_with_a_typed_body_is_told_as_its_json_shows_it(wire: Wire, put: Put) -> None:
    await wire.describe("drawer")
    body = wire.body(DRAWING, shapes=[{"rectangle": {}}, {}], tags={"value": ["me", IDENT, "you"]})
    assert [path for path, _ in (await refusal(put(body))).violations] == [
        "$.message.body.shapes[1]",
        "$.message.body.tags.value[0]",
        "$.message.body.tags.value[2]",
        "$.message.body.id",
    ]
    unlucky = wire.body(DRAWING, id=IDENT, big=13)
    assert (await refusal(put(unlucky))).violations == [("$.message.body", "ValueError: an unlucky number")]


async def test_a_typed_body_that_has_no_json_is_told_by_its_first_mistake(wire: Wire, put: Put) -> None:
    await wire.describe("drawer")
    message = wire.message(DRAWING)
    message.id = IDENT
    message.made.seconds = 10**15
    body = any_pb2.Any()
    body.Pack(message)
    assert [path for path, _ in (await refusal(put(body))).violations] == ["$.message.body.made"]


@pytest.mark.parametrize("type_name", ["google.protobuf.Duration", "drawings.v1.Drawin", "google.protobuf.Value", ""])
async def test_a_body_of_an_unknown_type_is_told_what_the_kernel_takes(put: Put, type_name: str) -> None:
    failure = await refusal(put(any_pb2.Any(type_url=type_name and f"type.googleapis.com/{type_name}")))
    assert failure.detail["path"] == "$.message.body"
    assert DRAWING in failure.detail["expected"]
    assert STRUCT in failure.detail["expected"]
    assert failure.detail["actual"] == (type_name or "no body")


async def test_a_struct_is_no_way_around_the_limits(put: Put) -> None:
    failure = await refusal(put(struct(id=IDENT, tags={"value": ["x" * LONGEST_STRUCT]})))
    assert failure.detail["message_type"] == STRUCT
    assert failure.detail["limit"] == LONGEST_STRUCT
    deep: Any = {}
    for _ in range(25):
        deep = {"circle": deep}
    assert (
        (await refusal(put(struct(id=IDENT, shapes=[deep])))).violations[0][0].startswith("$.message.body.value.shapes")
    )


async def test_bytes_that_are_no_struct_are_refused(put: Put) -> None:
    failure = await refusal(put(any_pb2.Any(type_url=f"type.googleapis.com/{STRUCT}", value=b"\xff")))
    assert (failure.detail["message_type"], failure.detail["path"]) == (STRUCT, "$.message.body")


# -- grpcurl -----------------------------------------------------------------------------------------------------------


def grpcurl(target: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Ask by grpcurl, which has the address and nothing else: its exit code, and the reply or the status."""
    data = json.dumps({"kernel_id": "drawer", "message": {"body": body}})
    command = [tool("grpcurl"), "-plaintext", "-format-error", "-d", data, target, "pydotcompute.v1.MessageService/Ask"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_grpcurl_asks_without_knowing_a_type(target: str) -> None:
    code, answer = grpcurl(target, {"@type": f"type.googleapis.com/{STRUCT}", "value": {"id": IDENT, "big": 7}})
    assert code == 0
    assert answer["message"]["body"]["@type"] == f"type.googleapis.com/{DRAWING}"
    assert (answer["message"]["body"]["id"], answer["message"]["body"]["big"]) == (IDENT, "7")


def test_grpcurl_prints_every_part_of_an_error(target: str) -> None:
    code, status = grpcurl(target, {"@type": f"type.googleapis.com/{STRUCT}", "value": {"id": 1, "big": "x"}})
    assert code != 0
    info, detail, bad_request = status["details"]
    assert (info["reason"], info["domain"]) == ("MESSAGE_INVALID", "pydotcompute")
    assert detail["path"] == "$.message.body.value.big"
    fields = [violation["field"] for violation in bad_request["fieldViolations"]]
    assert fields == ["$.message.body.value.big", "$.message.body.value.id"]
