"""JSON web tokens, which another service has signed, and the keys of that service."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import urllib.request
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydotcompute.access.tokens import check_name
from pydotcompute.exceptions import InvalidConfigurationError, NotAuthenticatedError
from pydotcompute.wire.addresses import is_loopback
from pydotcompute_server.access.rules import JwtRules

if TYPE_CHECKING:
    import jwt

__all__ = ["Jwts"]

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The algorithms that are believed: those with which nobody can sign who can only check."""
LEEWAY = 10.0
"""Seconds by which the clocks of the two machines may differ."""
KEPT = 300.0
"""Seconds for which a token that was checked is not checked again. After that, the keys may be others."""
MOST_KEPT = 1_024
"""How many tokens that were checked are remembered."""
FRESH = 600.0
"""Seconds after which the keys are asked for again."""
AGAIN = 10.0
"""Seconds after which they may be asked for again, because they lack the key of a token or did not come."""
FETCH_SECONDS = 5.0
"""Seconds that the keys may take to come."""
LONGEST_KEYS = 1 << 20
"""The most bytes of the keys."""


class Jwts:
    """Checks JSON web tokens.

    Raises:
        InvalidConfigurationError: PyJWT is missing, the file of keys is not valid, or they would come unencrypted.
    """

    def __init__(self, rules: JwtRules) -> None:
        if find_spec("jwt") is None or find_spec("cryptography") is None:
            problem = "it needs PyJWT: python -m pip install 'pydotcompute-grpc[jwt]'"
            raise InvalidConfigurationError("[jwt]", rules.issuer, problem)
        self._rules = rules
        self._keys = _KeysOfUrl(rules.keys) if "://" in rules.keys else _KeysOfFile(Path(rules.keys))
        self._checked: OrderedDict[bytes, tuple[str, float, float]] = OrderedDict()

    async def check(self, token: str) -> tuple[str, float]:
        """Return the name in a token, and when the token expires, as `time.time()` counts.

        Raises:
            NotAuthenticatedError: the token is not valid.
        """
        hashed = hashlib.sha256(token.encode()).digest()
        known = self._checked.get(hashed)
        if known is not None and monotonic() < known[2] and time() < known[1] + LEEWAY:
            return known[0], known[1] + LEEWAY
        name, expires = await self._read(token)
        self._checked[hashed] = name, expires, monotonic() + KEPT
        self._checked.move_to_end(hashed)
        if len(self._checked) > MOST_KEPT:
            self._checked.popitem(last=False)
        return name, expires + LEEWAY

    async def _read(self, token: str) -> tuple[str, float]:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.find(header.get("kid"))
            if key.algorithm_name not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError(f"the key is for {key.algorithm_name}")
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", self._rules.name]},
            )
            name = claims[self._rules.name]
            if not isinstance(name, str):
                raise jwt.InvalidTokenError(f"the claim {self._rules.name} is no text")
            return check_name(name), float(claims["exp"])
        except (jwt.PyJWTError, InvalidConfigurationError) as error:
            raise NotAuthenticatedError(f"the JSON web token is not valid here: {error}") from None


class _Keys:
    """The keys of a JWKS, by their ids."""

    def __init__(self) -> None:
        self._found: dict[str | None, jwt.PyJWK] = {}

    def _take(self, text: bytes) -> None:
        """Read the keys. ValueError if they are not valid, or if there are none of use."""
        import jwt

        try:
            keys = jwt.PyJWKSet.from_dict(json.loads(text)).keys
        except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"these are no keys, as a JWKS has them: {error}") from None
        self._found = {key.key_id: key for key in keys if key.public_key_use in (None, "sig")}
        if len(self._found) == 1:
            self._found[None] = next(iter(self._found.values()))  # A token need not name the only key.

    async def find(self, key_id: str | None) -> jwt.PyJWK:
        """Return the key of this id. NotAuthenticatedError if there is none."""
        if (key := self._found.get(key_id)) is None:
            raise NotAuthenticatedError("the JSON web token is not valid here: its key is not known")
        return key


class _KeysOfFile(_Keys):
    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._take(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InvalidConfigurationError("jwt.keys", path, getattr(error, "strerror", None) or str(error)) from None


class _KeysOfUrl(_Keys):
    """Asks for the keys when they are first needed, and from time to time again. Meanwhile the old ones count."""

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            problem = "keys come from an https address: who could change them on the way could sign tokens"
            raise InvalidConfigurationError("jwt.keys", url, problem)
        self._url = url
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")

    async def find(self, key_id: str | None) -> jwt.PyJWK:
        """Return the key of this id, and ask for the keys if they are old or lack it."""
        if not self._is_fresh(key_id):
            async with self._lock:
                if not self._is_fresh(key_id):  # Otherwise another call has asked meanwhile.
                    await self._ask()
        return await super().find(key_id)

    async def _ask(self) -> None:
        try:
            self._take(await asyncio.to_thread(self._fetch))
        except (OSError, ValueError) as error:
            logger.error("the keys for JSON web tokens do not come: %s", error, extra={"url": self._url})
        self._asked_at = monotonic()

    def _is_fresh(self, key_id: str | None) -> bool:
        age = monotonic() - self._asked_at
        return age <= (FRESH if key_id in self._found else AGAIN)

    def _fetch(self) -> bytes:
        opener = urllib.request.build_opener(_NoRedirect())
        with opener.open(self._url, timeout=FETCH_SECONDS) as answer:
            text: bytes = answer.read(LONGEST_KEYS + 1)
        if len(text) > LONGEST_KEYS:
            raise ValueError(f"they have more than {LONGEST_KEYS} bytes")
        return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it could lead to an address without encryption."""

    def redirect_request(self, *_: Any) -> None:
        """Return None, so that the redirection is an error."""
