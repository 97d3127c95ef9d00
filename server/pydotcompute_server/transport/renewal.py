"""The daemon's certificates, which are read again when their files change."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.wire.certificates import Pair, Use, read_authorities, read_pair
from pydotcompute_server.settings import TlsFiles

__all__ = ["Certificates", "read_files"]

logger = logging.getLogger(__name__)

TRIES = 3
"""How many times the files are read if they change meanwhile."""
SOON = 7 * 24 * 3600.0
"""A certificate with fewer seconds to live than this is warned of."""

Signature = tuple[tuple[int, int, int] | None, ...]


def read_files(files: TlsFiles) -> tuple[Pair, bytes | None]:
    """Return the daemon's certificate, and the authorities of its clients.

    Raises:
        InvalidConfigurationError: a file cannot be read or is not valid.
    """
    pair = read_pair(files.certificate, files.key, Use.SERVER_AUTH)
    return pair, None if files.client_ca is None else read_authorities("tls_client_ca", files.client_ca)


class Certificates:
    """Shows clients what the files hold now. Connections that exist keep what they began with.

    What is not valid is not taken: the daemon goes on with what it has, and the log says why.

    Args:
        files: the files. Which there are does not change, only what is in them.

    Raises:
        InvalidConfigurationError: a file cannot be read or is not valid.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._paths = [path for path in (files.certificate, files.key, files.client_ca) if path is not None]
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._pair, self._client_ca = self._read()
        self._fresh: grpc.ServerCertificateConfiguration | None = None
        self._tell("certificates are read")

    def credentials(self) -> grpc.ServerCredentials:
        """Return gRPC's credentials, for one port: gRPC asks for certificates at every handshake."""
        fetch: Any = self._fetch  # That it may return None is in gRPC's documentation, and not in its types.
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), fetch, require_client_authentication=self._client_ca is not None
        )

    def look(self, *, asked: bool = False) -> None:
        """Read the files again if they have changed. Any thread may call this.

        Args:
            asked: True if somebody has asked for it: then the log also says that nothing has changed.
        """
        with self._lock:
            now = self._signature()
            if now == self._seen and not asked:
                return
            self._seen = now
            try:
                pair, client_ca = self._read()
            except InvalidConfigurationError as error:
                logger.error(
                    "certificates are not replaced: %s %s: %s",
                    *(f"--{error.parameter.replace('_', '-')}", error.value, error.problem),
                )
                return
            except Exception:  # gRPC would refuse the client that asks, and the daemon would end.
                logger.exception("certificates are not replaced")
                return
            if (pair, client_ca) == (self._pair, self._client_ca):
                if asked:
                    logger.info("certificates are read again: there is nothing new")
                return
            self._pair, self._client_ca = pair, client_ca
            self._fresh = self._configuration()
            self._tell("certificates are replaced; those who connect from now on see the new ones")

    async def watch(self, interval: float) -> NoReturn:
        """Look at the files at intervals of so many seconds, so that the log says early what is wrong with them."""
        told: float | None = None
        while True:
            await asyncio.to_thread(self.look)  # Files may be slow to read, as those of another machine.
            left = self._pair.expires - time.time()
            if left < SOON and told != self._pair.expires:
                told = self._pair.expires
                logger.warning("the certificate expires soon", extra=self._facts())
            await asyncio.sleep(interval)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what is new since gRPC asked the last time; None if nothing is. gRPC's threads call this."""
        self.look()
        with self._lock:
            fresh, self._fresh = self._fresh, None
            return fresh

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self._pair.key, self._pair.chain)], self._client_ca)

    def _read(self) -> tuple[Pair, bytes | None]:
        """Return what is in the files. Raises InvalidConfigurationError."""
        for _ in range(TRIES):
            found = read_files(self._files)
            before, self._seen = self._seen, self._signature()
            if before == self._seen:
                return found
        raise InvalidConfigurationError("tls_certificate", self._files.certificate, "it changes all the time")

    def _signature(self) -> Signature:
        """Return what tells one state of the files from another, without reading them."""
        return tuple(map(_signature, self._paths))

    def _facts(self) -> dict[str, object]:
        expires = datetime.fromtimestamp(self._pair.expires, UTC)
        return {"names": ", ".join(self._pair.names), "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}

    def _tell(self, text: str) -> None:
        logger.info("%s", text, extra=self._facts())


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
