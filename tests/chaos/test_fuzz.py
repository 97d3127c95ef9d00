"""What no client should send, in a few thousand pieces; `make fuzz` sends 100,000."""

import random

import pytest
from google.protobuf.descriptor import Descriptor

from pydotcompute.v1 import message_service_pb2 as pb
from tests.chaos.fuzzing import fuzz
from tests.chaos.mutations import Mutator
from tests.chaos.processes import seed_of
from tests.properties import examples, is_thorough

INPUTS = examples(5_000)


@pytest.mark.timeout(120)
def test_whatever_comes_gets_a_status_and_disturbs_nobody() -> None:
    seed = seed_of(1)
    verdict = fuzz(INPUTS, seed)
    assert verdict.inputs >= INPUTS
    assert not verdict.findings, f"CHAOS_SEED={seed}\n{verdict}"
    few = ("Exchange OK", "Exchange INVALID_ARGUMENT", "Launch OK")
    for code in (*few, "Ask OK", "Send OK") if is_thorough() else few:
        assert verdict.codes[code], f"{code} was never the answer: the input is not what it should be"


@pytest.mark.parametrize(
    "descriptor", [pb.ExchangeRequest.DESCRIPTOR, pb.SendRequest.DESCRIPTOR], ids=lambda each: each.name
)
def test_the_same_seed_makes_the_same_input(descriptor: Descriptor) -> None:
    def made(seed: int) -> list[bytes]:
        mutator = Mutator(random.Random(seed), ("word",), {})
        messages = [mutator.message(descriptor) for _ in range(20)]
        spoiled = [mutator.tweaked(message) for message in messages]
        return [mutator.garbled(each.SerializeToString(deterministic=True)) for each in messages + spoiled]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(set(made(1))) > 20
