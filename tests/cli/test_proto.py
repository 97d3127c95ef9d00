"""`pydotcompute proto`, against daemons whose message classes change, and before protoc and buf."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from pydotcompute.schema.lock import parse
from pydotcompute_client.cli import proto
from pydotcompute_client.cli.main import main
from tests.tools import tool

ROOT = Path(__file__).resolve().parents[2]
PROTOC = ROOT / ".venv-proto" / "bin" / "python"
BUF = str(Path(sys.executable).with_name("buf"))

HEAD = '''
import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import numpy as np

from pydotcompute import message, ring_kernel
from pydotcompute.schema.introspect import FieldNumber

@dataclass
class Coin:
    """Round money."""
    cents: int = 1

@dataclass
class Note:
    euros: int = 5

@message
class Send:
    """Named as a method is."""
    what: str = ""

@ring_kernel(input_type=Send)
async def post(ctx):
    async for _ in ctx:
        pass

@ring_kernel(kernel_id="private")
async def private(ctx):
    async for _ in ctx:
        pass
'''
TILL = '''
@ring_kernel(input_type=Payment, output_type=Receipt)
async def till(ctx):
    """Takes money.

    Gives "receipts"; // and */ do no harm."""
    async for payment in ctx:
        await ctx.send(Receipt(payment.customer, correlation_id=payment.message_id))
'''
OLD = (
    HEAD
    + '''
class Kind(enum.Enum):
    """How it is paid."""
    CASH = "cash"
    CHEQUE = "cheque"
    CARD = "card"

@message
class Payment:
    """What a customer pays."""
    money: list[Coin | Note] = field(default_factory=list)
    customer: str = field(default="", metadata={"doc": "Who pays."})
    tip: int | None = None
    kind: Kind = Kind.CASH
    signature: np.ndarray | None = None
    when: datetime | None = None
    rows: list[list[int]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

@message
class Receipt:
    text: str
'''
    + TILL
)
NEW = (
    HEAD
    + '''
class Kind(enum.Enum):
    """How it is paid."""
    TRANSFER = "transfer"
    CARD = "card"
    CASH = "cash"

@message
class Payment:
    """What a customer pays."""
    customer: str = field(default="", metadata={"doc": "Who pays."})
    discount: float = 0.0
    money: list[Coin | Note] = field(default_factory=list)
    kind: Kind = Kind.CASH
    signature: np.ndarray | None = None
    when: datetime | None = None
    rows: list[list[int]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

@message
class Receipt:
    text: str
'''
    + TILL
)


def run(target: str, *arguments: str | Path) -> Result:
    env = {"PYDOTCOMPUTE_TARGET": target}
    return CliRunner().invoke(main, ["proto", *map(str, arguments)], env=env, prog_name="pydotcompute")


def ok(target: str, *arguments: str | Path) -> list[str]:
    """The lines that a command prints which succeeds."""
    result = run(target, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def fail(exit_code: int, target: str, *arguments: str | Path) -> tuple[str, str]:
    """What a command prints that ends with this exit code, and its one line of error."""
    result = run(target, *arguments)
    assert result.exit_code == exit_code, result.output
    assert re.fullmatch(r"error: .*\n", result.stderr)
    return result.stdout, result.stderr


def as_compiler(command: list[str], folder: Path) -> None:
    """Runs a compiler or a linter, which has nothing to say."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def start(start_daemon: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Starts a daemon with this source as its `shop.py`; gives its address."""

    def start(source: str, *options: str, **settings: Any) -> str:
        kernels = tmp_path_factory.mktemp("kernels") / "shop.py"
        kernels.write_text(source)
        target: str = start_daemon(str(kernels), "--launch", "all", *options, **settings).target
        return target

    return start


@pytest.fixture(scope="module")
def old(start: Callable[..., str]) -> str:
    """A daemon with the classes as they were."""
    return start(OLD)


@pytest.fixture(scope="module")
def new(start: Callable[..., str]) -> str:
    """A daemon with fields that have moved, gone and come, without a lock."""
    return start(NEW)


@pytest.fixture(scope="module")
def exported_once(old: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "protos"
    ok(old, "export", "--out", out, "--go-package", "example.com/shop")
    return out


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """What the old daemon's types were exported to."""
    return shutil.copytree(exported_once, tmp_path / "protos")


@pytest.fixture(scope="module")
def locked(start: Callable[..., str], exported_once: Path) -> str:
    """A daemon with the new classes, and the lock."""
    return start(NEW, "--proto-lock", str(exported_once / "pydotcompute.lock"))


# The files.


def test_an_export_is_a_file_for_each_package_and_what_it_needs(exported: Path) -> None:
    assert sorted(files_in(exported)) == [
        "buf.yaml",
        "descriptors.binpb",
        "pydotcompute.lock",
        "pydotcompute/v1/tensor.proto",
        "shop/v1/shop.proto",
    ]


def test_the_files_are_documented(exported: Path) -> None:
    shop = (exported / "shop/v1/shop.proto").read_text()
    assert "// What a customer pays.\nmessage Payment {" in shop
    assert "  // Who pays.\n  string customer = 2;" in shop
    assert "// How it is paid.\nenum Kind {" in shop
    assert '// Takes money.\n//\n// Gives "receipts"; // and */ do no harm.\nservice Till {\n  // ' in shop
    assert "rpc Stream(stream Payment) returns (stream Receipt);" in shop


def test_buf_lints_and_builds_the_files_as_they_are(exported: Path) -> None:
    as_compiler([BUF, "lint"], exported)
    as_compiler([BUF, "build"], exported)
    as_compiler([BUF, "format", "--diff", "--exit-code"], exported)


def test_protoc_compiles_the_files_as_they_are(exported: Path) -> None:
    if not PROTOC.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("there is no protoc; `make proto` installs it")
        pytest.skip("there is no protoc; `make proto` installs it")
    protos = [name for name in files_in(exported) if name.endswith(".proto")]
    as_compiler([str(PROTOC), "-m", "grpc_tools.protoc", "-I.", "--descriptor_set_out=made.binpb", *protos], exported)
    made = FileDescriptorSet.FromString((exported / "made.binpb").read_bytes())
    written = FileDescriptorSet.FromString((exported / "descriptors.binpb").read_bytes())
    ours = {file.name: comparable(file) for file in written.file if file.package != "google.protobuf"}
    assert {file.name: comparable(file) for file in made.file} == ours


def comparable(file: FileDescriptorProto) -> FileDescriptorProto:
    file.ClearField("source_code_info")
    for message in file.message_type:  # A compiler finds them where they are used, we where they are declared.
        message.nested_type.sort(key=lambda nested: nested.name)
    for service in file.service:
        for method in service.method:  # Whether false is said makes no difference.
            method.client_streaming = method.client_streaming
            method.server_streaming = method.server_streaming
    return file


def test_buf_reads_the_descriptors_as_the_same_types(exported: Path) -> None:
    config = json.dumps({"version": "v2", "breaking": {"use": ["FILE"]}})
    for one, other in ((".", "descriptors.binpb"), ("descriptors.binpb", ".")):
        as_compiler([BUF, "breaking", one, "--against", other, "--config", config], exported)


def test_grpcurl_asks_by_the_descriptors(old: str, exported: Path) -> None:
    command = [tool("grpcurl"), "-plaintext", "-protoset", "descriptors.binpb", "-d", '{"customer": "Ann"}']
    done = subprocess.run([*command, old, "shop.v1.Till/Ask"], cwd=exported, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"text": "Ann"}


def test_go_packages_are_below_the_prefix(exported: Path) -> None:
    tensor = (exported / "pydotcompute/v1/tensor.proto").read_text()
    assert 'option go_package = "example.com/shop/pydotcompute/v1;pydotcomputev1";' in tensor
    assert 'option go_package = "example.com/shop/shop/v1;shopv1";' in (exported / "shop/v1/shop.proto").read_text()


@pytest.mark.parametrize("prefix", ['x"; option', "/x", "x/", "x y", "x//y"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str, tmp_path: Path) -> None:
    assert run("127.0.0.1:1", "export", "--out", tmp_path / "out", "--go-package", prefix).exit_code == 2


def test_an_export_can_be_repeated(old: str, exported: Path) -> None:
    before = files_in(exported)
    (exported / "buf.yaml").write_text("version: v2\n")
    printed = ok(old, "export", "--out", exported, "--go-package", "example.com/shop")
    assert files_in(exported) == {**before, "buf.yaml": b"version: v2\n"}
    assert printed == [str(exported / name) for name in sorted(before) if name.endswith(".proto")]
    ok(old, "export", "--out", exported)
    assert "go_package" not in (exported / "shop/v1/shop.proto").read_text()


def test_json_says_the_same(old: str, new: str, locked: str, exported: Path, tmp_path: Path) -> None:
    (line,) = ok(old, "export", "till", "--out", tmp_path / "out", "--json")
    assert json.loads(line)["files"][0] == "pydotcompute/v1/tensor.proto"
    (line,) = ok(locked, "check", "--against", exported, "--json")
    document = json.loads(line)
    assert document == {
        "breaking": [],
        "new": [],
        "changed": ["shop/v1/shop.proto"],
        "gone": [],
        "up_to_date": False,
    }
    printed, _ = fail(1, new, "check", "--against", exported, "--json")
    assert {
        "name": "shop.v1.Payment",
        "problem": "field 2 was customer, is discount",
        "advice": "start the daemon with --proto-lock, or pin the number with FieldNumber",
        "rule": "FIELD_SAME_NAME",
    } in json.loads(printed)["breaking"]


@pytest.mark.parametrize("prefix", ["com.example.", "com example", "1com", 'x"; option'])
def test_a_java_prefix_that_is_no_package_is_refused(prefix: str, tmp_path: Path) -> None:
    assert run("127.0.0.1:1", "export", "--out", tmp_path / "out", "--java-package", prefix).exit_code == 2


def test_each_message_is_a_class_of_its_own_in_java(old: str, exported: Path) -> None:
    source = exported / "shop/v1/shop.proto"
    assert "option java_multiple_files = true;\n" in source.read_text()
    assert "java_package" not in source.read_text()
    ok(old, "export", "--out", exported, "--java-package", "com.example")
    assert 'option java_package = "com.example.shop.v1";\n' in source.read_text()
    # The daemon's own package is the same for everybody.
    assert 'option java_package = "pydotcompute.v1";\n' in (exported / "pydotcompute/v1/tensor.proto").read_text()
    as_compiler([BUF, "lint"], exported)
    assert ok(old, "check", "--against", exported) == [f"{exported} is up to date"]


# The daemon's own services.

OWN = {
    *(f"google/rpc/{name}.proto" for name in ("code", "error_details", "status")),
    *(path.relative_to(ROOT / "proto").as_posix() for path in (ROOT / "proto").rglob("*.proto")),
}


@pytest.fixture(scope="module")
def with_daemon_once(old: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "protos"
    ok(old, "export", "--out", out, "--daemon")
    return out


@pytest.fixture
def with_daemon(with_daemon_once: Path, tmp_path: Path) -> Path:
    """What all types of the old daemon were exported to, its own included."""
    return shutil.copytree(with_daemon_once, tmp_path / "protos")


def test_the_services_of_the_daemon_are_exported_on_request(with_daemon: Path) -> None:
    assert {name for name in files_in(with_daemon) if name.endswith(".proto")} == {"shop/v1/shop.proto", *OWN}
    as_compiler([BUF, "lint"], with_daemon)
    as_compiler([BUF, "build"], with_daemon)
    as_compiler([BUF, "format", "--diff", "--exit-code"], with_daemon)


def test_the_exported_services_are_those_of_the_repository(with_daemon: Path) -> None:
    config = json.dumps({"version": "v2", "breaking": {"use": ["FILE"]}})
    source = shutil.copytree(with_daemon, with_daemon.parent / "source")
    shutil.copytree(ROOT / "proto", source, dirs_exist_ok=True)
    for one, other in ((source, with_daemon), (with_daemon, source)):
        as_compiler([BUF, "breaking", ".", "--against", str(other), "--config", config], one)
    for name in OWN:
        written, ours = ((folder / name).read_text() for folder in (with_daemon, source))
        comments = {line.strip() for line in ours.splitlines() if line.strip().startswith("//")}
        assert comments <= {line.strip() for line in written.splitlines()}


def test_they_stay_with_each_further_export_and_are_checked(old: str, new: str, with_daemon: Path) -> None:
    assert ok(old, "check", "--against", with_daemon) == [f"{with_daemon} is up to date"]
    before = files_in(with_daemon)
    ok(old, "export", "--out", with_daemon)
    ok(old, "export", "till", "--out", with_daemon)
    assert files_in(with_daemon) == before
    service = with_daemon / "pydotcompute/v1/kernel_service.proto"
    service.write_text(service.read_text().replace("rpc Launch", "rpc Start"))
    assert str(service) in fail(1, old, "check", "--against", with_daemon)[1]


def test_a_daemon_whose_services_lack_something_is_found(old: str, with_daemon: Path) -> None:
    descriptors = with_daemon / "descriptors.binpb"
    files = FileDescriptorSet.FromString(descriptors.read_bytes())
    (file,) = (file for file in files.file if file.name == "pydotcompute/v1/kernel_service.proto")
    method = file.service[0].method.add()
    method.CopyFrom(file.service[0].method[0])
    method.name = "Resurrect"
    descriptors.write_bytes(files.SerializeToString())
    printed, _ = fail(1, old, "check", "--against", with_daemon)
    assert printed.startswith("breaking  pydotcompute.v1.KernelService.Resurrect: was a method, is gone")


# Some kernels alone.


def test_one_kernel_is_exported_beside_those_that_are_there(old: str, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ok(old, "export", "post", "--out", out)
    assert [name for name in files_in(out) if name.endswith(".proto")] == ["shop/v1/shop.proto"]
    assert "message Payment" not in (out / "shop/v1/shop.proto").read_text()
    ok(old, "export", "till", "--out", out, "--go-package", "example.com/shop")
    assert files_in(out) == files_in(exported)
    as_compiler([BUF, "lint"], out)
    assert ok(old, "check", "--against", out) == [f"{out} is up to date"]


def test_one_kernel_is_checked_without_the_others(new: str, exported: Path) -> None:
    assert ok(new, "check", "post", "--against", exported) == [f"{exported} is up to date"]
    fail(1, new, "check", "post", "till", "--against", exported)


def test_a_kernel_without_types_and_one_that_is_not_there_are_errors(old: str, tmp_path: Path) -> None:
    assert "private" in fail(1, old, "export", "private", "--out", tmp_path / "out")[1]
    assert "nobody" in fail(1, old, "export", "nobody", "--out", tmp_path / "out")[1]
    assert not (tmp_path / "out").exists()


# What has changed.


def test_nothing_has_changed(old: str, exported: Path) -> None:
    assert ok(old, "check", "--against", exported) == [f"{exported} is up to date"]


def test_files_that_are_not_what_was_exported_are_refused(old: str, exported: Path) -> None:
    for path in (min(exported.rglob("*.proto")), exported / "pydotcompute.lock"):
        text = path.read_text()
        for damage in (path.unlink, lambda path=path: path.write_text("garbage" if path.suffix == ".proto" else "{}")):
            damage()
            _, error = fail(2 if path.exists() and path.suffix == ".lock" else 1, old, "check", "--against", exported)
            assert str(path) in error
        path.write_text(text)
    assert ok(old, "check", "--against", exported) == [f"{exported} is up to date"]


def test_a_lock_with_conflicts_is_refused(old: str, exported: Path) -> None:
    lock = exported / "pydotcompute.lock"
    lock.write_text(lock.read_text().replace('{\n  "enums"', '{\n<<<<<<< HEAD\n  "enums"'))
    assert "it has merge conflicts" in fail(2, old, "check", "--against", exported)[1]


APART = """
from dataclasses import dataclass

from pydotcompute import message, ring_kernel

@dataclass
class Near:
    x: int = 0

@dataclass
class Far:
    near: Near | None = None

@message
class Ask:
    far: Far | None = None

@ring_kernel(input_type=Ask)
async def whole(ctx):
    async for _ in ctx:
        pass
"""
TOGETHER = APART.replace("x: int = 0", "x: int = 0\n    far: 'Far | None' = None")


def test_types_that_contain_each_other_are_in_the_file_of_their_package(
    start: Callable[..., str], tmp_path: Path
) -> None:
    apart, together, out = start(APART), start(TOGETHER), tmp_path / "protos"
    ok(apart, "export", "--out", out)
    as_compiler([BUF, "build"], out)
    ok(together, "export", "whole", "--out", out)
    assert (out / "shop/v1/shop.proto").read_text().count("message Near") == 1
    as_compiler([BUF, "build"], out)


def test_a_documentation_that_has_changed_breaks_nothing_and_is_to_be_exported(
    start: Callable[..., str], exported: Path
) -> None:
    target = start(OLD.replace("Who pays.", "Who gives money."))
    assert ok(target, "check", "--against", exported) == [
        "changed   shop/v1/shop.proto",
        f"nothing breaks; to have what is new, export again: pydotcompute proto export --out {exported}",
    ]


def test_without_the_lock_a_move_and_a_removal_are_refused(new: str, exported: Path) -> None:
    printed, error = fail(1, new, "check", "--against", exported)
    lines = printed.splitlines()
    for change in (
        "shop.v1.Payment: field 1 was money, is customer; ",
        "shop.v1.Payment: field 2 was customer, is discount; ",
        "shop.v1.Payment: field 3 was tip, is money; ",
        "shop.v1.Kind: value 1 was KIND_CASH, is KIND_TRANSFER; ",
        "shop.v1.Kind: value 2 was KIND_CHEQUE, is KIND_CARD; ",
    ):
        (line,) = (line for line in lines if line.startswith(f"breaking  {change}"))
        assert "--proto-lock" in line
    assert str(exported / "pydotcompute.lock") in error
    before = files_in(exported)
    assert fail(1, new, "export", "--out", exported)[0] == printed
    assert files_in(exported) == before


def test_with_the_lock_a_moved_field_keeps_its_number_and_a_removed_one_is_reserved(
    locked: str, exported: Path, tmp_path: Path
) -> None:
    before = shutil.copytree(exported, tmp_path / "before")
    *changes, last = ok(locked, "check", "--against", exported)
    assert changes == ["changed   shop/v1/shop.proto"]
    assert last.startswith("nothing breaks")
    ok(locked, "export", "--out", exported)
    payment = (exported / "shop/v1/shop.proto").read_text()
    assert '  reserved 3;\n  reserved "tip";\n' in payment
    assert "  string customer = 2;\n  double discount = 9;\n  repeated Payment.MoneyValue money = 1;\n" in payment
    lock = parse((exported / "pydotcompute.lock").read_text())
    assert (lock.messages["shop.v1.Payment"]["tip"], lock.messages["shop.v1.Payment"]["discount"]) == (3, 9)
    assert lock.enums["shop.v1.Kind"] == {"KIND_CASH": 1, "KIND_CHEQUE": 2, "KIND_CARD": 3, "KIND_TRANSFER": 4}
    as_compiler([BUF, "lint"], exported)
    as_compiler([BUF, "breaking", ".", "--against", str(before)], exported)
    assert ok(locked, "check", "--against", exported) == [f"{exported} is up to date"]


def test_the_environment_names_the_lock_as_well(start: Callable[..., str], exported: Path) -> None:
    target = start(NEW, env={"PYDOTCOMPUTE_PROTO_LOCK": str(exported / "pydotcompute.lock")})
    assert ok(target, "check", "--against", exported)[-1].startswith("nothing breaks")


def test_a_message_of_before_the_lock_is_understood_after_it(locked: str, exported_once: Path) -> None:
    protoset = str(exported_once / "descriptors.binpb")
    command = [tool("grpcurl"), "-plaintext", "-protoset", protoset, "-d", '{"tip": 3, "customer": "Ann"}', locked]
    done = subprocess.run([*command, "shop.v1.Till/Ask"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"text": "Ann"}


def test_force_exports_what_breaks_and_the_lock_follows(new: str, exported: Path) -> None:
    ok(new, "export", "--out", exported, "--force")
    assert ok(new, "check", "--against", exported) == [f"{exported} is up to date"]
    lock = parse((exported / "pydotcompute.lock").read_text())
    assert list(lock.messages["shop.v1.Payment"].items())[:3] == [("customer", 1), ("discount", 2), ("money", 3)]


def test_a_service_and_a_message_that_are_gone_are_refused_and_with_force_removed(
    start: Callable[..., str], exported: Path
) -> None:
    source = re.sub(r"@ring_kernel\(input_type=Send\).*?pass\n", "", OLD, flags=re.DOTALL)
    target = start(source)
    printed, _ = fail(1, target, "check", "--against", exported)
    assert [line.split(";")[0] for line in printed.splitlines()] == [
        "breaking  shop.v1.Post: was a service, is gone",
        "breaking  shop.v1.Send: was a message, is gone",
    ]
    assert ok(target, "check", "till", "--against", exported) == [f"{exported} is up to date"]
    ok(target, "export", "--out", exported, "--force")
    assert not re.search("(message|service) (Send|Post) ", (exported / "shop/v1/shop.proto").read_text())
    as_compiler([BUF, "lint"], exported)
    assert parse((exported / "pydotcompute.lock").read_text()).messages["shop.v1.Send"] == {"what": 1}


def test_without_buf_a_change_is_not_judged_and_the_error_says_how_to_install_it(
    old: str, new: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    before = files_in(exported)
    for command in (["check", "--against"], ["export", "--out"]):
        printed, error = fail(2, new, *command, exported)
        assert printed == ""
        assert error.endswith("pip install 'pydotcompute-grpc[proto]'\n")
    assert files_in(exported) == before
    assert ok(old, "check", "--against", exported) == [f"{exported} is up to date"]
    ok(old, "export", "--out", tmp_path / "first")
    ok(new, "export", "--out", exported, "--force")


# What is in the way.


def test_a_file_that_no_export_has_written_is_overwritten_by_force_alone(old: str, tmp_path: Path) -> None:
    mine = tmp_path / "shop/v1/shop.proto"
    mine.parent.mkdir(parents=True)
    mine.write_text("// Mine.\n")
    assert str(mine) in fail(1, old, "export", "--out", tmp_path)[1]
    assert files_in(tmp_path) == {"shop/v1/shop.proto": b"// Mine.\n"}
    ok(old, "export", "--out", tmp_path, "--force")
    assert "message Coin" in mine.read_text()


def test_what_is_compared_with_must_be_there_and_be_descriptors(old: str, exported: Path, tmp_path: Path) -> None:
    assert "proto export --out" in fail(2, old, "check", "--against", tmp_path)[1]
    (exported / "descriptors.binpb").write_bytes(b"\xff")
    fail(2, old, "check", "--against", exported)
    fail(2, old, "export", "--out", exported)
    (exported / "descriptors.binpb").unlink()
    (exported / "descriptors.binpb").mkdir()
    fail(2, old, "check", "--against", exported)


def test_an_export_does_not_replace_a_lock_that_cannot_be_read(old: str, exported: Path) -> None:
    (exported / "pydotcompute.lock").write_text("<<<<<<< HEAD\n")
    before = files_in(exported)
    assert "is no lock" in fail(2, old, "export", "--out", exported)[1]
    assert files_in(exported) == before


def test_a_folder_that_cannot_be_written_is_an_error(old: str, tmp_path: Path) -> None:
    (tmp_path / "shop").write_text("a file")
    assert "cannot write" in fail(1, old, "export", "--out", tmp_path)[1]


@pytest.mark.parametrize("name", ["../outside.proto", "/tmp/outside.proto", "a/../../outside.proto", "a/b.py", ""])
def test_a_file_of_the_daemon_is_never_written_elsewhere(
    old: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileDescriptorSet(file=[FileDescriptorProto(name=name, package="a.v1", syntax="proto3")])
    monkeypatch.setattr(proto, "_declared", lambda *_: files)
    for force in ((), ("--force",)):
        assert "not written" in fail(1, old, "export", "--out", tmp_path / "out", *force)[1]
    assert files_in(tmp_path) == {}


# The lock, to the daemon.


def ended(source: str, lock: Path, tmp_path: Path) -> tuple[int, str]:
    """How a daemon ends that cannot start, and what it says."""
    (tmp_path / "shop.py").write_text(source)
    command = [os.path.join(sysconfig.get_path("scripts"), "pydotcompute-server"), str(tmp_path / "shop.py")]
    done = subprocess.run(
        [*command, "--listen", "127.0.0.1:0", "--proto-lock", str(lock)], capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"pydotcompute-server: .*\n", done.stderr)
    return done.returncode, done.stderr


def test_a_lock_that_cannot_be_read_ends_the_daemon_with_one_line(exported: Path, tmp_path: Path) -> None:
    lock = exported / "pydotcompute.lock"
    lock.write_text(lock.read_text().replace('"customer": 2', '"customer": 1'))
    code, line = ended(NEW, lock, tmp_path)
    assert code == 1
    assert f"{lock}: shop.v1.Payment.customer has the number 1, as money" in line
    assert ended(NEW, exported / "none.lock", tmp_path)[0] == 2


def test_a_pinned_number_that_contradicts_the_lock_ends_the_daemon(exported: Path, tmp_path: Path) -> None:
    pinned = NEW.replace("customer: str", "customer: Annotated[str, FieldNumber(7)]")
    code, line = ended(pinned, exported / "pydotcompute.lock", tmp_path)
    assert code == 1
    assert "$.customer: expected field number 2, as in the lock, got 7" in line
