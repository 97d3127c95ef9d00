"""Tokens, and the file in which their hashes are kept.

The file has a JSON object on each line, and lines that are empty or begin with `#`. A token looks like
`pdc_3f9a1c20_…`: its id, by which the file's lines are told apart, and 256 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from pydotcompute.access.roles import Grant, Role, checked_patterns
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.printable import escaped

__all__ = ["ANONYMOUS_NAME", "Token", "check_name", "fields_of", "line_of", "new_token", "read_tokens", "token_id"]

ANONYMOUS_NAME = "anonymous"
"""The name of everybody who does not say who they are."""
LOCAL_NAME = "local"
"""The name of everybody in the daemon's own process."""
LONGEST_NAME = 200
"""The most characters of a principal's name."""

_TOKEN = re.compile(r"pdc_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_FIELDS = {"id", "name", "role", "kernels", "types", "created", "expires", "sha256"}


@dataclass(frozen=True)
class Token:
    """What is kept of a token. The token itself is not kept anywhere."""

    id: str
    """Names the token in lists and in the log; not secret."""
    name: str
    """The principal from whom a call with the token is."""
    sha256: str
    """The hash of the whole token, in hexadecimal digits."""
    grant: Grant | None
    """What the token is good for. None: what the file of roles says of the name."""
    created: datetime
    """When it was made."""
    expires: datetime | None
    """From when on it is not valid any more. None for never."""

    def is_hash_of(self, secret: str) -> bool:
        """Return True if the text is this token. The time that it takes does not tell how much of it is right."""
        return hmac.compare_digest(_hash(secret), self.sha256)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def check_name(name: str) -> str:
    """Return the name of a principal. InvalidConfigurationError if nobody can have this name."""
    if not 0 < len(name) <= LONGEST_NAME or escaped(name) != name or name != name.strip():
        problem = f"a name has 1 to {LONGEST_NAME} characters, none of them a control character"
        raise InvalidConfigurationError("name", escaped(name[: LONGEST_NAME + 1]), problem)
    if name == LOCAL_NAME:
        raise InvalidConfigurationError("name", name, "it stands for those in the daemon's own process")
    if name == ANONYMOUS_NAME:
        raise InvalidConfigurationError("name", name, "it stands for those who do not say who they are")
    return name


def token_id(secret: str) -> str | None:
    """Return the id in a token. None if the text has not the form of a token."""
    found = _TOKEN.fullmatch(secret)
    return None if found is None else found[1]


def new_token(name: str, grant: Grant | None, expires: datetime | None, taken: Iterable[str] = ()) -> tuple[str, Token]:
    """Return a new token, and what is kept of it.

    Args:
        taken: the ids of the tokens that there are.

    Raises:
        InvalidConfigurationError: nobody can have this name.
    """
    used = set(taken)
    while (fresh := secrets.token_hex(4)) in used:
        pass
    secret = f"pdc_{fresh}_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    return secret, Token(fresh, check_name(name), _hash(secret), grant, now, expires)


def fields_of(token: Token) -> dict[str, object]:
    """Return what is told of a token, as its line in the file has it, without the hash."""
    fields: dict[str, object] = {"id": token.id, "name": token.name}
    if token.grant is not None:
        fields |= {"role": token.grant.role.word, "kernels": token.grant.kernels}
        if token.grant.types:
            fields["types"] = token.grant.types
    fields["created"] = _text(token.created)
    if token.expires is not None:
        fields["expires"] = _text(token.expires)
    return fields


def line_of(token: Token) -> str:
    """Return a token's line in the file, without the line's end."""
    return json.dumps({**fields_of(token), "sha256": token.sha256}, ensure_ascii=False)


def read_tokens(text: str) -> dict[str, Token]:
    """Return the tokens of a file, by their ids.

    Raises:
        InvalidConfigurationError: a line is not valid. The error has the line's number, and not the line.
    """
    tokens: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            token = _read(line)
            if token.id in tokens:
                raise InvalidConfigurationError("id", token.id, "another line has this id")
        except InvalidConfigurationError as error:
            raise InvalidConfigurationError("line", number, str(error)) from None
        tokens[token.id] = token
    return tokens


def _read(line: str) -> Token:
    try:
        fields = json.loads(line)
    except ValueError:
        raise InvalidConfigurationError("token", "…", "it is no JSON object") from None
    if not isinstance(fields, dict):
        raise InvalidConfigurationError("token", "…", "it is no JSON object")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise InvalidConfigurationError(unknown[0], "…", f"a token has only {', '.join(sorted(_FIELDS))}")
    for name in ("id", "name", "sha256", "created"):
        if not isinstance(fields.get(name), str):
            raise InvalidConfigurationError(name, fields.get(name), "it is missing, or no text")
    if not re.fullmatch("[0-9a-f]{8}", fields["id"]):
        raise InvalidConfigurationError("id", fields["id"], "it has 8 hexadecimal digits")
    if not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise InvalidConfigurationError("sha256", "…", "it has 64 hexadecimal digits")
    grant = None
    if "role" in fields:
        kernels = checked_patterns("kernels", fields.get("kernels", ["*"]))
        grant = Grant(Role.of(fields["role"]), kernels, checked_patterns("types", fields.get("types", [])))
    elif "kernels" in fields or "types" in fields:
        raise InvalidConfigurationError("role", None, "it is missing, and kernels has no effect without it")
    expires = None if "expires" not in fields else _time("expires", fields["expires"])
    created = _time("created", fields["created"])
    return Token(fields["id"], check_name(fields["name"]), fields["sha256"], grant, created, expires)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(field: str, value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidConfigurationError(field, value, "a time is written as 2027-01-31T12:00:00Z")
    return time
