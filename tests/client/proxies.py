"""nginx and HAProxy, with the configurations that docs/proxies.md shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.contract.world import PATIENCE
from tests.docs.pages import ROOT, blocks
from tests.tools import tool

__all__ = ["KINDS", "Kind", "ProcessProxy"]

Kind = Literal["nginx", "haproxy"]
KINDS: tuple[Kind, ...] = ("nginx", "haproxy")

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {block}
}}
"""
HAPROXY = """
global
    log {folder}/log len 4096 local0

{block}
"""


def shown(kind: Kind, tls: bool) -> str:
    """The configuration on the page: of each proxy the first is without TLS, and the second with it."""
    return [block.text for block in blocks(ROOT / "docs" / "proxies.md") if block.language == kind][tls]


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ProcessProxy:
    """A proxy in a process of its own, between a client and the daemon at `target`.

    Args:
        edits: regular expressions, and what stands in the page's configuration in the place of what they find. Each
            must find something.
    """

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        target: str,
        *,
        tls: bool = False,
        edits: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.folder = folder
        self._program = tool(kind)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        text = shown(kind, tls)
        for found, replacement in {
            r"0\.0\.0\.0:50(052|443)": self.address,
            r"127\.0\.0\.1:50051": target,
            **(edits or {}),
        }.items():
            text, count = re.subn(found, replacement, text)
            assert count, f"{found} is not in the {kind} block of docs/proxies.md"
        frame = NGINX if kind == "nginx" else HAPROXY
        self._file = folder / f"{kind}.conf"
        self._file.write_text(frame.format(folder=folder, block=text))
        self._log = folder / "output.log"

    def _command(self) -> list[str]:
        if self.kind == "nginx":
            return [self._program, "-e", str(self.folder / "error.log"), "-p", str(self.folder), "-c", str(self._file)]
        return [self._program, "-W", "-f", str(self._file), "-p", str(self.folder / "haproxy.pid")]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        host, _, port = self.address.rpartition(":")
        while True:
            assert self.process.poll() is None, self.log()
            try:
                socket.create_connection((host, int(port)), PATIENCE).close()
                return self
            except ConnectionRefusedError:
                continue

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)

    async def reload(self) -> None:
        """Have it read its configuration again: a new worker takes over, and the old one ends, with all streams."""
        before = self._workers()
        async with asyncio.timeout(PATIENCE):
            while not self._workers() - before:
                self.process.send_signal(signal.SIGHUP if self.kind == "nginx" else signal.SIGUSR2)
                await asyncio.sleep(0.2)  # HAProxy ignores the signal while it is still starting.
        for worker in before:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)

    def _workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    def log(self) -> str:
        """All that it has written."""
        return "".join(file.read_text(errors="replace") for file in sorted(self.folder.glob("*.log")))

    def streams_ended(self) -> int:
        """How many Exchange streams have ended on their way through nginx."""
        return (self.folder / "access.log").read_text().count("/Exchange ")
