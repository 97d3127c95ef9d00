"""The types of each package in one file."""

from dataclasses import make_dataclass
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from pydotcompute.protobuf.packages import by_package, file_name, laid_over
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.protobuf.services import add_service


def made(full_name: str, doc: str = "", /, **fields: Any) -> type:
    package, _, name = full_name.rpartition(".")
    namespace = {"__proto_package__": package, "__doc__": doc or None}
    return make_dataclass(name, list(fields.items()), namespace=namespace)


def files_of(*classes: type) -> list[FileDescriptorProto]:
    pool = TypePool()
    for cls in classes:
        pool.add(cls)
    return pool.files


def names(files: list[FileDescriptorProto]) -> list[str]:
    return [file.name for file in files if not file.name.startswith(("google/", "pydotcompute/"))]


def builds(files: list[FileDescriptorProto]) -> None:
    pool = TypePool()
    pool.add_files(files)
    assert pool.files


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("calculator.v1", "calculator/v1/calculator.proto"),
        ("shop.till.v1beta1", "shop/till/v1beta1/till.proto"),
        ("shop", "shop/shop.proto"),
        ("shop.till", "shop/till/till.proto"),
        ("v1", "v1/v1.proto"),
    ],
)
def test_a_file_is_named_after_its_package(package: str, name: str) -> None:
    assert file_name(package) == name


def test_a_package_is_a_file_with_its_comments_and_imports() -> None:
    coin = made("money.v1.Coin", "Round.", cents=int)
    order = made("shop.v1.Order", "What is wanted.", coin=coin, note=str)
    receipt = made("shop.v1.Receipt", "What was paid.", order=order)
    pool = TypePool()
    for cls in (receipt, order):
        pool.add(cls)
    add_service(pool, "shop.v1.Till", pool.add(order), pool.add(receipt), "Takes money.")
    files = by_package(pool.files)
    builds(files)
    assert names(files) == ["money/v1/money.proto", "shop/v1/shop.proto"]
    shop = files[-1]
    assert list(shop.dependency) == ["google/protobuf/empty.proto", "money/v1/money.proto"]
    assert [message.name for message in shop.message_type] == ["Order", "Receipt"]
    comments = {tuple(location.path): location.leading_comments for location in shop.source_code_info.location}
    assert comments[4, 0] == " What is wanted.\n"
    assert comments[4, 1] == " What was paid.\n"
    assert comments[6, 0] == " Takes money.\n"
    assert "Required." in comments[4, 0, 2, 0]
    assert by_package(files) == files


def test_the_order_in_which_types_were_added_makes_no_difference() -> None:
    a, b = made("p.v1.A", x=int), made("p.v1.B", x=int)
    assert by_package(files_of(a, b))[-1] == by_package(files_of(b, a))[-1]


def test_packages_that_need_each_other_keep_a_file_for_each_class() -> None:
    inner = made("one.v1.Inner", x=int)
    middle = made("two.v1.Middle", inner=inner)
    outer = made("one.v1.Outer", middle=middle)
    user = made("three.v1.User", outer=outer)
    files = by_package(files_of(user))
    builds(files)
    assert names(files) == ["one/v1/inner.proto", "two/v1/middle.proto", "one/v1/outer.proto", "three/v1/three.proto"]


def test_what_is_new_replaces_what_was_there_type_by_type() -> None:
    before = by_package(
        files_of(made("p.v1.Kept", "Old.", x=int), made("p.v1.Changed", x=int, away=made("q.v1.Q", x=int)))
    )
    after = laid_over(before, files_of(made("p.v1.Changed", x=int, y=str), made("p.v1.New", x=int)))
    (p,) = (file for file in after if file.package == "p.v1")
    assert [message.name for message in p.message_type] == ["Changed", "Kept", "New"]
    assert [field.name for field in p.message_type[0].field] == ["x", "y"]
    assert list(p.dependency) == []


def test_a_package_that_gets_into_a_circle_is_wanted_whole() -> None:
    inner = made("one.v1.Inner", x=int)
    before = by_package(files_of(inner, made("one.v1.Other", x=int)))
    now = files_of(made("one.v1.Outer", middle=made("two.v1.Middle", inner=inner)))
    with pytest.raises(ValueError, match=r"one\.v1\.Other .* circle of packages now: one\.v1, two\.v1"):
        laid_over(before, now)
