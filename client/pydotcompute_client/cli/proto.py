"""The commands that write a daemon's types as `.proto` files, and compare them with files written before."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path, PurePosixPath

import click
import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.protobuf.breaking import Breaking, CannotCompareError, NoBufError, breaking_changes
from pydotcompute.protobuf.export.files import BUF_YAML, Prefixes, compiled, lock_of, sources
from pydotcompute.protobuf.packages import by_package, laid_over
from pydotcompute.schema import lock
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_client.cli.connection import CALL_SECONDS, PROGRAM, Connection
from pydotcompute_client.cli.failures import BadInput, Failure
from pydotcompute_client.cli.output import echo_json, echo_text
from pydotcompute_client.cli.parameters import complete_kernels, pass_daemon
from pydotcompute_client.cli.reflection import OWN_PACKAGE, own_files

__all__ = ["COMMANDS"]

DESCRIPTORS = "descriptors.binpb"
LOCK = "pydotcompute.lock"
BUF = "buf.yaml"


@click.group()
def proto() -> None:
    """Write the message types as .proto files, and compare them with files written before."""


_kernels = click.argument("kernels", nargs=-1, metavar="[KERNEL]...", shell_complete=complete_kernels)


def _go_package(ctx: click.Context, param: click.Parameter, prefix: str) -> str:
    if not re.fullmatch(r"([\w.~-]+(/[\w.~-]+)*)?", prefix, re.ASCII):
        raise click.BadParameter(f"{prefix!r} is no path of a Go package, such as example.com/shop.", ctx, param)
    return prefix


def _java_package(ctx: click.Context, param: click.Parameter, prefix: str) -> str:
    if not re.fullmatch(r"([A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?", prefix, re.ASCII):
        raise click.BadParameter(f"{prefix!r} is no name of a Java package, such as com.example.", ctx, param)
    return prefix


@proto.command()
@_kernels
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Where to write."
)
@click.option(
    "--go-package", default="", metavar="PREFIX", callback=_go_package, help="The Go packages are below this."
)
@click.option(
    "--java-package", default="", metavar="PREFIX", callback=_java_package, help="The Java packages are below this."
)
@click.option(
    "--daemon", "with_daemon", is_flag=True, help="Write the daemon's own services and the details of errors too."
)
@click.option("--force", is_flag=True, help="Write changes too that break programs made from the earlier files.")
@pass_daemon
def export(
    daemon: Connection,
    kernels: tuple[str, ...],
    out: Path,
    go_package: str,
    java_package: str,
    with_daemon: bool,
    force: bool,
) -> None:
    """Write the types of the named kernels, or of all, as .proto files: one file for each package.

    With --daemon, and in a folder that was once written with it, these files are complete: they define all that a
    program calls, and need nothing but protobuf's own files.

    Three more files are written beside them: descriptors.binpb has all of the types compiled, pydotcompute.lock keeps
    the numbers of fields, and buf.yaml configures buf, unless it exists already. Files of other kernels stay.
    """
    try:
        before = _exported(out)
    except FileNotFoundError:
        before = FileDescriptorSet()
    now = _declared(daemon, kernels, with_daemon or _has_services(before))
    now = compiled(_laid_over(before, now) if kernels else now, Prefixes(go_package, java_package))
    written = sources(now)
    if not force:
        _refuse_breaking(daemon, _breaking(before, now), out, "nothing is written without --force")
        _refuse_foreign(out, written.keys() - sources(before).keys())
    lock_file = lock_of(now, _lock(out)).text()
    try:
        for name, text in written.items():
            path = _path(out, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in sources(before).keys() - written.keys():
            _path(out, name).unlink(missing_ok=True)
        (out / LOCK).write_text(lock_file)
        if not (out / BUF).exists():
            (out / BUF).write_text(BUF_YAML)
        # The descriptors come last: until they are written, the next export compares with those from before.
        (out / DESCRIPTORS).write_bytes(now.SerializeToString(deterministic=True))
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from None
    if daemon.as_json:
        echo_json({"files": sorted(written), **_changed(before, now)})
        return
    for name in sorted(written):
        echo_text(str(out / name))


@proto.command()
@_kernels
@click.option(
    "--against",
    required=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where `export` has written.",
)
@pass_daemon
def check(daemon: Connection, kernels: tuple[str, ...], against: Path) -> None:
    """Compare the types of the named kernels, or of all, with those exported before.

    The exit code is 1 if the daemon and programs made from the exported files would no longer understand each other.
    It is also 1 if the files are no longer as they were exported.
    """
    try:
        before = _exported(against)
    except FileNotFoundError:
        before = None
    now = _declared(daemon, kernels, before is not None and _has_services(before))
    if before is None:
        hint = f"`{PROGRAM} proto export --out {shlex.quote(str(against))}` makes it"
        raise BadInput(f"there is no {against / DESCRIPTORS}; {hint}")
    now = compiled(_laid_over(before, now) if kernels else now)
    damaged = _damaged(against, before)
    changed, breaking = _changed(before, now), _breaking(before, now)
    is_current = not damaged and not any(changed.values())
    if daemon.as_json:
        document = {"breaking": [dataclasses.asdict(change) for change in breaking], **changed}
        echo_json({**document, "up_to_date": is_current})
    _refuse_breaking(daemon, breaking, against, f"the lock to start the daemon with is {against / LOCK}")
    if damaged:
        raise Failure(f"not what was exported, or not there any more: {', '.join(damaged)}; export again")
    if daemon.as_json:
        return
    for kind, names in changed.items():
        for name in names:
            echo_text(f"{kind:8}  {name}")
    again = f"{PROGRAM} proto export --out {shlex.quote(str(against))}"
    nothing_breaks = f"nothing breaks; to have what is new, export again: {again}"
    click.echo(f"{against} is up to date" if is_current else nothing_breaks)


def _has_services(files: FileDescriptorSet) -> bool:
    """Return True if the files have services of the daemon itself."""
    return any(file.service and file.package.startswith(OWN_PACKAGE) for file in files.file)


def _declared(daemon: Connection, kernels: tuple[str, ...], with_daemon: bool) -> FileDescriptorSet:
    """Return the files of the types that the daemon declares now, each after its imports.

    Args:
        daemon: the daemon.
        kernels: the kernels whose types are wanted. If there are none, those of all kernels.
        with_daemon: whether the types and services of the daemon itself are wanted too.
    """
    listed = daemon.call_all(daemon.kernels.ListKernelTypes, kernel_pb.ListKernelTypesRequest()).kernel_types
    names = kernels or [kernel_type.name for kernel_type in listed if kernel_type.input_type or kernel_type.output_type]
    found: dict[str, FileDescriptorProto] = {}
    for name in names:
        described = daemon.describe(name)
        parts = (described.input_type.files, described.output_type.files, described.service_files)
        files = FileDescriptorSet(file=[file for part in parts for file in part.file])
        if not files.file:
            raise Failure(f"kernel {name!r} is declared without message types: it can only be used in-process")
        found.update((file.name, file) for file in files.file)
    if with_daemon:
        try:
            found.update((file.name, file) for file in own_files(daemon))
        except grpc.RpcError as error:
            daemon.fail(error, CALL_SECONDS)
    if not found:
        raise Failure(f"no kernel type at {daemon.target} is declared with message types")
    return FileDescriptorSet(file=by_package(found.values()))


def _laid_over(before: FileDescriptorSet, now: FileDescriptorSet) -> FileDescriptorSet:
    try:
        return FileDescriptorSet(file=laid_over(before.file, now.file))
    except ValueError as error:
        raise Failure(f"{error}: name no kernels, so that all are exported together") from None


def _damaged(directory: Path, exported: FileDescriptorSet) -> list[str]:
    """Return the paths of the files that differ from what was exported together with the descriptors."""
    lock_before = _lock(directory)
    expected = {**sources(exported), LOCK: lock_of(exported, lock_before).text()}
    return [str(directory / name) for name, text in sorted(expected.items()) if _text(directory / name) != text]


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None


def _exported(directory: Path) -> FileDescriptorSet:
    """Return the files that were exported. FileNotFoundError if there are none; BadInput if they cannot be read."""
    path = directory / DESCRIPTORS
    try:
        return FileDescriptorSet.FromString(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except DecodeError as error:
        raise BadInput(f"{path} is no set of descriptors: {error}") from None


def _lock(directory: Path) -> lock.Lock:
    path = directory / LOCK
    try:
        return lock.read(path) if path.exists() else lock.Lock()
    except InvalidConfigurationError as error:
        raise BadInput(f"{path} is no lock: {error.problem}") from None


def _breaking(before: FileDescriptorSet, now: FileDescriptorSet) -> list[Breaking]:
    """Return the changes that break programs. If nothing has changed, buf is not asked."""
    if not before.file or not any(_changed(before, now).values()):
        return []
    try:
        return breaking_changes(before, now)
    except NoBufError as error:
        raise BadInput(str(error)) from None
    except CannotCompareError as error:
        raise Failure(str(error)) from None


def _changed(before: FileDescriptorSet, now: FileDescriptorSet) -> dict[str, list[str]]:
    """Return the names of the files that are new, changed and gone, under these three words."""
    was, written = sources(compiled(before)), sources(compiled(now))
    return {
        "new": sorted(written.keys() - was.keys()),
        "changed": sorted(name for name in written.keys() & was.keys() if written[name] != was[name]),
        "gone": sorted(was.keys() - written.keys()),
    }


def _refuse_breaking(daemon: Connection, breaking: list[Breaking], directory: Path, consequence: str) -> None:
    if not breaking:
        return
    if not daemon.as_json:
        for change in breaking:
            echo_text(f"breaking  {change}")
    raise Failure(f"{len(breaking)} of the changes break programs made from {directory}; {consequence}")


def _refuse_foreign(directory: Path, names: set[str]) -> None:
    for name in sorted(names):
        if _path(directory, name).exists():
            raise Failure(f"{directory / name} is there, and not by an export; --force overwrites it")


def _path(directory: Path, name: str) -> Path:
    """Return the path of a file in the directory. Failure if its name, which the daemon chose, leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".proto" or not name.isprintable():
        raise Failure(f"the daemon has a file of the name {name!r}, which is not written")
    return directory / path


COMMANDS = (proto,)
