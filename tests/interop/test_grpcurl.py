"""grpcurl and grpc_health_probe, which have nothing but the daemon's address."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from pydotcompute.device.monitor import read_devices
from pydotcompute.exceptions import BackendUnavailableError
from tests.interop.conftest import RUN_SECONDS, run
from tests.tools import ROOT, tool

OK = 0
DEADLINE_EXCEEDED = 64 + 4
INVALID_ARGUMENT = 64 + 3
"""What grpcurl ends with: 64, and the code of the status."""
INVALID_ARGUMENT = 64 + 3
FAILED_PRECONDITION = 64 + 9

ARGUMENTS = {"kernel_id": "adder"}
REQUEST = {"@type": "type.googleapis.com/calculator.v1.CalculationRequest", "a": 3, "b": 4}
MINE = {"kernel_id": "adder", "client_id": "me"}


@dataclass
class Grpcurl:
    """grpcurl, and which methods it was used for."""

    program: str
    target: str
    called: set[str]

    def __call__(self, *arguments: str) -> str:
        """What it prints with a verb: list, or describe."""
        return run(self.program, "-plaintext", self.target, *arguments)

    def call(self, method: str, *requests: Any, exits: int = OK, options: tuple[str, ...] = ()) -> Any:
        """Call a method with JSON; its response, or the list of them if a stream is asked for by more requests than
        one, or by an end of the call that is not OK. With an error of the daemon's: that, as JSON.
        """
        self.called.add(method)
        data = "".join(json.dumps(request) for request in requests)
        command = [self.program, "-plaintext", "-format-error", "-max-time", "20", *options, "-d", data, self.target]
        done = subprocess.run([*command, method], capture_output=True, text=True, timeout=RUN_SECONDS)
        assert done.returncode == exits, f"{method}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        answers = documents(done.stdout)
        if exits not in (OK, DEADLINE_EXCEEDED):
            return documents(done.stderr)[0]
        return answers[0] if len(requests) == 1 and exits == OK and len(answers) == 1 else answers


def there_is_a_gpu() -> bool:
    """Whether a daemon on this machine can tell of its GPUs."""
    try:
        read_devices()
    except BackendUnavailableError:
        return False
    return True


def documents(text: str) -> list[Any]:
    """JSON documents, one after the other."""
    decoder = json.JSONDecoder()
    found = []
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.fixture
def grpcurl(start_daemon: Callable[..., Any]) -> Grpcurl:
    """With a daemon of its own, that no other test has changed."""
    program = tool("grpcurl")
    return Grpcurl(program, start_daemon(str(ROOT / "examples" / "calculator.py")).target, set())


def test_every_method_that_grpcurl_lists_it_can_call(grpcurl: Grpcurl) -> None:
    call = grpcurl.call
    services = grpcurl("list").split()
    methods = {method for service in services for method in grpcurl("list", service).split()}

    # Its life.
    lifecycle = "pydotcompute.v1.KernelService"
    (listed,) = call(f"{lifecycle}/ListKernelTypes", {})["kernelTypes"]
    assert (listed["name"], listed["service"]) == ("calculator", "calculator.v1.Calculator")
    launch = {"kernel_id": "adder", "kernel_type": "calculator", "request_id": str(uuid4())}
    for method, request, state in (
        ("Launch", launch, "LAUNCHED"),
        ("Activate", ARGUMENTS, "ACTIVE"),
        ("Deactivate", ARGUMENTS, "DEACTIVATED"),
        ("Reactivate", ARGUMENTS, "ACTIVE"),
    ):
        assert call(f"{lifecycle}/{method}", request)["kernel"]["state"] == f"KERNEL_STATE_{state}"
    # There are no worker processes here.
    assert call(f"{lifecycle}/Reload", {}, exits=INVALID_ARGUMENT)["code"] == 3
    assert call(f"{lifecycle}/Scale", {**ARGUMENTS, "instances": 2}, exits=INVALID_ARGUMENT)["code"] == 3
    assert call(f"{lifecycle}/Restart", ARGUMENTS, exits=INVALID_ARGUMENT)["code"] == 3
    assert [kernel["kernelId"] for kernel in call(f"{lifecycle}/ListKernels", {})["kernels"]] == ["adder"]
    described = call(f"{lifecycle}/DescribeKernel", ARGUMENTS)
    assert described["serviceFiles"]["file"][-1]["name"] == "calculator/v1/calculator_service.proto"

    # Its own service. The header is metadata.
    to_it = ("-H", "pydotcompute-kernel-id: adder")
    as_me = (*to_it, "-H", "pydotcompute-client-id: me")
    assert call("calculator.v1.Calculator/Ask", {"a": 1, "b": 2}, options=to_it)["result"] == 3
    assert call("calculator.v1.Calculator/Send", {"a": 2, "b": 2}, options=as_me) == {}
    assert call("calculator.v1.Calculator/Receive", {}, options=as_me)["result"] == 4
    replies = call("calculator.v1.Calculator/Stream", {"a": 1}, {"a": 2}, {"a": 3}, options=to_it)
    assert [reply["result"] for reply in replies] == [1, 2, 3]

    # The services of the daemon. A body is an Any.
    messages = "pydotcompute.v1.MessageService"
    message = {"body": REQUEST}
    answer = call(f"{messages}/Ask", {**ARGUMENTS, "message": message})["message"]
    assert answer["body"]["@type"] == "type.googleapis.com/calculator.v1.CalculationResponse"
    assert answer["body"]["result"] == 7
    sent = call(f"{messages}/Send", {**MINE, "message": message})
    received = call(f"{messages}/Receive", {**MINE, "timeout": "5s", "lease": "30s"})
    assert received["message"]["correlationId"] == sent["messageId"]
    delivery = {**ARGUMENTS, "delivery_ids": [received["deliveryId"]]}
    assert call(f"{messages}/Acknowledge", delivery) == {}
    opening = {"open": {**ARGUMENTS, "credit": {"messages": "1", "bytes": "1000"}}}
    opened, *_ = call(f"{messages}/Exchange", opening, {"bye": {}})
    assert opened["opened"]["sessionToken"]

    telemetry = "pydotcompute.v1.TelemetryService"
    (counters,) = call(f"{telemetry}/GetTelemetry", {"kernel_ids": ["adder"]})["kernels"]
    assert counters["messagesProcessed"] == "7"
    watching = {"kernel_ids": ["adder"], "interval": "0.01s"}
    watched = call(f"{telemetry}/WatchTelemetry", watching, exits=DEADLINE_EXCEEDED, options=("-max-time", "0.5"))
    assert len(watched) > 1
    call(f"{telemetry}/GetDevices", {}, exits=OK if there_is_a_gpu() else FAILED_PRECONDITION)
    call(f"{telemetry}/GetMemory", {})

    dead_letters = "pydotcompute.v1.DeadLetterService"
    assert "deadLetters" not in call(f"{dead_letters}/ListDeadLetters", ARGUMENTS)
    assert call(f"{dead_letters}/RequeueDeadLetters", ARGUMENTS) == {}

    clients = "pydotcompute.v1.ClientService"
    call(f"{clients}/ListClients", {})
    assert call(f"{clients}/Kick", {"principal": "nobody"}) == {}

    info = call("pydotcompute.v1.ServerService/GetServerInfo", {})
    assert info["limits"]["max_message_bytes"] == 64 << 20
    assert "launch_request_id" in info["features"]

    health = "grpc.health.v1.Health"
    adder = {"service": "adder"}
    assert call(f"{health}/Check", adder) == {"status": "SERVING"}
    watched = call(f"{health}/Watch", adder, exits=DEADLINE_EXCEEDED, options=("-max-time", "0.5"))
    assert watched == [{"status": "SERVING"}]

    statuses = call(f"{health}/List", {})["statuses"]
    assert statuses == {name: {"status": "SERVING"} for name in ("", "adder", *services)}

    for version in ("v1", "v1alpha"):
        method = f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        found = call(method, {"list_services": ""})["listServicesResponse"]["service"]
        assert {service["name"] for service in found} == set(services)

    clients = "pydotcompute.v1.ClientService"
    call(f"{clients}/ListClients", {})
    call(f"{clients}/Kick", {"principal": "nobody"})

    ended = call(f"{lifecycle}/Terminate", ARGUMENTS)
    assert ended["kernel"]["state"] == "KERNEL_STATE_TERMINATED"

    assert {method.replace("/", ".") for method in grpcurl.called} == methods


def test_describe_shows_the_service_with_what_it_guarantees(grpcurl: Grpcurl) -> None:
    described = grpcurl("describe", "calculator.v1.Calculator")
    assert "// Adds, subtracts, multiplies and divides.\nservice Calculator {" in described
    assert "rpc Ask ( .calculator.v1.CalculationRequest ) returns ( .calculator.v1.CalculationResponse );" in described
    request = grpcurl("describe", "calculator.v1.CalculationRequest")
    assert '// If absent: "add".\n  optional string operation = 3;' in request


def test_an_error_says_where_and_why(grpcurl: Grpcurl) -> None:
    grpcurl.call("pydotcompute.v1.KernelService/Launch", {"kernel_id": "calculator"})
    wrong = {"@type": "type.googleapis.com/calculator.v1.CalculationResponse", "result": 1}
    asking = {"kernel_id": "calculator", "message": {"body": wrong}}
    error = grpcurl.call("pydotcompute.v1.MessageService/Ask", asking, exits=INVALID_ARGUMENT)
    assert "calculator.v1.CalculationRequest" in error["message"]
    details = {detail["@type"].rpartition("/")[2]: detail for detail in error["details"]}
    assert details["google.rpc.ErrorInfo"]["reason"] == "MESSAGE_INVALID"
    (violation,) = details["google.rpc.BadRequest"]["fieldViolations"]
    assert violation["field"] == "$.message.body"


def test_the_files_that_grpcurl_writes_are_taken_back(grpcurl: Grpcurl, tmp_path: Any) -> None:
    image = tmp_path / "daemon.binpb"
    run(grpcurl.program, "-plaintext", "-protoset-out", image, grpcurl.target, "describe")
    described = run(grpcurl.program, "-protoset", image, "describe", "calculator.v1.Calculator")
    assert re.search(r"rpc Stream \( stream .calculator.v1.CalculationRequest \)", described)


# -- grpc_health_probe -------------------------------------------------------------------------------------------------

UNHEALTHY = 4
RPC_FAILURE = 3


def test_the_health_probe_tells_how_the_daemon_and_a_kernel_are(start_daemon: Callable[..., Any]) -> None:
    program = tool("grpc_health_probe")
    daemon = start_daemon(str(ROOT / "examples" / "calculator.py"), "--launch", "calculator")

    def probe(service: str) -> int:
        command = [program, f"-addr={daemon.target}", f"-service={service}", "-connect-timeout=10s", "-rpc-timeout=10s"]
        return subprocess.run(command, capture_output=True, timeout=RUN_SECONDS).returncode

    assert probe("") == OK
    assert probe("calculator") == OK
    assert probe("calculater") == RPC_FAILURE
    run(
        *(tool("grpcurl"), "-plaintext", "-d", '{"kernel_id": "calculator"}', daemon.target),
        "pydotcompute.v1.KernelService/Terminate",
    )
    assert probe("calculator") == UNHEALTHY
    assert probe("") == OK
