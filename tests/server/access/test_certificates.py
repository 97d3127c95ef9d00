"""Certificates say who a client is: by their URI, their DNS name, or their common name."""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import (
    ConnectionLostError,
    KernelNotFoundError,
    NotAuthenticatedError,
    NotPermittedError,
    PyDotComputeError,
)
from pydotcompute.v1 import kernel_service_pb2 as pb
from pydotcompute_client import connect
from tests.certificates import Certificates, make_certificates
from tests.server.access.guarded import Guarded, bearer, guarded, outcome

SPIFFE = "spiffe://example.org/ns/lab/sa/alice"
NAMES = {
    SPIFFE: ("cn", f"URI:{SPIFFE}, DNS:alice.example.org"),
    "https://example.org/alice": ("cn", f"DNS:alice.example.org, URI:https://example.org/alice, URI:{SPIFFE}"),
    "alice.example.org": ("admin", "DNS:alice.example.org, DNS:bob.example.org, IP:127.0.0.1, email:a@example.org"),
    "alice": ("alice", ""),
    "*.example.org": ("cn", "DNS:*.example.org"),
    "Zoë": ("Zoë", "IP:127.0.0.1"),
}
"""The name that counts, and the certificate's common name and alternative names."""


class Authority:
    """Signs certificates of any names."""

    def __init__(self, certificates: Certificates, directory: Path) -> None:
        self._certificates = certificates
        self._directory = directory

    def credentials(self, common_name: str, alternative_names: str) -> grpc.ChannelCredentials:
        """A client with a certificate of these names."""
        folder = self._directory
        key, request, signed, names = (folder / f"it.{end}" for end in ("key", "csr", "pem", "cnf"))
        names.write_text(f"subjectAltName = {alternative_names}\n" if alternative_names else "")
        subject = ("-subj", f"/CN={common_name}", "-utf8")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        ca = ("-CA", self._certificates.certificate("ca"), "-CAkey", self._certificates.key("ca"), "-CAcreateserial")
        for command in (
            ("req", "-new", *curve, "-keyout", str(key), *subject, "-out", str(request)),
            ("x509", "-req", "-in", str(request), "-days", "1", "-out", str(signed), *ca, "-extfile", str(names)),
        ):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        root = Path(self._certificates.certificate("ca")).read_bytes()
        return grpc.ssl_channel_credentials(root, key.read_bytes(), signed.read_bytes())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def authority(certificates: Certificates, tmp_path: Path) -> Authority:
    return Authority(certificates, tmp_path)


@asynccontextmanager
async def over_tls(
    certificates: Certificates, directory: Path, rules: str | None, **more: Any
) -> AsyncIterator[Guarded]:
    """A daemon that asks its clients for certificates."""
    files: Any = {
        "tls_certificate": Path(certificates.certificate("address")),
        "tls_key": Path(certificates.key("address")),
        "tls_client_ca": Path(certificates.certificate("ca")),
    }
    async with guarded(directory, more.pop("grants", {}), rules, **files, **more) as daemon:
        yield daemon


async def error_of(daemon: Guarded, credentials: grpc.ChannelCredentials, *metadata: Any) -> PyDotComputeError | None:
    """The error of a call with this certificate."""
    async with grpc.aio.secure_channel(daemon.daemon.address, credentials) as channel:
        method: Any = channel.unary_unary(
            "/pydotcompute.v1.KernelService/Terminate", pb.TerminateRequest.SerializeToString
        )
        return await outcome(method(pb.TerminateRequest(kernel_id="nobody"), metadata=metadata))


@pytest.mark.parametrize("name", NAMES)
async def test_the_name_in_a_certificate(
    certificates: Certificates, authority: Authority, tmp_path: Path, name: str
) -> None:
    async with over_tls(certificates, tmp_path, "") as daemon:
        error = await error_of(daemon, authority.credentials(*NAMES[name]))
    assert error == NotPermittedError(name, "KernelService/Terminate", "operator")


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [("spiffe://example.org/ns/lab/*", True), ("spiffe://example.org/ns/lab", False), ("*", True), ("*/alice", True)],
)
async def test_roles_are_for_names_and_patterns_of_names(
    certificates: Certificates, authority: Authority, tmp_path: Path, pattern: str, allowed: bool
) -> None:
    rules = f'[[grants]]\nprincipals = ["{pattern}"]\nrole = "operator"\n'
    async with over_tls(certificates, tmp_path, rules) as daemon:
        error = await error_of(daemon, authority.credentials(*NAMES[SPIFFE]))
    assert isinstance(error, KernelNotFoundError if allowed else NotPermittedError)


@pytest.mark.parametrize("common_name", ["anonymous", " alice", "a" * 64])
async def test_a_name_that_nobody_can_have_is_refused(
    certificates: Certificates, authority: Authority, tmp_path: Path, common_name: str
) -> None:
    rules = '[[grants]]\nprincipals = ["*", "anonymous"]\nrole = "admin"\n'
    async with over_tls(certificates, tmp_path, rules) as daemon:
        error = await error_of(daemon, authority.credentials(common_name, ""))
    assert isinstance(error, KernelNotFoundError if common_name == "a" * 64 else NotAuthenticatedError)


async def test_without_a_file_of_roles_the_authority_is_trusted(
    certificates: Certificates, authority: Authority, tmp_path: Path
) -> None:
    async with over_tls(certificates, tmp_path, None, tokens=None) as daemon:
        assert isinstance(await error_of(daemon, authority.credentials("alice", "")), KernelNotFoundError)
        refused = await error_of(daemon, authority.credentials("alice", ""), *bearer("hello"))
        assert refused == NotAuthenticatedError("this daemon takes no tokens")


async def test_a_token_counts_more_than_the_certificate(
    certificates: Certificates, authority: Authority, tmp_path: Path
) -> None:
    rules = '[[grants]]\nprincipals = ["alice"]\nrole = "admin"\n'
    async with over_tls(certificates, tmp_path, rules, grants={"bob": None}) as daemon:
        alice = authority.credentials("alice", "")
        error = await error_of(daemon, alice, *bearer(daemon.secrets["bob"]))
        assert error == NotPermittedError("bob", "KernelService/Terminate", "operator")
        assert isinstance(await error_of(daemon, alice, *bearer("wrong")), NotAuthenticatedError)


async def test_without_a_certificate_there_is_no_connection(certificates: Certificates, tmp_path: Path) -> None:
    async with over_tls(certificates, tmp_path, "") as daemon:
        stranger = connect(daemon.daemon.address, credentials=certificates.credentials("ca"), timeout=3.0)
        with pytest.raises(ConnectionLostError):
            await stranger.start()


async def test_anonymous_cannot_be_meant_by_a_star(tmp_path: Path) -> None:
    async with guarded(tmp_path, {}, '[[grants]]\nprincipals = ["*"]\nrole = "admin"\n') as daemon:
        listed = daemon.by("nobody").kernels.ListKernels(pb.ListKernelsRequest())
        assert isinstance(await outcome(listed), NotAuthenticatedError)
        daemon.rules.write_text('[[grants]]\nprincipals = ["anonymous"]\nrole = "viewer"\nkernels = ["open/*"]\n')
        daemon.daemon.reload()
        assert list((await daemon.by("nobody").kernels.ListKernels(pb.ListKernelsRequest())).kernels) == []
        ended = daemon.by("nobody").kernels.Terminate(pb.TerminateRequest(kernel_id="echo"))
        assert isinstance(await outcome(ended), NotAuthenticatedError)
