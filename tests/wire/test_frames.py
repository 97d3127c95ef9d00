"""Parts as bytes: those of this project are views of their frames, and any others are copied out."""

from hypothesis import given
from hypothesis import strategies as st

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.frames import PartFrame, read_request, read_response, request_part, response_part

U64 = st.integers(0, (1 << 64) - 1)


@given(body_bytes=U64, offset=U64, data=st.binary(max_size=300))
def test_a_part_is_written_as_protobuf_reads_it_and_read_back(body_bytes: int, offset: int, data: bytes) -> None:
    part = pb.Part(body_bytes=body_bytes, offset=offset, data=data)
    for write, read, frame in (
        (request_part, read_request, pb.ExchangeRequest),
        (response_part, read_response, pb.ExchangeResponse),
    ):
        written = write(body_bytes, offset, memoryview(data))
        assert frame.FromString(written).part == part
        back = read(written)
        assert isinstance(back, PartFrame)
        assert (back.body_bytes, back.offset, bytes(back.data)) == (body_bytes, offset, data)


@given(data=st.binary(min_size=1, max_size=300), ballast=st.integers(0, 300))
def test_a_part_keeps_nothing_of_its_frame_but_its_data(data: bytes, ballast: int) -> None:
    unknown = b"\x7a" + bytes([ballast & 127 | 128, ballast >> 7]) + bytes(ballast)  # Field 15, which Part has not.
    inside = unknown + pb.Part(body_bytes=1000, data=data).SerializeToString()
    length = bytes([len(inside) & 127 | 128, len(inside) >> 7])
    read = read_request(pb.ExchangeRequest(part=pb.Part()).SerializeToString()[:1] + length + inside)
    part = read if isinstance(read, PartFrame) else read.part
    assert bytes(part.data) == data
    if isinstance(read, PartFrame):
        assert memoryview(read.data.obj).nbytes - len(data) <= 64
