"""`pydotcompute token` and `context`, and both in use: at a daemon that asks, and where others would read a token."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pydotcompute.access.token_file import load_tokens
from pydotcompute_client import connect
from pydotcompute_client.cli.contexts import NOT_KEPT
from pydotcompute_client.cli.main import GLOBAL_OPTIONS, main
from pydotcompute_client.contexts import SETTINGS
from tests.cli.command import EXAMPLES
from tests.server.process.processes import serving

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command in this process, without variables of its own but for these, and with contexts of its own."""

    def run(*arguments: str, **env: str) -> Result:
        cleared = {name: None for name in os.environ if name.startswith("PYDOTCOMPUTE_")}
        own = {"PYDOTCOMPUTE_CONTEXTS": str(tmp_path / "contexts" / "it.toml")}
        return CliRunner().invoke(main, arguments, env={**cleared, **own, **env}, prog_name="pydotcompute")

    return run


@pytest.fixture
def ok(run: Run) -> Callable[..., str]:
    def ok(*arguments: str, **env: str) -> str:
        result = run(*arguments, **env)
        assert (result.exit_code, result.stderr) == (0, ""), (result.output, result.exception)
        return result.stdout

    return ok


@pytest.fixture
def fail(run: Run) -> Callable[..., str]:
    def fail(code: int, *arguments: str, **env: str) -> str:
        result = run(*arguments, **env)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.output
        return result.stderr

    return fail


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the daemon's tokens."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("# those who may\n")
    return path


@pytest.fixture(scope="module")
def target(start_daemon: Callable[..., Any], tokens: Path) -> str:
    """A daemon that asks for tokens."""
    calculator = str(EXAMPLES / "calculator.py")
    address: str = start_daemon(calculator, "--launch", "calculator", "--tokens", str(tokens)).target
    return address


@pytest.fixture
def caller(run: Run, tokens: Path, target: str, tmp_path: Path) -> Path:
    """The file with a caller's token, which the daemon knows."""
    made = run("token", "new", "carl", "--role", "caller", "--kernels", "calc*", "--file", str(tokens))
    file = tmp_path / "carl"
    file.write_text(made.stdout)
    while run("ps", "--target", target, "--token-file", str(file)).exit_code:
        pass  # The daemon looks at the file once a second.
    return file


def test_a_token_is_printed_once_and_lets_somebody_in(
    ok: Callable[..., str], fail: Callable[..., str], target: str, caller: Path
) -> None:
    at = ("--target", target)
    ask = ("ask", "calculator", '{"a": 1, "b": 2}')
    assert re.fullmatch(r"pdc_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\n", caller.read_text())
    for given in (
        ok(*ask, *at, "--token-file", str(caller)),
        ok("--token-file", str(caller), *ask, *at),
        ok(*ask, *at, "--token", caller.read_text().strip()),
        ok(*ask, *at, PYDOTCOMPUTE_TOKEN=caller.read_text().strip()),
        ok(*ask, *at, PYDOTCOMPUTE_TOKEN_FILE=str(caller)),
        ok(*ask, *at, "--token-file", str(caller), PYDOTCOMPUTE_TOKEN="another"),
    ):
        assert json.loads(given)["result"] == 3
    assert ok("telemetry", *at, "--token-file", str(caller)).startswith("KERNEL")
    assert "SERVING" in ok("health", *at, "--token-file", str(caller))
    assert "needs the role operator" in fail(1, "terminate", "calculator", *at, "--token-file", str(caller))
    assert "needs the role viewer" in fail(1, "ps", *at)
    assert "not valid here" in fail(1, "ps", *at, "--token", "wrong")
    assert "kernel 'other' not found; known here: calc*" in fail(
        1, "describe", "other", *at, "--token-file", str(caller)
    )


async def test_the_calls_that_block_have_the_token_too(target: str, caller: Path) -> None:
    token = caller.read_text()  # noqa: ASYNC240  # Nothing else runs in this loop.
    async with connect(target, token=token) as runtime:
        assert runtime.kernel_ids == ["calculator"]


def test_a_token_is_not_sent_where_others_can_read_it(fail: Callable[..., str], caller: Path) -> None:
    refused = fail(2, "ps", "--target", "gpu1.example.org", "--token-file", str(caller))
    assert "as plain text" in refused
    assert caller.read_text().strip() not in refused


def test_two_tokens_are_one_too_many(fail: Callable[..., str], target: str, caller: Path) -> None:
    for arguments, env in [
        (("--token", "a", "--token-file", str(caller)), {}),
        ((), {"PYDOTCOMPUTE_TOKEN": "a", "PYDOTCOMPUTE_TOKEN_FILE": str(caller)}),
    ]:
        assert "give one of them" in fail(2, "ps", "--target", target, *arguments, **env)


def test_an_empty_variable_is_not_taken_for_none(run: Run, target: str) -> None:
    result = run("ps", "--target", target, PYDOTCOMPUTE_TOKEN="")
    assert result.exit_code == 2
    assert "the variable PYDOTCOMPUTE_TOKEN is empty" in result.stderr


def test_tokens_are_listed_and_revoked(ok: Callable[..., str], fail: Callable[..., str], tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "it"))
    made = json.loads(ok("token", "new", "alice", "--role", "operator", "--types", "square", "--json", *file))
    assert (made["name"], made["role"], made["kernels"], made["types"]) == ("alice", "operator", ["*"], ["square"])
    for _ in range(2):
        ok("token", "new", "bob", "--expires", "never", PYDOTCOMPUTE_TOKENS=str(tmp_path / "it"))
    listed = json.loads(ok("token", "ls", "--json", *file))["tokens"]
    assert [(each["name"], each.get("role"), "expires" in each) for each in listed] == [
        ("alice", "operator", True),
        ("bob", None, False),
        ("bob", None, False),
    ]
    assert "sha256" not in str(listed)
    table = ok("token", "ls", *file)
    assert table.splitlines()[0].split() == ["TOKEN", "NAME", "ROLE", "KERNELS", "CREATED", "EXPIRES"]
    assert "by the file of roles" in table
    assert ok("token", "revoke", made["id"], *file) == f"revoked: {made['id']}\n"
    assert len(ok("token", "revoke", "bob", *file).split()) == 3
    assert load_tokens(tmp_path / "it") == {}
    assert "there is no token 'bob'" in fail(1, "token", "revoke", "bob", *file)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("anonymous",), "do not say who they are"),
        (("a\nb",), "a name has"),
        (("alice", "--kernels", "x"), "--role is missing"),
        (("alice", "--role", "viewer", "--kernels", ""), "a pattern has"),
    ],
)
def test_a_token_that_would_not_work_is_not_made(
    fail: Callable[..., str], tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    assert why in fail(2, "token", "new", *arguments, "--file", str(tmp_path / "it"))
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize("expires", ["soon", "0d", "90", "1y", "2001-01-01", "9999999d", "-1d"])
def test_a_time_that_is_none_is_refused(run: Run, tmp_path: Path, expires: str) -> None:
    result = run("token", "new", "alice", "--expires", expires, "--file", str(tmp_path / "it"))
    assert result.exit_code == 2
    assert "--expires" in result.stderr


# -- contexts ----------------------------------------------------------------------------------------------------------


def test_a_context_says_where_the_daemon_is_and_who_one_is(
    ok: Callable[..., str], fail: Callable[..., str], target: str, caller: Path
) -> None:
    ok("context", "add", "lab", "--target", target, "--token-file", str(caller))
    ok("--target", "gpu1.example.org", "--tls", "context", "add", "far")
    assert [line.split() for line in ok("context", "ls").splitlines()] == [
        ["NAME", "TARGET", "TLS", "TOKEN", "FILE"],
        ["far", "gpu1.example.org:50051", "yes"],
        ["*", "lab", target, "no", str(caller)],
    ]
    assert "calculator" in ok("ps")
    ok("context", "use", "far")
    assert json.loads(ok("context", "ls", "--json"))["contexts"][0]["current"] is True
    assert "calculator" in ok("ps", "--context", "lab")
    assert "calculator" in ok("ps", PYDOTCOMPUTE_CONTEXT="lab")
    assert "calculator" in ok("--context", "lab", "ps", PYDOTCOMPUTE_TARGET="elsewhere:1")
    ok("context", "rm", "far")
    assert "there is no context 'far'" in fail(2, "ps", "--context", "far")
    assert "there is no context 'far'" in fail(1, "context", "use", "far")


def test_the_token_of_one_daemon_is_not_shown_to_another(
    ok: Callable[..., str], fail: Callable[..., str], target: str, caller: Path
) -> None:
    ok("context", "add", "lab", "--target", "127.0.0.1:1", "--token-file", str(caller))
    assert "needs the role viewer" in fail(1, "ps", "--target", target)
    assert "needs the role viewer" in fail(1, "ps", PYDOTCOMPUTE_TARGET=target)
    assert "give one of them" in fail(2, "ps", "--target", target, "--context", "lab")


def test_a_context_keeps_the_directory_of_certificates(
    ok: Callable[..., str], fail: Callable[..., str], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    ok("tls", "init", str(made), "--client", "alice")
    alice = os.path.relpath(made / "clients" / "alice")
    calculator = str(EXAMPLES / "calculator.py")
    with serving(calculator, "--launch", "calculator", "--tls-directory", str(made / "server")) as (_, address):
        ok("context", "add", "lab", "--target", address, "--tls-directory", alice)
        assert json.loads(ok("context", "ls", "--json"))["contexts"] == [
            {"name": "lab", "current": True, "target": address, "tls_directory": os.path.abspath(alice)}
        ]
        assert "calculator" in ok("ps")
        assert "calculator" in ok("ps", "--context", "lab", PYDOTCOMPUTE_TARGET="elsewhere:1")
        assert "certificate" in fail(3, "ps", "--target", address, "--tls-ca", str(made / "authority" / "ca.crt"))


def test_each_option_of_the_connection_is_kept_or_refused_in_words(fail: Callable[..., str]) -> None:
    # --json says how an answer is printed, and nothing of the connection.
    options = {name.removeprefix("--").replace("-", "_"): name for name in GLOBAL_OPTIONS if name != "--json"}
    assert sorted(options) == sorted([*SETTINGS, *NOT_KEPT])
    for key, error in NOT_KEPT.items():
        value = () if GLOBAL_OPTIONS[options[key]].get("is_flag") else ("x",)
        assert error.startswith(f"{options[key]}: ")
        assert error in fail(2, "context", "add", "lab", "--target", "h", options[key], *value)


def test_what_a_context_cannot_keep_is_refused(fail: Callable[..., str], run: Run) -> None:
    assert "--target is missing" in fail(2, "context", "add", "lab", PYDOTCOMPUTE_TARGET="127.0.0.1:1")
    assert run("context", "add", "a b", "--target", "h").exit_code != 0


@pytest.mark.parametrize(
    "text",
    [
        "current",
        'current = "a"',
        "[contexts.a]",
        "[contexts.a]\ntarget = 1",
        '[contexts.a]\ntarget = "h"\npassword = "x"',
        "contexts = 1",
        "[contexts]\na = 1",
        "[other]",
    ],
)
def test_a_file_of_contexts_that_is_wrong_is_named(fail: Callable[..., str], tmp_path: Path, text: str) -> None:
    path = tmp_path / "contexts" / "it.toml"
    path.parent.mkdir()
    path.write_text(text)
    assert str(path) in fail(2, "ps")
    assert path.read_text() == text
