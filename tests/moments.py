"""Random moments, for tests of what is given up while something else happens."""

import asyncio
from random import Random


class Moments:
    """Random moments around one that nobody can foresee: how many turns of the loop an answer takes depends on the
    machine and on what else it does. So it is found by trying, from the few turns that it may take at least.
    """

    def __init__(self, seed: int) -> None:
        self._dice = Random(seed)
        self._most = 8.0

    async def wait(self) -> None:
        """Let a random number of turns of the loop pass, at least one."""
        for _ in range(self._dice.randint(1, int(self._most))):
            await asyncio.sleep(0)

    def was_early(self) -> None:
        """What might have happened by then had not."""
        self._most *= 1.1

    def was_late(self) -> None:
        """It had."""
        self._most = max(2.0, self._most / 1.1)
