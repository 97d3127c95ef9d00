"""The message classes of a link."""

from pydotcompute.wire.worker.types import LinkTypes
from tests.workers.kernels import Ask, Told


def test_the_next_link_has_the_codecs_of_the_one_before_if_that_had_no_others() -> None:
    first = LinkTypes.of_kernel(Ask, Told, None)
    assert LinkTypes.of_kernel(Ask, Told, first) is first
    assert LinkTypes.of_kernel(Ask, None, first) is not first
    one = LinkTypes.of_kernel(Ask, None, None)
    assert LinkTypes.of_kernel(Ask, None, one) is one
    one.add(Told)
    assert len(LinkTypes.of_kernel(Ask, None, one).codecs) == 1
