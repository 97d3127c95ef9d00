"""Finds out who a call is from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, cast

from pydotcompute.access.roles import EVERYTHING, Rights
from pydotcompute.access.tokens import ANONYMOUS_NAME, Token, check_name, token_id
from pydotcompute.exceptions import InvalidConfigurationError, NotAuthenticatedError
from pydotcompute_server.access.certificates import name_in
from pydotcompute_server.access.rules import Rules
from pydotcompute_server.calls.pipeline import Call, Metadata
from pydotcompute_server.principals import ANONYMOUS, Principal

if TYPE_CHECKING:
    from pydotcompute_server.access.jwts import Jwts

__all__ = ["Identified", "Policy"]

MOST_KEPT = 4_096
"""For how many tokens, and how many certificates' names, it is kept whose they are."""


@dataclass(frozen=True, slots=True)
class Identified:
    """Who a call is from, and how the daemon knows."""

    principal: Principal
    token_id: str = ""
    """The id of the token that the call has. Empty without one."""
    until: float | None = None
    """Until when it is so, as `time.time()` counts. None for ever."""


_EVERYBODY = Identified(ANONYMOUS)


class Policy:
    """What the daemon knows of who may do what, as its files said it at one time.

    Args:
        rules: the file of roles. None without one: then the authority that has signed a certificate is trusted with
            all.
        tokens: the tokens by their ids. None without a file of tokens.
        is_open: True if nobody is asked who they are, and everybody may do everything.

    Raises:
        InvalidConfigurationError: JSON web tokens cannot be checked.
    """

    def __init__(self, rules: Rules | None, tokens: Mapping[str, Token] | None, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._jwts: Jwts | None = None
        if rules is not None and rules.jwt is not None:
            from pydotcompute_server.access.jwts import Jwts  # Few daemons need it, and it brings urllib.request.

            self._jwts = Jwts(rules.jwt)
        self._trusts_certificates = rules is None
        self._rules = rules or Rules()
        self._takes_tokens = tokens is not None
        self._tokens = {each.id: (each, self._identified(each)) for each in (tokens or {}).values()}
        self._anonymous = Identified(self._principal(ANONYMOUS_NAME))
        self._known: dict[str, Identified] = {}  # By the header `authorization` of earlier calls.
        self._certified: dict[str, Identified] = {}  # By the name in the certificate of earlier calls.

    def _identified(self, token: Token) -> Identified:
        until = None if token.expires is None else token.expires.timestamp()
        rights = None if token.grant is None else Rights([token.grant])
        return Identified(self._principal(token.name, rights), token.id, until)

    def _principal(self, name: str, rights: Rights | None = None) -> Principal:
        """Return the principal of this name, with the rights that the file gives it if no others are given."""
        if rights is None:
            rights = self._rules.rights_of(name)
        return Principal(name, rights, self._rules.limits_of(name, rights.highest))

    def recall(self, metadata: Metadata) -> Identified | None:
        """Return who a call with these metadata is from, if an earlier call had the same token; else None.

        What a token means changes only with the files, and then there is another policy.
        """
        if self._is_open:
            return _EVERYBODY
        found: Identified | None = None
        for key, value in metadata:
            if key == "authorization":
                if found is not None:
                    return None
                found = self._known.get(cast(str, value))
                if found is None:
                    return None
        return None if found is None or (found.until is not None and time() >= found.until) else found

    async def identify(self, call: Call) -> Identified:
        """Return who a call is from: its token's name, else the name in its certificate, else `anonymous`.

        Raises:
            NotAuthenticatedError: the token is not valid, or nobody can have the name in the certificate.
        """
        if self._is_open:
            return _EVERYBODY
        given = [value for key, value in call.metadata if key == "authorization"]
        if given:
            if len(given) > 1:
                raise NotAuthenticatedError("the call has several headers `authorization`")
            return await self._by_token(str(given[0]))
        name = name_in(call.context.auth_context())
        if name is None:
            return self._anonymous
        certified = self._certified.get(name)
        if certified is None:
            try:
                check_name(name)
            except InvalidConfigurationError as error:
                raise NotAuthenticatedError(f"the certificate has no name that counts: {error}") from None
            certified = Identified(self._principal(name, EVERYTHING if self._trusts_certificates else None))
            _keep(self._certified, name, certified)
        return certified

    async def _by_token(self, header: str) -> Identified:
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            raise NotAuthenticatedError("the header `authorization` is not of the form `Bearer TOKEN`")
        secret = secret.strip()
        if self._jwts is not None and secret.count(".") == 2:
            name, until = await self._jwts.check(secret)
            return Identified(self._principal(name), until=until)
        if not self._takes_tokens:
            raise NotAuthenticatedError("this daemon takes no tokens")
        known = self._tokens.get(token_id(secret) or "")
        # One text for all that is wrong with a token: a stranger learns nothing of the tokens that there are.
        if known is None or not known[0].is_hash_of(secret):
            raise NotAuthenticatedError("the token is not valid here: it is wrong, or was revoked")
        token, identified = known
        if identified.until is not None and time() >= identified.until:
            raise NotAuthenticatedError(f"the token {token.id} of {token.name!r} has expired")
        _keep(self._known, header, identified)
        return identified


def _keep(table: dict[str, Identified], key: str, identified: Identified) -> None:
    if len(table) >= MOST_KEPT:
        table.clear()
    table[key] = identified
