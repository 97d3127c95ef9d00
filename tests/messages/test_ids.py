"""The ids of messages."""

import pickle
import subprocess
import sys
import textwrap
import threading
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.messages.ids import new_message_id, uuids_from_bytes, uuids_from_ints


def test_ids_are_random_uuids_of_version_4() -> None:
    ids = [new_message_id() for _ in range(1_000)]
    assert {(each.version, each.variant) for each in ids} == {(4, RFC_4122)}
    assert all(UUID(str(each)) == each and hash(UUID(str(each))) == hash(each) for each in ids)
    assert pickle.loads(pickle.dumps(ids)) == ids
    # Each of the 122 random bits is set in some and clear in others.
    union, intersection = 0, -1
    for each in ids:
        union |= each.int
        intersection &= each.int
    assert (union & ~intersection).bit_count() == 122


@given(st.lists(st.uuids(), max_size=20))
def test_many_uuids_are_made_of_bytes_or_ints_at_once(uuids: list[UUID]) -> None:
    for made in (
        uuids_from_bytes(b"".join(each.bytes for each in uuids)),
        uuids_from_ints([each.int for each in uuids]),
    ):
        assert made == uuids
        assert [(type(each), hash(each), each.is_safe) for each in made] == [(UUID, hash(e), e.is_safe) for e in uuids]


@pytest.mark.parametrize("length", [1, 15, 17])
def test_bytes_that_are_no_whole_uuids_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"and {length} is no multiple of 16"):
        uuids_from_bytes(bytes(length))


def test_ids_are_never_the_same_in_many_threads() -> None:
    batches: list[list[UUID]] = []

    def draw() -> None:
        batches.append([new_message_id() for _ in range(5_000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for batch in batches for each in batch}) == 20_000


def test_a_child_process_does_not_repeat_its_parents_ids() -> None:
    program = """
        import os
        from pydotcompute.messages.message import new_message_id

        def draw():
            return "".join(f"{new_message_id()}\\n" for _ in range(600)).encode()

        new_message_id()  # A pool that both could go on drawing from.
        readers = []
        for _ in range(2):
            reader, writer = os.pipe()
            if os.fork() == 0:
                os.write(writer, draw())
                os._exit(0)
            os.close(writer)
            readers.append(reader)
        print(draw().decode(), end="")
        for reader in readers:
            with os.fdopen(reader) as lines:
                print(lines.read(), end="")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=True
    )
    ids = ran.stdout.split()
    assert len(ids) == 1_800
    assert len(set(ids)) == 1_800
