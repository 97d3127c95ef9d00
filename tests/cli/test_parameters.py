"""What the shell is offered for commands, options, kernels and types."""

from collections.abc import Callable

import pytest
from click.testing import Result


def complete(run: Callable[..., Result], line: str, **env: str) -> list[str]:
    """What bash offers at the end of a line."""
    result = run(env={"_PYDOTCOMPUTE_COMPLETE": "bash_complete", "COMP_WORDS": line, **env})
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in result.stdout.split()]


def test_commands_options_kernels_and_types_are_completed(
    run: Callable[..., Result], nowhere: str, target: str
) -> None:
    assert complete(run, "pydotcompute de") == ["deactivate", "dead-letters", "describe", "devices"]
    assert "calculator" in complete(run, "pydotcompute ask ")
    assert "silent" not in complete(run, "pydotcompute ask ")
    assert complete(run, "pydotcompute describe sil") == ["silent"]
    assert complete(run, "pydotcompute launch mine --type c") == ["calculator", "crasher"]
    assert complete(run, "pydotcompute telemetry calculator --w") == ["--watch"]
    assert complete(run, f"pydotcompute --target {nowhere} ask ") == []
    assert "calculator" in complete(run, f"pydotcompute ask --target {target} ", PYDOTCOMPUTE_TARGET=nowhere)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(ok: Callable[..., str], shell: str) -> None:
    script = ok("completion", shell)
    assert script.strip() == ok(env={"_PYDOTCOMPUTE_COMPLETE": f"{shell}_source"}).strip()
    assert f"_PYDOTCOMPUTE_COMPLETE={shell}_complete" in script
