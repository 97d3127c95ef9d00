"""The names of kernels' own services and methods, and what reflection tells of them."""

from typing import Any

import grpc

from pydotcompute.v1 import kernel_service_pb2
from tests.server.typed.services import grpcurl, refusal_of
from tests.stubs import Wire


async def test_kernel_types_tell_the_name_of_their_service(wire: Wire) -> None:
    types = (await wire.kernels.ListKernelTypes(kernel_service_pb2.ListKernelTypesRequest())).kernel_types
    services = {kernel_type.name: kernel_type.service for kernel_type in types}
    assert services["vector_add"] == "vector_add.v1.VectorAdd"
    assert services["square"] == "kernels.v1.Square"
    assert services["till"] == "shop.v1.CashDesk"
    assert services["parrot"] == "shop.parrots.v1.Parrot"
    assert services["hermit"] == ""


async def test_a_kernel_under_another_id_has_the_service_of_its_type(wire: Wire) -> None:
    kernel_id = await wire.launch("till")
    described = await wire.describe(kernel_id)
    assert described.kernel_type.service == "shop.v1.CashDesk"
    assert [file.name for file in described.service_files.file][-1] == "shop/v1/cash_desk_service.proto"


async def test_a_kernel_without_an_input_type_has_no_service(wire: Wire) -> None:
    described = await wire.describe("hermit")
    assert (described.kernel_type.service, len(described.service_files.file)) == ("", 0)


async def test_the_service_files_are_complete_and_have_comments(wire: Wire) -> None:
    files = (await wire.describe("till")).service_files.file
    assert {"google/protobuf/empty.proto", "shop/v1/order.proto", "shop/v1/receipt.proto"} < {f.name for f in files}
    comments = {tuple(each.path): each.leading_comments for each in files[-1].source_code_info.location}
    assert comments[6, 0].startswith(" Takes orders.\n")
    assert all("Errors:" in comments[6, 0, 2, index] for index in range(4))


def test_reflection_lists_and_describes_the_services(daemon: Any) -> None:
    services = grpcurl(daemon.target, "list").split()
    assert {"shop.v1.CashDesk", "shop.parrots.v1.Parrot", "vector_add.v1.VectorAdd"} <= set(services)
    described = grpcurl(daemon.target, "describe", "shop.v1.CashDesk")
    assert "// Takes orders." in described
    assert "rpc Stream ( stream .shop.v1.Order ) returns ( stream .shop.v1.Receipt );" in described
    assert "google.protobuf.Any" in grpcurl(daemon.target, "describe", "shop.parrots.v1.Parrot.Ask")


async def test_who_asks_for_a_service_that_does_not_exist_hears_of_those_that_do(wire: Wire) -> None:
    for kind in ("unary_unary", "stream_stream"):
        code, text = await refusal_of(wire, "/shop.v1.CashDest/Ask", kind)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert text.startswith("there is no service 'shop.v1.CashDest'; those here are shop.v1.CashDesk, ")


async def test_who_asks_for_a_method_that_does_not_exist_hears_of_those_that_do(wire: Wire) -> None:
    code, text = await refusal_of(wire, "/shop.v1.CashDesk/Asks")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert text == "service shop.v1.CashDesk has no method 'Asks'; it has Ask, Send, Stream, Receive"
    _, text = await refusal_of(wire, "/pydotcompute.v1.KernelService/Lunch")
    assert "it has Launch, " in text


async def test_a_name_of_any_length_is_refused(wire: Wire) -> None:
    code, text = await refusal_of(wire, "/" + "x" * 6000 + "/Ask")
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert len(text) < 2000
