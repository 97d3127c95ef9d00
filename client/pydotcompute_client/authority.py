"""An authority of one's own, for development and small groups: it signs certificates of a daemon and its clients."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pydotcompute.wire.certificates import AUTHORITY, CERTIFICATE, KEY

__all__ = ["Authority"]

Uses = Sequence[x509.ObjectIdentifier]

_CLIENT: Uses = (ExtendedKeyUsageOID.CLIENT_AUTH,)
"""What the certificate of a client is for."""
_SERVER: Uses = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""What the certificate of a daemon is for. It is a client's too: of the health check that runs beside the daemon."""

AUTHORITY_KEY = "ca.key"
AUTHORITY_DAYS = 3_650
CLOCKS = timedelta(hours=1)
"""How far the clock of another machine may be behind."""


class Authority:
    """An authority, whose certificate and key are in a directory. All files are for their owner alone.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is not valid.
    """

    def __init__(self, directory: Path) -> None:
        self._certificate = x509.load_pem_x509_certificate((directory / AUTHORITY).read_bytes())
        self._key = _key((directory / AUTHORITY_KEY).read_bytes())

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """Make a directory with a new authority. FileExistsError if there is one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"pydotcompute {x509.random_serial_number():x}"[:32])
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        certificate = builder.sign(key, hashes.SHA256())
        directory.mkdir(mode=0o700, parents=True)
        _write(directory / AUTHORITY_KEY, _pem_of_key(key))
        _write(directory / AUTHORITY, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory)

    def issue_server(self, directory: Path, names: Sequence[str], days: int) -> None:
        """Make a directory with a daemon's certificate, its key, and the authority's certificate.

        Args:
            names: the host names and addresses that the certificate is for.
            days: how long it is valid.

        Raises:
            FileExistsError: the directory exists.
        """
        self._issue(directory, names[0], names, _SERVER, days)

    def issue_client(self, directory: Path, name: str, days: int) -> None:
        """Make such a directory for a client of this name. FileExistsError if the directory exists."""
        self._issue(directory, name, (), _CLIENT, days)

    def _issue(self, directory: Path, subject: str, names: Sequence[str], uses: Uses, days: int) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_name(subject), key.public_key(), _alternatives(names), uses, days)
        directory.mkdir(mode=0o700, parents=True)
        _write(directory / KEY, _pem_of_key(key))
        _write(directory / CERTIFICATE, certificate)
        _write(directory / AUTHORITY, self._certificate.public_bytes(serialization.Encoding.PEM))

    def renew(self, directory: Path, days: int) -> None:
        """Put a certificate that is valid from now on in the place of that in a directory. All else stays, the key too.

        So there is one file to replace, and a daemon that reads it never sees half of the change.
        """
        old = x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())
        uses = list(old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        try:
            alternatives = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            alternatives = None
        key = _key((directory / KEY).read_bytes()).public_key()
        fresh = directory / f".{CERTIFICATE}.new"
        fresh.unlink(missing_ok=True)
        _write(fresh, self._sign(old.subject, key, alternatives, uses, days))
        fresh.replace(directory / CERTIFICATE)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        alternatives: x509.SubjectAlternativeName | None,
        uses: Uses,
        days: int,
    ) -> bytes:
        builder = _builder(subject, self._certificate.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(issuer, critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName | None:
    def general(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    return x509.SubjectAlternativeName(map(general, names)) if names else None


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is of another kind than `pydotcompute tls` makes")
    return key


def _pem_of_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read. FileExistsError if there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
