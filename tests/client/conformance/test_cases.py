"""The cases of `pydotcompute conformance` pass with the daemon, and fail with one that does something else."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from pydotcompute.protobuf.codec import Codec
from pydotcompute.protobuf.pool import TypePool
from pydotcompute_client.conformance.cases import CASES
from pydotcompute_client.conformance.daemon import Case, check
from pydotcompute_client.conformance.kernels import Probe
from pydotcompute_client.conformance.probes import TYPE, number_in, probe

cases = pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])


@pytest.fixture(scope="module")
def conformant(start_daemon: Callable[..., Any]) -> Any:
    """A daemon with the kernel of the cases."""
    return start_daemon("pydotcompute_client.conformance.kernels")


@pytest.fixture(scope="module")
def modest(start_daemon: Callable[..., Any]) -> Any:
    """A daemon that takes short messages only."""
    return start_daemon("pydotcompute_client.conformance.kernels", "--max-message-bytes", "5000")


def test_the_names_of_the_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@cases
def test_the_daemon_passes(conformant: Any, case: Case) -> None:
    with grpc.insecure_channel(conformant.target) as channel:
        assert check(case, channel).problem is None


def test_a_daemon_that_does_something_else_fails(modest: Any) -> None:
    (case,) = (case for case in CASES if case.name == "parts")
    with grpc.insecure_channel(modest.target) as channel:
        result = check(case, channel)
    assert result.outcome == "FAIL"
    assert result.problem is not None
    assert "the stream ends with MESSAGE_INVALID: " in result.problem


def test_the_bytes_of_the_probes_are_those_of_their_type() -> None:
    codec = Codec(Probe, TypePool())
    assert codec.descriptor.full_name == TYPE
    for number, note, outputs in ((0, "", 0), (300, "ä" * 100, 3)):
        assert probe(number, note, outputs) == codec.encode(Probe(number, note, outputs))
        assert number_in(probe(number, note, outputs)) == number
