"""What the daemon makes of the kernel types that it is given."""

from typing import Any

import pytest

from pydotcompute import message
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute_server.catalog import Catalog


@message(package="shop.v1")
class Order:
    """A request."""


@message(package="shop.v1")
class BasketService:
    """A message whose file is called as that of a service Basket would be."""


async def actor(ctx: KernelContext[Any, Any]) -> None:
    """Does nothing."""


def kernel_type(name: str, service: str = "", input_type: type | None = Order) -> KernelType:
    return KernelType(name, actor, RingKernelConfig(name), input_type, Order, service)


def refusal(*kernel_types: KernelType) -> str:
    with pytest.raises(InvalidConfigurationError) as refused:
        Catalog().add(*kernel_types)
    assert refused.value.parameter == "service"
    assert refused.value.problem.endswith("; choose another with service=")
    return str(refused.value)


def test_two_kernel_types_cannot_share_a_service() -> None:
    text = refusal(kernel_type("till"), kernel_type("desk", "Till"))
    assert text.startswith("service=shop.v1.Till: kernel type 'desk': the service of 'till' has this name")


def test_names_that_are_one_in_camel_case_are_told_apart_by_hand() -> None:
    assert "'a-b'" in refusal(kernel_type("a_b"), kernel_type("a-b"))
    Catalog().add(kernel_type("a_b"), kernel_type("a-b", "Other"))


def test_a_service_cannot_be_called_as_a_message() -> None:
    assert "a message type, or a file of one, has this name" in refusal(kernel_type("till", "Order"))


def test_it_cannot_be_called_as_a_message_of_a_later_kernel_either() -> None:
    assert "'desk'" in refusal(kernel_type("desk", "Order", input_type=BasketService), kernel_type("till"))


def test_the_file_of_a_service_cannot_be_that_of_a_message() -> None:
    assert "a file of one" in refusal(kernel_type("basket", input_type=BasketService))


@pytest.mark.parametrize("package", ["grpc.health.v1", "pydotcompute.v1", "google.protobuf"])
def test_a_service_cannot_be_in_a_package_of_the_daemons_own(package: str) -> None:
    assert "services of the daemon" in refusal(kernel_type("till", f"{package}.Health"))


def test_types_that_come_later_are_listed_too() -> None:
    catalog = Catalog()
    catalog.add(kernel_type("till"))
    assert catalog.pool.services() == ["shop.v1.Till"]
    catalog.add(kernel_type("desk"))
    assert catalog.pool.services() == ["shop.v1.Desk", "shop.v1.Till"]
    assert list(catalog.services) == ["shop.v1.Till", "shop.v1.Desk"]


def test_a_type_can_be_added_again() -> None:
    catalog = Catalog()
    catalog.add(kernel_type("till"))
    catalog.add(kernel_type("till"))
    assert list(catalog.services) == ["shop.v1.Till"]
