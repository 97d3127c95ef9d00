"""The calculator as a Ray actor in a process of its own, called once a message. Run by Ray's environment.

What is done for Ray's speed: a plain actor, which was faster than an async one (a threaded one was faster still, but
handles several messages at once and in any order, which no kernel does); a thousand calls are submitted before their
results are fetched, all at once; requests and results are so small that they travel within the calls; task events, the
dashboard, the log's way to the driver, usage statistics and authentication are off.
"""

import os
import tempfile

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"

import ray
from measure import Metrics, main, rate_of
from plain_calculator import Calculation, Result, answer

CALLS_IN_FLIGHT = 1_000


class Calculator:
    """Answers one request after the other."""

    def calculate(self, asked: Calculation) -> Result:
        """The answer."""
        return answer(asked)


async def measure_piped(seconds: float) -> Metrics:
    """Messages a second, there and back counted once."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=folder,
        )
        try:
            calculator = ray.remote(num_cpus=1, enable_task_events=False)(Calculator).remote()

            async def transfer(messages: int) -> None:
                for first in range(0, messages, CALLS_IN_FLIGHT):
                    numbers = range(first, min(first + CALLS_IN_FLIGHT, messages))
                    results = ray.get([calculator.calculate.remote(Calculation(float(n), 1.0)) for n in numbers])
                    if [result.result for result in results] != [number + 1 for number in numbers]:
                        raise RuntimeError("a wrong reply")

            return await rate_of(transfer, seconds, first=CALLS_IN_FLIGHT)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main({"piped": measure_piped})
