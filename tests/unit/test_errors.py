"""Every error crosses the wire whole."""

import pickle
from uuid import UUID

import pytest
from google.rpc import error_details_pb2

from pydotcompute import exceptions
from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.wire.errors import DOMAIN, ERRORS, from_status, to_status

SAMPLES: dict[str, object] = {
    "kernel_id": "calculator",
    "available": ("a", "b"),
    "state": "ACTIVE",
    "operation": "activate",
    "allowed_states": ("LAUNCHED",),
    "cause_type": "ValueError",
    "cause_message": "no such thing: ü",
    "queue_size": 4,
    "timeout": 0.25,
    "expected": "int",
    "actual": "str",
    "path": "$.items[3].weight",
    "message_type": "Request",
    "problem": "too long",
    "backend": "cuda",
    "parameter": "grid_size",
    "value": "0",
    "size": 70_000_000,
    "limit": 64 << 20,
    "target": "127.0.0.1:50051",
    "message_ids": (UUID(int=1), UUID(int=2)),
    "unsent_ids": (UUID(int=3),),
}
CONCRETE = [
    cls
    for name in exceptions.__all__
    if (cls := getattr(exceptions, name)).fields
    and cls is not exceptions.ConnectionLostError  # raised by the client alone
]


def sample(cls: type[PyDotComputeError]) -> PyDotComputeError:
    return cls(*(SAMPLES[name] for name in cls.fields))


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


def test_a_time_out_is_a_timeout_error() -> None:
    assert issubclass(exceptions.QueueTimeoutError, TimeoutError)
