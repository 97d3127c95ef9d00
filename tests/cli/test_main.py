"""The options that every command has, before it and after it."""

import json
from collections.abc import Callable

from click.testing import Result


def test_the_target_is_taken_before_and_after_the_command_and_from_the_environment(
    run: Callable[..., Result], target: str, nowhere: str
) -> None:
    lost, found = {"PYDOTCOMPUTE_TARGET": nowhere}, {"PYDOTCOMPUTE_TARGET": target}
    assert run("ps", env=lost).exit_code == 3
    assert run("--target", target, "ps", env=lost).exit_code == 0
    assert run("ps", "--target", target, env=lost).exit_code == 0
    assert run("--target", nowhere, "ps", "--target", target, env=lost).exit_code == 0
    assert run("--target", nowhere, "ps", env=found).exit_code == 3
    assert run("--target", "", "ps", env=found).exit_code == 2


def test_json_can_be_asked_for_before_and_after_the_command(ok: Callable[..., str]) -> None:
    assert json.loads(ok("--json", "health")) == json.loads(ok("health", "--json"))


def test_an_empty_variable_does_not_turn_tls_off(run: Callable[..., Result]) -> None:
    for name in ("CA", "NAME", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        variable = f"PYDOTCOMPUTE_TLS_{name}"
        ended = run("ps", env={variable: ""})
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert f"the variable {variable} is empty" in ended.stderr
