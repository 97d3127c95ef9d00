"""Settings of an embedded daemon: none for TLS is ignored."""

import pickle
from pathlib import Path

import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_server import Settings

FILE = Path("file.pem")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"tls_client_ca": FILE}, "tls_certificate"),
        ({"tls_certificate": FILE}, "tls_key"),
        ({"tls_key": FILE}, "tls_certificate"),
        ({"tls_client_ca": FILE, "tls_key": FILE}, "tls_certificate"),
        ({"tls_client_ca": FILE, "tls_certificate": FILE}, "tls_key"),
    ],
)
def test_a_setting_that_has_no_effect_is_an_error_that_names_what_is_missing(
    given: dict[str, Path], missing: str
) -> None:
    with pytest.raises(InvalidConfigurationError, match="has no effect without it") as refused:
        Settings(**given)  # type: ignore[arg-type]
    assert refused.value.parameter == missing
    assert pickle.loads(pickle.dumps(refused.value)) == refused.value
    assert refused.value.again() == refused.value
