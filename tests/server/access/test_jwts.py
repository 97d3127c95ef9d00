"""JSON web tokens: those of the right service for this daemon are believed, and no others."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pydotcompute.exceptions import NotAuthenticatedError, NotPermittedError
from pydotcompute.v1 import kernel_service_pb2 as pb
from tests.server.access.guarded import Guarded, bearer, guarded, outcome

ISSUER = "https://id.example.org"
AUDIENCE = "pydotcompute"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = {
    "ES256": KEY,
    "RS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def jwk(key: Any, key_id: str, algorithm: str) -> dict[str, Any]:
    """The public half of a key, as a JWKS has it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": key_id, "use": "sig", "alg": algorithm}


def jwks(**keys: dict[str, Any]) -> str:
    return json.dumps({"keys": list(keys.values())})


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None leaves a claim out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time()) + 60}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "ES256", key_id: str | None = "one", **changes: Any) -> str:
    headers = {} if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changes), key, algorithm, headers)


def rules(keys: str) -> str:
    return f"""
[jwt]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
keys = "{keys}"

[[grants]]
principals = ["alice"]
role = "viewer"
"""


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Guarded]:
    """A daemon that believes tokens of three keys."""
    keys = {name: jwk(key, "one" if name == "ES256" else name, name) for name, key in ALGORITHMS.items()}
    (tmp_path / "keys.json").write_text(jwks(**keys))
    async with guarded(tmp_path, {}, rules("keys.json")) as daemon:
        yield daemon


async def error_of(daemon: Guarded, token: str) -> Any:
    """The error of a call with this token."""
    method: Any = daemon.channel.unary_unary(
        "/pydotcompute.v1.KernelService/ListKernels", pb.ListKernelsRequest.SerializeToString
    )
    return await outcome(method(pb.ListKernelsRequest(), metadata=bearer(token)))


async def test_a_token_of_the_issuer_for_this_daemon_is_believed(daemon: Guarded) -> None:
    for algorithm, key in ALGORITHMS.items():
        key_id = "one" if algorithm == "ES256" else algorithm
        assert await error_of(daemon, signed(key, algorithm, key_id)) is None
    assert await error_of(daemon, signed(aud=["other", AUDIENCE])) is None


async def test_its_name_has_the_roles_of_the_file(daemon: Guarded) -> None:
    refused = await error_of(daemon, signed(sub="bob"))
    assert refused == NotPermittedError("bob", "KernelService/ListKernels", "viewer")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example.org"}, "Invalid issuer"),
        ({"iss": None}, "missing the .* claim"),
        ({"aud": "another"}, "Audience doesn't match"),
        ({"aud": None}, "missing the .* claim"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "missing the .* claim"),
        ({"nbf": int(time()) + 3600}, "not yet valid"),
        ({"sub": None}, "missing the .* claim"),
        ({"sub": "anonymous"}, "do not say who they are"),
        ({"sub": "a\nb"}, "a name has"),
        ({"sub": ""}, "a name has"),
        ({"key": OTHER_KEY}, "Signature verification failed"),
        ({"key_id": "unknown"}, "its key is not known"),
        ({"key_id": None}, "its key is not known"),
        ({"key_id": "RS256"}, "alg"),
    ],
)
async def test_a_token_is_not_believed_that_is_wrong(daemon: Guarded, changes: dict[str, Any], why: str) -> None:
    error = await error_of(daemon, signed(**changes))
    assert isinstance(error, NotAuthenticatedError)
    with pytest.raises(NotAuthenticatedError, match=why):
        raise error


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def test_tricks_with_the_algorithm_are_refused(daemon: Guarded) -> None:
    good = signed()
    body = part(claims())
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    by_public_key = f"{part({'alg': 'HS256', 'kid': 'one'})}.{body}"
    mac = hmac.new(public, by_public_key.encode(), hashlib.sha256).digest()
    tricks = {
        "none": f"{part({'alg': 'none', 'kid': 'one'})}.{body}.",
        "None": f"{part({'alg': 'None', 'kid': 'one'})}.{body}.",
        "none with a signature": f"{part({'alg': 'none', 'kid': 'one'})}.{body}.{good.split('.')[2]}",
        "signed with the public key": f"{by_public_key}.{part(mac)}",
        "another body": f"{good.split('.')[0]}.{body}x.{good.split('.')[2]}",
        "without a signature": ".".join(good.split(".")[:2]) + ".",
        "truncated": good[:-4],
        "not JSON": f"{part(b'hello')}.{body}.{part(b'x')}",
        "only dots": "..",
        "with a key of its own": jwt.encode(
            claims(), OTHER_KEY, "ES256", {"kid": "one", "jwk": jwk(OTHER_KEY, "one", "ES256"), "jku": "http://evil"}
        ),
    }
    for what, token in tricks.items():
        assert isinstance(await error_of(daemon, token), NotAuthenticatedError), what
    assert await error_of(daemon, good) is None


async def test_a_token_that_was_checked_expires_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys.json").write_text(jwks(one=jwk(KEY, "one", "ES256")))
    async with guarded(tmp_path, {}, rules("keys.json")) as daemon:
        token = signed()
        assert await error_of(daemon, token) is None
        monkeypatch.setattr("pydotcompute_server.access.jwts.time", lambda: time() + 3600)
        monkeypatch.setattr("pydotcompute_server.access.jwts.LEEWAY", -3600.0)
        assert isinstance(await error_of(daemon, token), NotAuthenticatedError)


async def test_a_file_of_keys_is_read_again_when_it_changes(daemon: Guarded, tmp_path: Path) -> None:
    fresh = signed(OTHER_KEY, key_id="two")
    assert isinstance(await error_of(daemon, fresh), NotAuthenticatedError)
    (tmp_path / "keys.json").write_text(jwks(two=jwk(OTHER_KEY, "two", "ES256")))
    daemon.daemon.reload()
    assert await error_of(daemon, fresh) is None
    assert isinstance(await error_of(daemon, signed()), NotAuthenticatedError)


# -- keys of a URL -----------------------------------------------------------------------------------------------------


@dataclass
class Issuer:
    """A server of keys."""

    url: str = ""
    keys: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def issuer() -> Iterator[Issuer]:
    this = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            this.asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/keys")
            else:
                self.send_response(200 if this.keys else 503)
            self.end_headers()
            self.wfile.write(this.keys.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        this.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield this
        finally:
            server.shutdown()
            thread.join()


async def test_keys_of_a_url_are_asked_for_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with issuer() as keys:
        async with guarded(tmp_path, {}, rules(f"{keys.url}/keys")) as daemon:
            assert keys.asked == [], "the daemon starts while the issuer is down"
            assert isinstance(await error_of(daemon, signed()), NotAuthenticatedError)
            assert isinstance(await error_of(daemon, signed()), NotAuthenticatedError)
            assert len(keys.asked) == 1, "whoever sends nonsense does not make the daemon ask each time"
            keys.keys = jwks(one=jwk(KEY, "one", "ES256"))
            monkeypatch.setattr("pydotcompute_server.access.jwts.AGAIN", 0.0)
            assert await error_of(daemon, signed()) is None
            keys.keys = jwks(two=jwk(OTHER_KEY, "two", "ES256"))
            assert await error_of(daemon, signed(OTHER_KEY, key_id="two")) is None, "a key that is new"
            keys.keys = ""
            assert await error_of(daemon, signed(OTHER_KEY, key_id="two", jti="x")) is None, "the issuer is down again"


async def test_no_redirection_is_followed(tmp_path: Path) -> None:
    with issuer() as keys:
        keys.keys = jwks(one=jwk(KEY, "one", "ES256"))
        async with guarded(tmp_path, {}, rules(f"{keys.url}/moved")) as daemon:
            assert isinstance(await error_of(daemon, signed()), NotAuthenticatedError)
            assert keys.asked == ["/moved"]
