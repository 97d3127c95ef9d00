"""The daemon's files of roles and tokens: at start they must be valid, and afterwards they are read again."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydotcompute.access.roles import Role
from pydotcompute.access.tokens import line_of, new_token
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server import Settings
from pydotcompute_server.access.access import Access
from pydotcompute_server.access.rules import read_rules
from pydotcompute_server.transport.exposure import require_protection
from tests.server.process.processes import COMMAND, Process, environment, run

CALCULATOR = str(Path(__file__).resolve().parents[3] / "examples" / "calculator.py")

BROKEN = {
    "no TOML": ("[[grants]", "TOML"),
    "unknown table": ("[roles]", "the file has only grants, jwt, limits"),
    "unknown key": ('[[grants]]\nprincipal = ["a"]\nrole = "viewer"', "a grant has only"),
    "without a role": ('[[grants]]\nprincipals = ["a"]', "role=None: it is missing"),
    "without principals": ('[[grants]]\nrole = "viewer"', "principals=None: it is missing"),
    "unknown role": ('[[grants]]\nprincipals = ["a"]\nrole = "root"', "the roles are viewer, caller, operator, admin"),
    "a text for a list": ('[[grants]]\nprincipals = "a"\nrole = "viewer"', "list of patterns"),
    "no list of tables": ("grants = 1", r"\[\[grants\]\]"),
    "a text of grants": ('grants = ["a"]', r"\[\[grants\]\]"),
    "limits of nobody": ("[[limits]]\nmessages_per_second = 1", "principals=None: either this or a role"),
    "limits without a limit": ('[[limits]]\nrole = "caller"', "one of bytes_per_second, bytes_under_way"),
    "an unknown limit": (
        '[[limits]]\nrole = "caller"\nmax_message_bytes = 1',
        "a table of limits has only bytes_",
    ),
    "a limit that is no number": ('[[limits]]\nrole = "caller"\nmessages_per_second = "1"', "a whole number"),
    "a limit that is true": ('[[limits]]\nrole = "caller"\nmessages_per_second = true', "a whole number"),
    "a negative limit": ('[[limits]]\nrole = "caller"\nbytes_under_way = -1', "a whole number"),
    "a count of nothing": ('[[limits]]\nrole = "caller"\nmax_sessions = 0', "at least 1"),
    "limits of a role that is none": ('[[limits]]\nrole = "root"\nbytes_under_way = 1', "the roles are viewer"),
    "no list of limits": ("limits = 1", r"\[\[limits\]\]"),
    "jwt without keys": ('[jwt]\nissuer = "a"\naudience = "b"', "jwt.keys=None: it is missing"),
    "an audience that is none": ('[jwt]\nissuer = "a"\naudience = ""\nkeys = "k"', "a text that is not empty"),
    "keys that are not there": ('[jwt]\nissuer = "a"\naudience = "b"\nkeys = "k.json"', "No such file"),
    "keys in plain text": ('[jwt]\nissuer = "a"\naudience = "b"\nkeys = "http://a.example.org"', "https"),
    "keys of a file by URL": ('[jwt]\nissuer = "a"\naudience = "b"\nkeys = "file:///etc/passwd"', "https"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_daemon_with_a_broken_file_of_roles_does_not_start(tmp_path: Path, name: str) -> None:
    text, why = BROKEN[name]
    path = tmp_path / "access.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfigurationError, match=why) as broken:
        Access(Settings(access=path))
    assert (broken.value.parameter, broken.value.value) == ("access", str(path))


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        ("--access", "[roles]", "roles=…: the file has only grants, jwt, limits"),
        ("--tokens", "hello", "line=1: token=…: it is no JSON object"),
        ("--audit-log", None, "No such file or directory"),
    ],
)
def test_a_daemon_with_another_broken_file_does_not_start(
    tmp_path: Path, option: str, text: str | None, why: str
) -> None:
    path = tmp_path / "file" if text is not None else tmp_path / "no" / "folder"
    if text is not None:
        path.write_text(text)
    ended = run(CALCULATOR, option, str(path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"pydotcompute-server: {option} {path}: {why}\n"


@pytest.mark.parametrize("option", ["access", "tokens", "audit_log"])
def test_an_empty_variable_does_not_turn_the_question_off(option: str) -> None:
    variable = f"PYDOTCOMPUTE_{option.upper()}"
    ended = run(CALCULATOR, **{variable: ""})
    assert ended.returncode == 2
    assert f"the variable {variable} is empty" in ended.stderr


def test_sighup_reads_the_files_again(tmp_path: Path) -> None:
    roles, tokens, audit = tmp_path / "access.toml", tmp_path / "tokens", tmp_path / "audit"
    secret, token = new_token("alice", None, None)
    tokens.write_text(line_of(token))
    roles.write_text("")
    daemon = Process(
        (CALCULATOR, "--launch", "calculator", "--listen", "127.0.0.1:0", "--access", str(roles)),
        {"PYDOTCOMPUTE_TOKENS": str(tokens), "PYDOTCOMPUTE_AUDIT_LOG": str(audit)},
    )
    try:
        target = daemon.address()

        def ps() -> subprocess.CompletedProcess[str]:
            command = (COMMAND.removesuffix("-server"), "--target", target, "--token", secret, "ps", "--json")
            return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=30)

        refused = ps()
        assert (refused.returncode, "needs the role viewer" in refused.stderr) == (1, True)
        roles.write_text('[[grants]]\nprincipals = ["alice"]\nrole = "viewer"\n')
        audit.rename(tmp_path / "audit.1")
        daemon.process.send_signal(signal.SIGHUP)
        while not audit.exists():
            pass
        while (answer := ps()).returncode:
            pass
        assert [each["kernelId"] for each in json.loads(answer.stdout)["kernels"]] == ["calculator"]
    finally:
        daemon.ask_to_end()
        assert daemon.ended() == 0


@pytest.mark.parametrize("who", [{"tokens": Path("tokens")}, {"access": Path("access.toml")}])
def test_tokens_and_roles_let_a_daemon_with_tls_listen_to_other_machines(who: dict[str, Any]) -> None:
    tls: dict[str, Any] = {"tls_certificate": Path("it.pem"), "tls_key": Path("it.key")}
    require_protection(Settings(listen="0.0.0.0:0", **tls, **who))
    with pytest.raises(InvalidConfigurationError, match="nobody has to prove who they are"):
        require_protection(Settings(listen="0.0.0.0:0", **tls))
    with pytest.raises(InvalidConfigurationError, match="there is no TLS"):
        require_protection(Settings(listen="0.0.0.0:0", **who))


def test_roles_are_looked_up_once_for_a_name() -> None:
    grants = [
        f'[[grants]]\nprincipals = ["{name}"]\nrole = "{role}"' for name, role in (("a*", "viewer"), ("ab", "admin"))
    ]
    rules = read_rules("\n".join(grants))
    assert rules.rights_of("ab").highest is Role.ADMIN
    assert rules.rights_of("ac").highest is Role.VIEWER
    assert rules.rights_of("b").highest is None
    assert rules.rights_of("ab") is rules.rights_of("ab")
