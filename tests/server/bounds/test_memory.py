"""The budget of memory: what it knows between two looks, what gives way, and how large it is if nobody says."""

import asyncio
from pathlib import Path

import pytest

from pydotcompute.exceptions import MemoryExhaustedError
from pydotcompute_server.bounds.memory import LOOK_AFTER, LOOK_PAUSE, Memory, default_budget
from pydotcompute_server.bounds.trim import trim

GIB = 1 << 30


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A place with messages. A look at it takes `takes` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.bytes = 0
        self.looks = 0
        self.takes = 0.0

    def holds(self, size: int) -> None:
        """From now on so many bytes are here; that is seen at the next occasion."""
        self.bytes = size
        self._clock.now += LOOK_AFTER + 1.0

    def __call__(self) -> int:
        self.looks += 1
        self._clock.now += self.takes
        return self.bytes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def place(clock: Clock) -> Place:
    return Place(clock)


@pytest.fixture
def memory(clock: Clock, place: Place) -> Memory:
    """A budget of 1,000 bytes, of which nothing is in use."""
    made = Memory(1_000, clock)
    made.add_place("here", place)
    assert made.has_room_for(0)
    return made


def test_nothing_is_looked_at_while_little_has_come(memory: Memory, place: Place) -> None:
    before = place.looks
    assert all(memory.has_room_for(7) for _ in range(100))
    assert place.looks == before


def test_it_is_looked_again_before_anything_is_refused(memory: Memory, place: Place) -> None:
    for _ in range(50):
        assert memory.has_room_for(600)  # Each goes away before the next comes.
    place.bytes = 500
    assert not memory.has_room_for(501)
    assert memory.has_room_for(500)


def test_a_refusal_says_how_much_there_is_and_how_much_is_in_use(memory: Memory, place: Place) -> None:
    place.holds(900)
    with pytest.raises(MemoryExhaustedError) as refused:
        memory.require(200)
    assert (refused.value.budget, refused.value.used, refused.value.asked) == (1_000, 900, 200)


def test_what_kernels_have_made_is_seen_in_time(memory: Memory, place: Place, clock: Clock) -> None:
    place.bytes = 1_000
    assert memory.has_room_for(1)
    clock.now += LOOK_AFTER + 0.001
    assert not memory.has_room_for(1)


def test_a_look_that_takes_long_is_not_repeated_at_once(memory: Memory, place: Place, clock: Clock) -> None:
    place.takes = 0.01
    place.holds(1_000)
    assert not memory.has_room_for(800)
    before = place.looks
    place.bytes = 0
    assert not memory.has_room_for(800)
    assert place.looks == before
    clock.now += LOOK_PAUSE * 0.011
    assert memory.has_room_for(800)


def test_dead_letters_give_way_only_as_far_as_it_is_needed(memory: Memory, place: Place) -> None:
    wanted = []

    def discard(size: int) -> int:
        wanted.append(size)
        place.bytes -= size
        return size

    memory.let_give_way(discard)
    place.holds(700)
    assert memory.has_room_for(250)
    assert wanted == [200], "what would make memory tight"


def test_a_message_that_never_fits_displaces_nothing(memory: Memory, place: Place) -> None:
    def discard(size: int) -> int:
        raise AssertionError(f"asked for {size}")

    memory.let_give_way(discard)
    place.holds(100)
    assert not memory.has_room_for(1_001)


def test_memory_is_tight_before_it_is_full(memory: Memory, place: Place) -> None:
    assert not memory.is_tight
    place.holds(800)
    assert not memory.has_room_for(300)
    assert memory.is_tight
    assert not memory.is_full_for("")
    place.holds(1_000)
    assert not memory.has_room_for(300)
    assert memory.is_full_for("")
    place.holds(0)
    assert not memory.is_full_for("")
    assert not memory.is_tight


async def test_who_waits_is_woken_when_there_is_room(memory: Memory, place: Place) -> None:
    place.holds(1_000)
    assert not memory.has_room_for(1)
    waiting = asyncio.ensure_future(memory.freed().wait(30.0))
    await asyncio.sleep(0)
    place.holds(0)
    assert await waiting
    assert memory.has_room_for(1)
    memory.close()


def test_a_report_names_each_place(memory: Memory, place: Place) -> None:
    memory.add_place("there", lambda: 5)
    place.bytes = 7
    assert memory.report() == {"here": 7, "there": 5}
    assert memory.used == 12


# -- the default -------------------------------------------------------------------------------------------------------


def machine(root: Path, cgroup: str, **limits: str) -> Path:
    """A machine whose processes have these lines in /proc/self/cgroup, with files below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


ALL = default_budget(Path("/no/such/root"))


@pytest.mark.parametrize(
    ("cgroup", "files", "budget"),
    [
        ("0::/\n", {"memory.max": "268435456"}, 128 << 20),
        ("0::/\n", {"memory.max": "max"}, ALL),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "268435456"}, 128 << 20),
        ("0::/on/the/host\n", {"memory.max": "268435456"}, 128 << 20),
        ("5:cpu:/\n4:memory:/docker/x\n", {"memory/docker/x/memory.limit_in_bytes": "268435456"}, 128 << 20),
        ("4:memory:/on/the/host\n", {"memory/memory.limit_in_bytes": "268435456"}, 128 << 20),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, ALL),
        ("", {}, ALL),
    ],
    ids=["v2", "v2 none", "v2 above", "v2 container", "v1", "v1 container", "v1 none", "no cgroup"],
)
def test_the_default_is_half_of_the_cgroups_limit(
    tmp_path: Path, cgroup: str, files: dict[str, str], budget: int
) -> None:
    assert default_budget(machine(tmp_path, cgroup, **files)) == budget


def test_the_default_of_this_machine_is_some_of_it() -> None:
    assert 0 < default_budget() <= ALL


def test_memory_can_be_given_back_anywhere() -> None:
    trim()
