"""Every error crosses the wire whole."""

import pickle
from collections.abc import Callable
from uuid import UUID

import pytest
from google.rpc import error_details_pb2

from pydotcompute import exceptions
from pydotcompute.exceptions import (
    MessageDeserializationError,
    MessageError,
    MessageTypeError,
    PyDotComputeError,
    Violation,
)
from pydotcompute.wire.errors import DOMAIN, ERRORS, LONGEST_STATUS, from_status, to_status

SAMPLES: dict[str, object] = {
    "kernel_id": "calculator",
    "available": ("a", "b"),
    "state": "ACTIVE",
    "operation": "activate",
    "allowed_states": ("LAUNCHED",),
    "cause_type": "ValueError",
    "cause_message": "no such thing: ü",
    "queue_size": 4,
    "retry_after": 2.5,
    "timeout": 0.25,
    "cause": "QUEUED",
    "before": 3,
    "seconds": 1.5,
    "asking": "scorer",
    "kernel_ids": ("a", "b", "a"),
    "returned_after": 7,
    "expected": "int",
    "actual": "str",
    "path": "$.items[3].weight",
    "violations": (Violation("$.items[3].weight", "too long"), Violation("$.name", "expected a text, got 1")),
    "message_type": "Request",
    "problem": "too long",
    "backend": "cuda",
    "parameter": "grid_size",
    "value": "0",
    "size": 70_000_000,
    "limit": 64 << 20,
    "name": "client_ids",
    "budget": 1 << 30,
    "used": 1_000_000_000,
    "asked": 70_000_000,
    "target": "127.0.0.1:50051",
    "message_ids": (UUID(int=1), UUID(int=2)),
    "unsent_ids": (UUID(int=3),),
    "is_type": True,
    "principal": "spiffe://example.org/alice",
    "method": "KernelService/Launch",
    "role": "operator",
}
CONCRETE = [cls for name in exceptions.__all__ if getattr(cls := getattr(exceptions, name), "fields", ())]


def sample(cls: type[PyDotComputeError]) -> PyDotComputeError:
    make: Callable[..., PyDotComputeError] = cls
    return make(*(SAMPLES[name] for name in cls.fields))


def test_every_error_class_has_its_place_in_the_table() -> None:
    assert set(CONCRETE) == set(ERRORS)


@pytest.mark.parametrize("cls", CONCRETE)
def test_the_fields_of_an_error_are_those_of_its_detail_message(cls: type[PyDotComputeError]) -> None:
    assert tuple(ERRORS[cls][1].DESCRIPTOR.fields_by_name) == cls.fields


@pytest.mark.parametrize("cls", CONCRETE)
def test_an_error_comes_back_as_the_same_class_with_the_same_fields(cls: type[PyDotComputeError]) -> None:
    error = sample(cls)
    back = from_status(to_status(error))
    assert back == error
    assert str(back) == str(error)
    assert {name: getattr(back, name) for name in cls.fields} == {name: SAMPLES[name] for name in cls.fields}


@pytest.mark.parametrize("cls", CONCRETE)
def test_a_status_names_its_reason_and_our_domain(cls: type[PyDotComputeError]) -> None:
    status = to_status(sample(cls))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (cls.reason, DOMAIN)


@pytest.mark.parametrize("cls", CONCRETE)
def test_an_error_can_be_pickled(cls: type[PyDotComputeError]) -> None:
    assert pickle.loads(pickle.dumps(sample(cls))) == sample(cls)


# -- what is wrong with a message --------------------------------------------------------------------------------------


def bad_request(error: PyDotComputeError) -> list[tuple[str, str]] | None:
    """The field violations of an error's status, as a program reads them that knows only google.rpc."""
    found = error_details_pb2.BadRequest()
    if not any(each.Unpack(found) for each in to_status(error).details):
        return None
    return [(violation.field, violation.description) for violation in found.field_violations]


@pytest.mark.parametrize("cls", CONCRETE)
def test_what_is_wrong_with_a_message_is_told_to_programs_that_know_only_google_rpc(
    cls: type[PyDotComputeError],
) -> None:
    error = sample(cls)
    if isinstance(error, MessageError):
        assert bad_request(error) == list(error.violations)
        assert error.violations[0].path == error.path
    else:
        assert bad_request(error) is None


def test_a_single_problem_is_a_violation_too() -> None:
    assert MessageDeserializationError("T", "too long", "$.a").violations == (("$.a", "too long"),)
    assert MessageTypeError("int", "str", "$.a").violations == (("$.a", "expected int, got str"),)


def test_more_violations_than_a_status_holds_are_counted() -> None:
    violations = [(f"$.items[{index}].{'name' * 30}", "ü" * 300) for index in range(100)]
    error = MessageDeserializationError("T", violations[0][1], violations[0][0], violations)
    status = to_status(error)
    assert status.ByteSize() < LONGEST_STATUS
    *told, (path, problem) = bad_request(error) or []
    assert [path for path, _ in told] == [path[:59] + "…" for path, _ in violations[: len(told)]]
    assert (path, problem) == ("…", f"and {100 - len(told)} more")
    assert len(told) >= 5
    back = from_status(status)
    assert isinstance(back, MessageDeserializationError)
    assert list(back.violations) == bad_request(error)


@pytest.mark.parametrize("cls", [cls for cls in CONCRETE if issubclass(cls, MessageError) and "path" in cls.fields])
def test_an_error_about_a_part_becomes_one_about_the_whole_and_back(cls: type[MessageError]) -> None:
    error = sample(cls)
    assert isinstance(error, MessageError)
    moved = error.moved("$", "$.message.body")
    assert moved.path == moved.violations[0].path == "$.message.body.items[3].weight"
    assert moved.moved("$.message.body", "$") == error
    assert error.moved("$.item", "$.x") == error, "it is another field"
    assert "$.message.body.items[3].weight" in str(moved)


def test_a_time_out_is_a_timeout_error() -> None:
    assert issubclass(exceptions.QueueTimeoutError, TimeoutError)
