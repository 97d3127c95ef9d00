"""A program connects by the name of a context, as the command does."""

from pathlib import Path
from typing import Any

import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client import TLS, connect
from pydotcompute_client.contexts import CONTEXTS_VARIABLE, Contexts, write_contexts
from tests.embedded import Order
from tests.server.access.guarded import guarded

CALLERS = '[[grants]]\nprincipals = ["*"]\nrole = "caller"\n'


@pytest.fixture
def keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Keeps the settings of the context `lab`."""
    path = tmp_path / "contexts.toml"
    monkeypatch.setenv(CONTEXTS_VARIABLE, str(path))
    return lambda **settings: write_contexts(path, Contexts("", {"lab": settings}))


async def test_a_context_has_the_address_and_the_token(keep: Any, tmp_path: Path) -> None:
    async with guarded(tmp_path, dict.fromkeys(("ann", "bob")), CALLERS) as daemon:
        token = tmp_path / "token"
        token.write_text(f"{daemon.secrets['ann']}\n")
        keep(target=daemon.daemon.address, token_file=str(token))
        async with connect(context="lab") as runtime:
            assert (await runtime.send_and_receive("echo", Order(3))).amount == 3
            token.write_text(daemon.secrets["bob"])  # It is read again.
            assert await runtime.fetch_kernel_ids() == ["echo"]
        async with connect(context="lab", token=daemon.secrets["bob"]) as runtime:
            assert await runtime.fetch_kernel_ids() == ["echo"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"context": "other"}, "there is no such context in .*contexts.toml; there are lab"),
        ({"context": "lab", "target": "127.0.0.1:1"}, "give either the context or these"),
        ({"context": "lab", "tls": TLS()}, "give either the context or these"),
        ({"context": "lab"}, "token_file=.*No such file"),
        ({}, "give the address of a daemon, or a context"),
    ],
)
def test_what_a_context_cannot_mean_is_refused(keep: Any, tmp_path: Path, given: Any, why: str) -> None:
    keep(target="127.0.0.1:1", token_file=str(tmp_path / "gone"))
    with pytest.raises(InvalidConfigurationError, match=why):
        connect(**given)
