"""The suite's own judges: a ledger that notices what comes twice or not at all."""

import pytest

from pydotcompute import RingKernelRuntime
from tests.chaos.checks import nothing_lost_nothing_doubled
from tests.chaos.client import Report
from tests.chaos.kernels import QUESTION, Account, Entry, ledger
from tests.chaos.processes import Processes


async def account_after(*numbers: int) -> Account:
    """What the ledger says of a client that has sent these."""
    async with RingKernelRuntime() as runtime, runtime.kernel_scope("ledger", ledger):
        for number in numbers:
            await runtime.send_and_receive("ledger", Entry(7, number), timeout=5.0)
        account: Account = await runtime.send_and_receive("ledger", Entry(7, QUESTION), timeout=5.0)
        return account


@pytest.mark.parametrize(
    ("numbers", "last", "again", "skipped"),
    [
        ((), 0, 0, 0),
        ((1, 2, 3), 3, 0, 0),
        ((1, 2, 2, 3), 3, 1, 0),
        ((1, 4), 4, 0, 2),
        ((1, 3, 2, 4), 4, 1, 1),
    ],
)
async def test_the_ledger_knows_what_came_again_and_what_never_came(
    numbers: tuple[int, ...], last: int, again: int, skipped: int
) -> None:
    account = await account_after(*numbers)
    assert (account.client, account.number, account.again, account.skipped) == (7, last, again, skipped)


def test_a_reply_that_is_missing_is_noticed_and_so_is_a_request_that_never_arrived() -> None:
    with Processes(seed=0) as processes:
        _, target = processes.daemon()
        report = processes.client(target, count=50).last_words()
        nothing_lost_nothing_doubled(target, [report])
        lost = Report(report.number, sent=report.sent + 1, answered=report.answered)
        with pytest.raises(AssertionError, match=r"50 replies to 51 requests\n.*the last request is 51.*seen 50"):
            nothing_lost_nothing_doubled(target, [lost])
