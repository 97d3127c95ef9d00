"""Where the programs of one page run: a folder of their own, and the page's daemon."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.docs.pages import ROOT, Block, blocks, commands, matches
from tests.tools import TOOLS, MissingToolError

ADDRESS = "127.0.0.1:50051"
"""What the pages say; the daemon has a port of its own choice."""
START_SECONDS = 30.0
STOP_SECONDS = 30.0
RUN_SECONDS = 100.0

SCRIPTS = Path(sysconfig.get_path("scripts"))


class BlockError(AssertionError):
    """A block does not do what its page says."""


class Sandbox:
    """Runs the blocks of one page in their order, each once."""

    def __init__(self, page: Path, folder: Path) -> None:
        self._blocks = blocks(page)
        self._folder = folder
        self._results: dict[int, BaseException | None] = {}
        self._files: dict[str, str] = {}
        self._missing: MissingToolError | None = None
        self._daemon: subprocess.Popen[str] | None = None
        self._address = ADDRESS
        shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        path = os.pathsep.join([str(SCRIPTS), str(TOOLS), os.environ.get("PATH", os.defpath)])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYDOTCOMPUTE_")}
        # The commands of the pages say nothing of a target: it is the one that they mean by default.
        self._environment = {
            **kept,
            "PATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYDOTCOMPUTE_TARGET": ADDRESS,
            "COLUMNS": "120",
            # What is tested downloads nothing.
            "GOPROXY": "off",
        }

    def run_through(self, block: Block) -> None:
        """Run the block, after those before it that were not run yet; raises what is wrong with this one."""
        for index, each in enumerate(self._blocks):
            if index not in self._results:
                try:
                    self._run(each, self._blocks[index + 1] if index + 1 < len(self._blocks) else None)
                    self._results[index] = None
                except (BlockError, MissingToolError) as error:
                    self._results[index] = error
            if each == block:
                result = self._results[index]
                if result is not None:
                    raise result
                return

    def close(self) -> None:
        """Stop the daemon."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        daemon.send_signal(signal.SIGTERM)
        try:
            code = daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise BlockError("the daemon does not end on SIGTERM") from None
        self._reader.join()
        assert daemon.stdout is not None
        daemon.stdout.close()
        if code != 0:
            raise BlockError(f"the daemon ended with exit code {code}")

    def _run(self, block: Block, after: Block | None) -> None:
        if "brings" in block.directives:
            self._bring(block.directives["brings"].split())
        if not block.is_run:
            return
        if self._missing is not None:
            raise self._missing
        if "file" in block.directives:
            self._files[block.directives["file"]] = block.text
            self._write_files()
        elif block.language == "python":
            self._run_python(block, after)
        elif "daemon" in block.directives:
            self._start_daemon(block)
        else:
            self._run_console(block)

    def _bring(self, paths: list[str]) -> None:
        """Put these into the folder. Without one of them, the rest of the page cannot be run."""
        for path in (ROOT / each for each in paths):
            if not path.exists():
                self._missing = MissingToolError(path.name)
            else:
                (self._folder / path.name).symlink_to(path)

    def _run_python(self, block: Block, after: Block | None) -> None:
        program = self._folder / "block.py"
        program.write_text(self._here(block.text))
        code, printed = self._execute([sys.executable, "-W", "error", program.name])
        if code != 0:
            raise BlockError(f"{block.where}: exit code {code}\n{printed}")
        if after is not None and "output" in after.directives and not matches(after.text.splitlines(), printed):
            raise BlockError(f"{after.where} shows\n{after.text}\nbut it is\n{printed}")

    def _run_console(self, block: Block) -> None:
        found = commands(block)
        for command in found:
            self._require_tools(command.text)
            code, printed = self._execute(["bash", "-e", "-o", "pipefail", "-c", self._here(command.text)])
            wanted = int(block.directives.get("exit", "0")) if command is found[-1] else 0
            if code != wanted:
                raise BlockError(f"{block.where}: $ {command.text}\nexit code {code}, not {wanted}\n{printed}")
            if command.output and not matches(command.output, printed):
                shown = "\n".join(command.output)
                raise BlockError(f"{block.where}: $ {command.text}\nshows\n{shown}\nbut it is\n{printed}")

    def _start_daemon(self, block: Block) -> None:
        self.close()
        (command,) = commands(block)
        free_port = "127.0.0.1:0"
        text = command.text.replace(ADDRESS, free_port)
        environment = {**self._environment, "PYDOTCOMPUTE_LISTEN": free_port}
        log = self._folder / ".daemon.log"
        with log.open("w") as stderr:
            self._daemon = subprocess.Popen(
                # The shell must not stand between the daemon and its signals.
                ["bash", "-e", "-c", f"exec {text}"],
                cwd=self._folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        lines: SimpleQueue[str] = SimpleQueue()
        stdout = self._daemon.stdout
        assert stdout is not None

        def read() -> None:
            for line in stdout:
                lines.put(line)
            lines.put("")  # It has ended.

        self._reader = threading.Thread(target=read, name=f"stdout of {block.where}", daemon=True)
        self._reader.start()
        try:
            first = lines.get(timeout=START_SECONDS)
        except Empty:
            first = ""
        listening = re.fullmatch(r"listening on (\S+)\n", first)
        if listening is None:
            raise BlockError(f"{block.where}: the daemon did not start: {first}{log.read_text()}")
        self._address = listening[1]
        self._environment["PYDOTCOMPUTE_TARGET"] = self._address
        self._write_files()
        if command.output and not matches(command.output, self._as_shown(first)):
            raise BlockError(f"{block.where} shows {command.output}, but it is {first}")

    def _execute(self, command: list[str]) -> tuple[int, str]:
        """Run a command; its exit code, and what it prints to stdout and stderr together."""
        try:
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=RUN_SECONDS,
            )
        except subprocess.TimeoutExpired as late:
            raise BlockError(f"{command}: not done after {RUN_SECONDS:g} s; it printed {late.stdout!r}") from None
        return done.returncode, self._as_shown(done.stdout)

    def _write_files(self) -> None:
        """Also when the daemon's address has changed, for they may name it."""
        for name, text in self._files.items():
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / name).write_text(self._here(text))

    def _here(self, text: str) -> str:
        return text.replace(ADDRESS, self._address)

    def _as_shown(self, text: str) -> str:
        return text.replace(self._address, ADDRESS)

    def _require_tools(self, command: str) -> None:
        for tool in ("grpcurl", "grpc_health_probe", "openssl", "go", "npx", "node"):
            if (
                re.search(rf"(^|[|;&]\s*){tool}\b", command)
                and shutil.which(tool, path=self._environment["PATH"]) is None
            ):
                raise MissingToolError(tool)
