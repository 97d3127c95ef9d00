"""Certificates for tests of TLS, made by openssl."""

import os
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from pydotcompute_client import TLS

WAIT = 20.0

EXTENSIONS = """
[req]
distinguished_name = name
x509_extensions = authority
[name]
[authority]
basicConstraints = critical, CA:TRUE
[address]
subjectAltName = IP:127.0.0.1
[name_only]
subjectAltName = DNS:localhost
[client]
extendedKeyUsage = clientAuth
"""


class Certificates:
    """Two authorities, and what the first has signed: `NAME.pem` and `NAME.key` in a directory.

    `clients` are the names of further clients.
    """

    def __init__(self, directory: Path, *clients: str) -> None:
        self._directory = directory
        self._settings = directory / "openssl.cnf"
        self._settings.write_text(EXTENSIONS)
        for authority in ("ca", "other-ca"):
            self._openssl("req", "-x509", *self._new(authority), "-out", self.certificate(authority))
        for name in ("address", "name_only", "client"):
            self.sign(name, name)
        for name in clients:
            self.sign(name, "client")

    def sign(self, name: str, kind: str, *, ca: str = "ca", days: int = 1) -> None:
        """Make a key and its certificate, which may have expired before it begins: `days` may be negative.

        The kind is that of a daemon at `address` or `name_only`, or of a `client`.
        """
        request = str(self._directory / f"{name}.csr")
        self._openssl("req", *self._new(name), "-out", request)
        self._openssl(
            *("x509", "-req", "-in", request, "-days", str(days), "-out", self.certificate(name)),
            *("-CA", self.certificate(ca), "-CAkey", self.key(ca), "-CAcreateserial"),
            *("-extfile", str(self._settings), "-extensions", kind),
        )

    def expire(self, authority: str) -> None:
        """Make an authority that has expired."""
        request = str(self._directory / f"{authority}.csr")
        self._openssl("req", *self._new(authority), "-out", request)
        self._openssl(
            *("x509", "-req", "-in", request, "-days", "-1", "-signkey", self.key(authority)),
            *("-out", self.certificate(authority), "-extfile", str(self._settings), "-extensions", "authority"),
        )

    def directory(self, folder: Path, name: str, ca: str | None) -> Path:
        """Make a directory as `pydotcompute tls` does, or put other files into it: the key comes last."""
        folder.mkdir(exist_ok=True)
        for source, place in ((self.certificate(name), "tls.crt"), (self.key(name), "tls.key")):
            shutil.copy(source, folder / place)
        if ca is not None:
            shutil.copy(self.certificate(ca), folder / "ca.crt")
        return folder

    def tls(self, ca: str, client: str | None = None, name: str | None = None) -> TLS:
        """What `connect` takes, to trust this authority and to be this client."""
        certificate, key = (self.certificate(client), self.key(client)) if client else (None, None)
        return TLS(self.certificate(ca), certificate, key, name)

    def certificate(self, name: str) -> str:
        return str(self._directory / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self._directory / f"{name}.key")

    def credentials(self, ca: str, client: str | None = None) -> grpc.ChannelCredentials:
        """What `connect` takes, to trust this authority and to be this client."""
        pair = [Path(self.key(client)), Path(self.certificate(client))] if client else []
        return grpc.ssl_channel_credentials(Path(self.certificate(ca)).read_bytes(), *(f.read_bytes() for f in pair))

    def server_credentials(self, name: str) -> grpc.ServerCredentials:
        """What a server of gRPC's own takes."""
        return grpc.ssl_server_credentials(
            [(Path(self.key(name)).read_bytes(), Path(self.certificate(name)).read_bytes())]
        )

    def encrypt(self, name: str) -> str:
        """The key, with a passphrase."""
        encrypted = str(self._directory / f"{name}.encrypted.key")
        self._openssl("ec", "-in", self.key(name), "-aes128", "-passout", "pass:secret", "-out", encrypted)
        return encrypted

    def subject_hash(self, name: str) -> str:
        """The name of its file in a directory of authorities."""
        return self._openssl("x509", "-noout", "-subject_hash", "-in", self.certificate(name)).strip() + ".0"

    def _new(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        return [*curve, "-keyout", self.key(name), "-subj", f"/CN={name}", "-config", str(self._settings)]

    def _openssl(self, *arguments: str) -> str:
        result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=WAIT)
        assert result.returncode == 0, f"openssl {' '.join(arguments)}\n{result.stderr}"
        return result.stdout


def make_certificates(directory: Path, *clients: str) -> Certificates:
    """New certificates in this directory; skips the test, or fails in CI, without openssl."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the command openssl is missing: TLS would go untested")
        pytest.skip("the command openssl, which makes the certificates, is missing")
    return Certificates(directory, *clients)
