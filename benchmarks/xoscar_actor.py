"""The calculator as an xoscar actor in a sub-process of its pool, called once a message. Run by xoscar's environment.

What is done for xoscar's speed: many calls are under way at once, each new one made as soon as an old one is answered,
which was faster than waiting for a chunk of them with `asyncio.gather`; its sub-process runs on uvloop, of itself. Its
`batch` is not used: it makes one call of many messages, which a program must have beforehand.
"""

import os
from pathlib import Path

import xoscar
from measure import Metrics, main, rate_in_flight
from plain_calculator import Calculation, Result, answer

CALLS_IN_FLIGHT = 64


class Calculator(xoscar.Actor):  # type: ignore[misc]  # It has no types.
    """Answers one request after the other."""

    async def calculate(self, asked: Calculation) -> Result:
        """The answer."""
        return answer(asked)


async def measure_piped(seconds: float) -> Metrics:
    """Messages a second, there and back counted once."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # for the sub-process, which imports plain_calculator
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
    async with pool:
        calculator = await xoscar.create_actor(
            Calculator,
            address=pool.external_address,
            allocate_strategy=xoscar.allocate_strategy.ProcessIndex(1),
        )

        async def call(number: int) -> None:
            if (await calculator.calculate(Calculation(float(number), 1.0))).result != number + 1:
                raise RuntimeError("a wrong reply")

        return await rate_in_flight(call, seconds, in_flight=CALLS_IN_FLIGHT)


if __name__ == "__main__":
    main({"piped": measure_piped})
