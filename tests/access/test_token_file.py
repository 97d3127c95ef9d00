"""The file of tokens: what is written is read, it is always whole, and the tokens themselves are not in it."""

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pydotcompute.access.roles import Grant, Role
from pydotcompute.access.token_file import add_token, load_tokens, revoke_tokens
from pydotcompute.access.tokens import Token, line_of, new_token, read_tokens, token_id
from pydotcompute.exceptions import InvalidConfigurationError

GRANT = Grant(Role.OPERATOR, ("sensors/*", "ü\n"), ("square",))


def add(path: Path, name: str, grant: Grant | None = None) -> str:
    """Add a token; returns the token."""
    made = []

    def make(tokens: dict[str, Token]) -> Token:
        secret, token = new_token(name, grant, datetime(2100, 1, 1, tzinfo=UTC), tokens)
        made.append(secret)
        return token

    add_token(path, make)
    return made[0]


def test_a_line_is_read_as_it_was_written() -> None:
    for grant in (None, GRANT, Grant(Role.VIEWER)):
        for expires in (None, datetime(2100, 1, 1, tzinfo=UTC)):
            secret, token = new_token("Zoë \u2028".strip(), grant, expires)
            assert read_tokens(line_of(token)) == {token.id: token}
            assert token.is_hash_of(secret)
            assert token_id(secret) == token.id
            assert secret.removeprefix(f"pdc_{token.id}_") not in line_of(token)


def test_a_new_file_is_for_its_owner_alone_and_keeps_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    add(path, "alice")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    path.write_text(f"# a comment\n\n{path.read_text()}")
    bob = add(path, "bob", GRANT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    revoke_tokens(path, {token_id(bob) or ""})
    assert path.read_text().startswith("# a comment\n\n")
    assert [token.name for token in load_tokens(path).values()] == ["alice"]
    assert [each.name for each in tmp_path.iterdir()] == ["tokens"]


def test_two_programs_that_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    threads = [threading.Thread(target=lambda: [add(path, "a") for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_tokens(path)) == 40


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("created", "creates"), "a token has only"),
        (('"role": "viewer"', '"role": "root"'), "the roles are"),
        (('"role": "viewer", ', ""), "kernels has no effect"),
        (('"kernels": ["*"]', '"kernels": "*"'), "list of patterns"),
        (("Z", ""), "a time is written"),
        (("2100", "soon"), "a time is written"),
        (('"name": "alice"', '"name": "anonymous"'), "do not say who they are"),
        (('"name": "alice"', '"name": "a\\u0000"'), "a name has"),
        (('"name": "alice", ', ""), "missing"),
        (("{", "["), "no JSON object"),
        (('"sha256": "', '"sha256": "x'), "64 hexadecimal"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_not_repeated(change: tuple[str, str], why: str) -> None:
    _, token = new_token("alice", Grant(Role.VIEWER), datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidConfigurationError, match=why) as wrong:
        read_tokens("# first\n" + line_of(token).replace(*change))
    assert "line=2" in str(wrong.value)
    assert token.sha256 not in str(wrong.value)


def test_an_id_is_there_once() -> None:
    _, token = new_token("alice", None, None)
    with pytest.raises(InvalidConfigurationError, match="another line has this id"):
        read_tokens(f"{line_of(token)}\n{line_of(token)}")


def test_tokens_differ() -> None:
    secrets = {new_token("alice", None, datetime.now(UTC) + timedelta(1))[0] for _ in range(1_000)}
    assert len(secrets) == 1_000
    assert {len(secret) for secret in secrets} == {56}
