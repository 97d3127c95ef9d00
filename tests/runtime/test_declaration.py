"""What `@ring_kernel` and `RingKernelConfig` make of what they are told."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pydotcompute import RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import InvalidConfigurationError, MessageTypeError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType, kernel_type_of, registered_kernel_types
from pydotcompute.ring_kernels.lifecycle import KernelContext

Context = KernelContext[Any, Any]


@message
class Ping:
    """A message."""

    x: float = 0.0


@message
class Unsendable:
    """A message with a field that no wire could carry."""

    anything: object = None


def declared(**arguments: Any) -> KernelType:
    @ring_kernel(**{"auto_register": False} | arguments)
    async def actor(ctx: Context) -> None:
        """What it does.

        And how.
        """

    kernel_type = kernel_type_of(actor)
    assert kernel_type is not None
    return kernel_type


def test_a_type_has_the_name_of_its_function_unless_told_otherwise() -> None:
    assert declared().name == "actor"
    assert declared(kernel_id="other").name == "other"


@pytest.mark.parametrize(
    ("kernel_id", "name"),
    [
        ("vector_add", "VectorAdd"),
        ("calculator", "Calculator"),
        ("HTTPProxy", "HTTPProxy"),
        ("a-b.c d", "ABCD"),
        ("2fast", "Kernel2fast"),
        ("…", "Kernel"),
        ("größe", "GrE"),
    ],
)
def test_a_service_is_called_as_its_type_in_camel_case(kernel_id: str, name: str) -> None:
    kernel_type = declared(kernel_id=kernel_id, input_type=Ping)
    assert kernel_type.service == f"test_declaration.v1.{name}"


def test_a_service_is_not_called_as_one_of_its_messages() -> None:
    assert declared(kernel_id="ping", input_type=Ping).service == "test_declaration.v1.PingService"


def test_a_service_can_have_another_name_and_another_package() -> None:
    assert declared(input_type=Ping, service="Sonar").service == "test_declaration.v1.Sonar"
    assert declared(input_type=Ping, service="sea.v1.Sonar").service == "sea.v1.Sonar"


def test_a_type_without_an_input_type_has_no_service() -> None:
    assert declared().service == ""
    with pytest.raises(InvalidConfigurationError, match="only a kernel with an input_type has one"):
        declared(service="Sonar")


@pytest.mark.parametrize("name", ["a b", "1Sonar", ".Sonar", "Sea.Sonar", "sea..Sonar", "größe.v1.Sonar", "Sonar\n"])
def test_a_name_that_no_service_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfigurationError, match="choose another with service=") as refused:
        declared(input_type=Ping, service=name)
    assert (refused.value.parameter, refused.value.value) == ("service", name)


async def test_a_kernel_under_another_id_has_the_service_of_its_type() -> None:
    kernel_type = declared(kernel_id="sonar", input_type=Ping)
    async with RingKernelRuntime() as runtime:
        kernel = await runtime.launch("sonar-2", kernel_type.func)
        assert kernel.type.service == kernel_type.service


def test_a_type_is_documented_by_its_function() -> None:
    assert declared().documentation == "What it does.\n\nAnd how."


def test_the_decorator_gives_the_function_back() -> None:
    async def actor(ctx: Context) -> None: ...

    assert ring_kernel(auto_register=False)(actor) is actor
    assert kernel_type_of(actor) is not None
    assert kernel_type_of(declared) is None


def test_the_decorator_needs_no_parentheses() -> None:
    @ring_kernel
    async def bare_actor(ctx: Context) -> None: ...

    assert registered_kernel_types()["bare_actor"].func is bare_actor


def test_queue_size_is_that_of_both_mailboxes_unless_told_otherwise() -> None:
    def sizes(**arguments: Any) -> tuple[int, int]:
        config = declared(**arguments).config
        return config.input_queue_size, config.output_queue_size

    assert sizes() == (4096, 4096)
    assert sizes(queue_size=10) == (10, 10)
    assert sizes(queue_size=10, input_queue_size=20) == (20, 10)
    assert sizes(output_queue_size=5) == (4096, 5)


def test_the_other_settings_are_kept() -> None:
    config = declared(grid_size=2, block_size=64, backpressure="reject").config
    assert (config.grid_size, config.block_size, config.backpressure_strategy) == (2, 64, "reject")


def test_a_type_is_registered_unless_told_otherwise() -> None:
    declared(kernel_id="registered-1", auto_register=True)
    declared(kernel_id="registered-2", auto_register=False)
    assert "registered-1" in registered_kernel_types()
    assert "registered-2" not in registered_kernel_types()


def test_a_later_declaration_of_a_name_takes_the_place_of_the_earlier() -> None:
    declared(kernel_id="again", auto_register=True, queue_size=1)
    declared(kernel_id="again", auto_register=True, queue_size=2)
    assert registered_kernel_types()["again"].config.input_queue_size == 2


def test_the_registry_cannot_be_changed_from_outside() -> None:
    registered_kernel_types()["intruder"] = declared()
    assert "intruder" not in registered_kernel_types()


@pytest.mark.parametrize("role", ["input_type", "output_type"])
@pytest.mark.parametrize("cls", [int, dict, object, Ping(1), "Ping"])
def test_a_type_that_is_no_message_class_is_refused(role: str, cls: Any) -> None:
    with pytest.raises(MessageTypeError) as refused:
        declared(**{role: cls})
    assert role in refused.value.expected


@pytest.mark.parametrize("role", ["input_type", "output_type"])
def test_a_field_that_no_wire_could_carry_is_refused_by_its_path(role: str) -> None:
    with pytest.raises(MessageTypeError) as refused:
        declared(**{role: Unsendable})
    assert refused.value.path == "$.anything"
    assert Unsendable(7).anything == 7, "by itself it is fine"


def gives_one_by_one(ctx: object) -> Iterator[None]:
    yield


async def gives_one_by_one_async(ctx: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("func", [gives_one_by_one, gives_one_by_one_async, object(), int])
def test_what_is_no_actor_is_refused(func: Any) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        KernelType("k", func, RingKernelConfig("k"))
    assert refused.value.parameter == "kernel_func"
    assert "async def" in refused.value.problem


def test_a_plain_function_runs_in_a_thread() -> None:
    @ring_kernel(executor="thread", auto_register=False)
    def plain(ctx: BlockingContext[Any, Any]) -> None: ...

    @ring_kernel(executor="loop", auto_register=False)
    async def coroutine(ctx: KernelContext[Any, Any]) -> None: ...

    types = [kernel_type_of(plain), kernel_type_of(coroutine)]
    assert [kernel_type.executor for kernel_type in types if kernel_type] == ["thread", "loop"]


def test_an_executor_that_does_not_fit_the_function_is_refused() -> None:
    async def coroutine(ctx: KernelContext[Any, Any]) -> None: ...

    with pytest.raises(InvalidConfigurationError, match="a plain function"):
        ring_kernel(executor="thread", auto_register=False)(coroutine)
    with pytest.raises(InvalidConfigurationError, match="loop or thread"):
        ring_kernel(executor="process", auto_register=False)(coroutine)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("kernel_id", ""),
        ("kernel_id", 7),
        ("grid_size", 0),
        ("block_size", -1),
        ("input_queue_size", 0),
        ("input_queue_size", 1.5),
        ("output_queue_size", True),
        ("backpressure_strategy", "drop_newest"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_its_name(parameter: str, value: Any) -> None:
    with pytest.raises(InvalidConfigurationError) as refused:
        RingKernelConfig(**{"kernel_id": "k"} | {parameter: value})
    assert (refused.value.parameter, refused.value.value) == (parameter, str(value))
    assert isinstance(refused.value, ValueError)


def test_a_kernel_type_cannot_be_declared_with_such_a_setting() -> None:
    with pytest.raises(InvalidConfigurationError):
        declared(queue_size=0)
    with pytest.raises(InvalidConfigurationError):
        declared(backpressure="drop_newest")


def test_the_name_of_a_type_has_printable_characters_only() -> None:
    actor = declared().func
    for name in ("\x1b[2J", "a\nb", "\u202e", "\ud800"):
        with pytest.raises(InvalidConfigurationError, match="printable characters only") as refused:
            declared(kernel_id=name)
        assert str(refused.value).isprintable()
        with pytest.raises(InvalidConfigurationError, match="printable characters only"):
            KernelType(name, actor, RingKernelConfig("actor"))
