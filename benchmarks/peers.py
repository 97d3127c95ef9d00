"""The libraries that this project is measured beside, each in an environment of its own."""

import sys
from dataclasses import dataclass
from pathlib import Path

from programs import output_of

ROOT = Path(__file__).resolve().parent.parent
INSTALLING_SECONDS = 900


@dataclass(frozen=True)
class Peer:
    """A library, and where it is installed."""

    folder: str
    requirements: tuple[str, ...]

    @property
    def python(self) -> str:
        """The interpreter that has it."""
        return str(ROOT / self.folder / "bin" / "python")

    def install(self) -> None:
        """Makes the environment, unless it is there and complete; ProgramError if that fails."""
        complete = ROOT / self.folder / "requirements.txt"
        wanted = "".join(f"{requirement}\n" for requirement in self.requirements)
        if complete.exists() and complete.read_text() == wanted:
            return
        print(f"Installing {self.requirements[0]} into {complete.parent} ...", flush=True)
        output_of([sys.executable, "-m", "venv", "--clear", str(complete.parent)], timeout=INSTALLING_SECONDS)
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        output_of([*pip, *self.requirements], timeout=INSTALLING_SECONDS, python_path=False)
        complete.write_text(wanted)


# uvloop is for --uvloop, and for servers that use it where it is installed.
UVLOOP = "uvloop==0.23.0"
PEERS = {
    "peer": Peer(".venv-peer", ("pydotcompute==0.2.0", UVLOOP)),
    "ray": Peer(".venv-ray", ("ray==2.60.0", UVLOOP)),
    "xoscar": Peer(".venv-xoscar", ("xoscar==0.12.2", UVLOOP)),
}
"""By the name of the workload that measures it."""
