"""A daemon that describes types which no class can have: the client says so, with an error of ours."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.exceptions import MessageTypeError
from pydotcompute_client import connect
from pydotcompute_client.cli.main import main
from tests.hostile import CHAINS, NAMES, a_chain, an_enum, hostile_daemon, with_field

TYPES = {
    **{f"a field {name}": with_field(name) for name in NAMES},
    **{f"a value {name}": an_enum(name) for name in ("mro", "_missing_", "_ignore_", "__init__", "")},
    **{f"{length} messages inside each other": a_chain(length) for length in CHAINS},
}


@pytest.mark.parametrize("file", TYPES.values(), ids=TYPES)
async def test_the_error_is_ours(file: FileDescriptorProto) -> None:
    with hostile_daemon(file) as target:
        async with connect(target) as runtime:
            with pytest.raises(MessageTypeError, match=r"hostile\.v1\.") as refused:
                await runtime.describe("kernel")
            assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("file", TYPES.values(), ids=TYPES)
def test_the_command_does_not_break_either(file: FileDescriptorProto) -> None:
    with hostile_daemon(file) as target:
        for command in (["describe", "kernel"], ["ask", "kernel"], ["ask", "kernel", "{}", "--timeout", "0"]):
            ended = CliRunner().invoke(main, [*command, "--target", target])
            assert isinstance(ended.exception, SystemExit | None), command


@pytest.mark.parametrize("name", ["a\0b.proto", "a\nb.proto", "\u202eb.proto", "../b.proto", "/b.proto", "b.py"])
def test_a_file_whose_name_leads_elsewhere_is_not_written(name: str, tmp_path: Path) -> None:
    file = with_field("number")
    file.name, file.package = name, "google.hostile"  # Files of Google's packages have the daemon's own names.
    with hostile_daemon(file) as target:
        ended = CliRunner().invoke(main, ["proto", "export", "kernel", "--out", str(tmp_path), "--target", target])
    assert ended.exit_code == 1
    assert f"the daemon has a file of the name {name!r}, which is not written" in ended.stderr
    assert not list(tmp_path.iterdir())


async def test_a_type_that_was_refused_stands_in_nobodys_way() -> None:
    with hostile_daemon(a_chain(CHAINS[-1])) as target:
        async with connect(target) as runtime:
            with pytest.raises(MessageTypeError):
                await runtime.describe("kernel")
    with hostile_daemon(with_field("harmless")) as target:
        async with connect(target) as runtime:
            input_type = (await runtime.describe("kernel")).input_type
            assert input_type is not None
            assert input_type(harmless=7).harmless == 7
