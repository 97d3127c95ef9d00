"""What an installation consists of."""

import configparser
import email.message
import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "pydotcompute": ROOT / "pydotcompute",
    "pydotcompute_server": ROOT / "server" / "pydotcompute_server",
    "pydotcompute_client": ROOT / "client" / "pydotcompute_client",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built as pip builds it."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--isolated", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "--wheel-dir", str(directory)]
    built = subprocess.run([*pip, *options, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    (path,) = directory.iterdir()
    return zipfile.Path(path)


@pytest.fixture(scope="module")
def dist_info(wheel: zipfile.Path) -> zipfile.Path:
    (found,) = [entry for entry in wheel.iterdir() if entry.name.endswith(".dist-info")]
    return found


@pytest.fixture(scope="module")
def metadata(dist_info: zipfile.Path) -> email.message.Message:
    return email.parser.Parser().parsestr((dist_info / "METADATA").read_text(encoding="utf-8"))


def test_three_packages_are_installed_and_nothing_else(wheel: zipfile.Path, dist_info: zipfile.Path) -> None:
    assert {entry.name for entry in wheel.iterdir()} == {*PACKAGES, dist_info.name}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_installed_whole(wheel: zipfile.Path, package: str) -> None:
    source = PACKAGES[package]
    ours = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    ours = {path for path in ours if "__pycache__" not in path}
    files = [name for name in wheel.root.namelist() if not name.endswith("/")]
    installed = {name.removeprefix(f"{package}/") for name in files if name.startswith(f"{package}/")}
    assert installed == ours
    assert "py.typed" in installed
    assert "__init__.py" in installed


def test_the_generated_code_comes_with_its_types(wheel: zipfile.Path) -> None:
    installed = {entry.name for entry in (wheel / "pydotcompute" / "v1").iterdir()}
    generated = {name for name in installed if name.endswith(("_pb2.py", "_pb2_grpc.py"))}
    assert {"kernel_service_pb2.py", "kernel_service_pb2_grpc.py", "tensor_pb2.py"} <= generated
    assert {f"{name}i" for name in generated} <= installed


def test_the_commands_are_those_of_the_two_packages(dist_info: zipfile.Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string((dist_info / "entry_points.txt").read_text(encoding="utf-8"))
    assert dict(scripts["console_scripts"]) == {
        "pydotcompute": "pydotcompute_client.cli.main:main",
        "pydotcompute-server": "pydotcompute_server.cli:main",
    }


def test_the_metadata_say_what_an_index_needs(metadata: email.message.Message, dist_info: zipfile.Path) -> None:
    from pydotcompute import __version__

    assert metadata["Name"] == "pydotcompute-grpc"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"server", "client", "cuda12", "cuda13"} <= set(metadata.get_all("Provides-Extra", []))
    assert str(metadata.get_payload()).startswith("# pydotcompute-grpc")
    assert (dist_info / "licenses" / "LICENSE").exists()


def test_the_runtime_alone_needs_no_grpc(wheel: zipfile.Path, metadata: email.message.Message) -> None:
    unconditional = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert [need.partition(">")[0] for need in unconditional] == ["numpy"]
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pydotcompute;"
        "assert pydotcompute.__file__.startswith(sys.argv[1]), pydotcompute.__file__;"
        "print(*sorted({'grpc', 'google', 'click', 'structlog', 'rich'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program, str(wheel.root.filename)], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\n", "")
