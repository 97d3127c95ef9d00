"""What `@ring_kernel` takes for `device` and `memory_limit`."""

import pytest

from pydotcompute.device.settings import bytes_of, check_device, cuda_index, text_of_bytes
from pydotcompute.exceptions import InvalidConfigurationError


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda", "cuda:0", "cuda:12"])
def test_a_device_has_one_of_these_names(device: str) -> None:
    check_device(device)


@pytest.mark.parametrize("device", ["", "gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda\n", 0, None])
def test_and_no_other(device: object) -> None:
    with pytest.raises(InvalidConfigurationError, match="cuda:1"):
        check_device(device)


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:7", 7)])
def test_a_name_means_an_index(device: str, index: int) -> None:
    assert cuda_index(device) == index


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        *[(None, None), (1, 1), ("4096", 4096), ("512MiB", 512 << 20), ("2GiB", 2 << 30), ("2 GiB", 2 << 30)],
        *[("1.5GB", 1_500_000_000), ("1TiB", 1 << 40), ("3kB".upper(), 3000), ("7B", 7)],
    ],
)
def test_a_limit_is_a_number_of_bytes_or_a_text_with_a_unit(limit: object, count: int | None) -> None:
    assert bytes_of(limit) == count


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "", "GiB", "2 gib", "-2GiB", "0GiB", "2GiB and more", "2GiB\n"])
def test_what_is_no_limit_is_refused(limit: object) -> None:
    with pytest.raises(InvalidConfigurationError, match="512MiB"):
        bytes_of(limit)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2 << 30, "2 GiB")]
)
def test_people_read_bytes_in_units(count: int, text: str) -> None:
    assert text_of_bytes(count) == text
