"""The constructors of message classes: they normalize the body and refuse an invalid header.

A constructor has two forms that do the same. The plain form is the `__init__` that `dataclasses` makes, which calls a
`__post_init__` of this module. Every class begins with the plain form. The fast form is one generated `__init__` that
does all the work itself. The first instance of a class installs the fast form, if it can serve the class.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from types import MemberDescriptorType
from typing import Any, cast
from uuid import UUID

from pydotcompute.exceptions import MessageTypeError
from pydotcompute.messages.header import MAX_PRIORITY, check_header
from pydotcompute.messages.ids import new_message_id, pool, refill
from pydotcompute.schema.codegen import Source
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import MessageSchema
from pydotcompute.schema.normalize import emit_normalizing, normalizer

__all__ = ["first_check", "is_generated", "only_assigns"]

_TITLE = "constructor of a message class"


def first_check(self: Any, *init_only: Any) -> None:
    """The `__post_init__` of a class that has no instance yet. It replaces itself by the one made for that class.

    The replacement cannot be made when the class is declared: the annotations may name classes that are declared later.
    """
    cls = type(self)
    owner: Any = next((c for c in cls.__mro__ if c.__dict__.get("__post_init__") is first_check), None)
    if owner is None:  # Another thread has replaced it meanwhile.
        self.__post_init__(*init_only)
        return
    # `super()` is evaluated at every call: a base class may also have a `first_check`, which replaces itself too.
    inherits = hasattr(super(owner, self), "__post_init__")
    try:
        schema = introspect(owner)
    except MessageTypeError:
        schema = None  # Such a class cannot be sent, and no kernel can declare it, but in-process it may be of use.
    normalize = None if schema is None else normalizer(owner)

    def __post_init__(self: Any, *init_only: Any) -> None:
        if inherits:
            super(owner, self).__post_init__(*init_only)
        if normalize is not None:
            normalize(self)
        correlation_id = self.correlation_id
        if (
            self.priority.__class__ is not int
            or not 0 <= self.priority <= MAX_PRIORITY
            or self.message_id.__class__ is not UUID
            or (correlation_id is not None and correlation_id.__class__ is not UUID)
        ):
            check_header(self)

    owner.__post_init__ = __post_init__
    if _fits_fast_form(owner, schema):
        owner.__init__ = _fast_form(owner, schema)
    __post_init__(self, *init_only)


def _fits_fast_form(cls: Any, schema: MessageSchema | None) -> bool:
    """Returns True if the constructor of this class only assigns its parameters and then checks them."""
    fields = dataclasses.fields(cls)
    parameters = list(inspect.signature(cls.__init__).parameters)[1:]
    return (
        is_generated(cls.__dict__["__init__"])
        and _keeps_what_it_is_given(cls)
        # Without a schema there is nothing to normalize in this class, but a base class may have something.
        and (schema is not None or not hasattr(super(cls, cls), "__post_init__"))
        # The class has no InitVar, and no field that the constructor does not take.
        and set(parameters) == {field.name for field in fields}
        # A parameter with the name of a builtin would hide the builtin from the constructor.
        and not any(hasattr(builtins, field.name) for field in fields)
    )


def _fast_form(cls: Any, schema: MessageSchema | None) -> Callable[..., None]:
    """Returns an `__init__` that does the work of the dataclass's `__init__` and `__post_init__` in one function.

    `CalculationRequest(a=1.0, b=1.0)` of benchmarks/calculator_kernel.py takes 0.59 µs, and 0.75 µs in the plain form.
    In both, calling an empty `__init__` with these parameters takes 0.22 µs, and making the id takes 0.22 µs. A request
    and its reply in-process cost 5 % more CPU time in the plain form.
    """
    plain = cls.__init__
    parameters = inspect.signature(plain).parameters
    this, *names = parameters
    source = Source(_TITLE, taken=parameters)
    with source.block(f"def __init__({_parameters(parameters)}):"):
        # A subclass that is not decorated may have a `__post_init__`, which only the plain form calls.
        arguments = [
            f"{name}={name}" if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY else name for name in names
        ]
        with source.block(f"if type({this}) is not {source.bind(cls, 'cls')}:"):
            source.line(f"return {source.bind(plain, 'plain')}({', '.join([this, *arguments])})")
        for field in dataclasses.fields(cls):
            if field.default_factory is not dataclasses.MISSING:
                with source.block(f"if {field.name} is {source.bind(parameters[field.name].default, 'missing')}:"):
                    _make_default(source, field)
            source.line(f"{this}.{field.name} = {field.name}")
        with source.block(f"if {_header_problem(source, parameters['priority'].default)}:"):
            source.line(f"{source.bind(check_header, 'check_header')}({this})")
        if schema is not None:
            emit_normalizing(source, schema, this)
    fast: Any = source.run()["__init__"]
    fast.__defaults__, fast.__kwdefaults__ = plain.__defaults__, plain.__kwdefaults__
    functools.update_wrapper(fast, plain)
    return cast(Callable[..., None], fast)


def _parameters(parameters: Mapping[str, inspect.Parameter]) -> str:
    """Returns the parameters of a function as source. The source has None for every default, to be replaced later."""
    texts = []
    for name, parameter in parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        texts.append(name if parameter.default is parameter.empty else f"{name}=None")
    return ", ".join(texts)


def _make_default(source: Source, field: dataclasses.Field[Any]) -> None:
    if field.default_factory is new_message_id:  # This does the same without the call.
        with source.block("try:"):
            source.line(f"{field.name} = {source.bind(pool.pop, 'pop')}()")
        with source.block("except IndexError:"):
            source.line(f"{field.name} = {source.bind(refill, 'refill')}()")
    else:
        source.line(f"{field.name} = {source.bind(field.default_factory, 'make')}()")


def _header_problem(source: Source, priority: object) -> str:
    """Returns an expression that is true for every header that `check_header` refuses.

    `priority` is the default priority of the class.
    """
    uuid = source.bind(UUID, "UUID")
    wrong_priority = f"type(priority) is not int or not 0 <= priority <= {MAX_PRIORITY}"
    if type(priority) is int and 0 <= priority <= MAX_PRIORITY:
        wrong_priority = f"priority is not {source.bind(priority, 'priority')} and ({wrong_priority})"
    wrong_correlation_id = f"correlation_id is not None and type(correlation_id) is not {uuid}"
    return f"type(message_id) is not {uuid} or {wrong_priority} or {wrong_correlation_id}"


def is_generated(init: object) -> bool:
    """Returns True if `init` was made by `dataclasses`, or is the fast form of such an `__init__`."""
    code = getattr(init, "__code__", None)
    return code is not None and code.co_filename in ("<string>", f"<{_TITLE}>")


def only_assigns(cls: Any) -> bool:
    """Returns True if the constructor of a dataclass only assigns its arguments to attributes.

    The arguments are assumed to be valid. Code that makes instances may then skip the constructor.
    """
    makes_as_usual = cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
    return makes_as_usual and is_generated(cls.__dict__.get("__init__")) and _keeps_what_it_is_given(cls)


def _keeps_what_it_is_given(cls: Any) -> bool:
    """Returns True if no code of the user runs when the fields are assigned, or after that."""
    post_inits = [base.__dict__["__post_init__"] for base in cls.__mro__ if "__post_init__" in base.__dict__]
    attributes = [inspect.getattr_static(cls, field.name, None) for field in dataclasses.fields(cls)]
    return (
        cls.__setattr__ is object.__setattr__
        and all(getattr(post_init, "__module__", None) == __name__ for post_init in post_inits)
        and all(isinstance(each, MemberDescriptorType) or not hasattr(each, "__set__") for each in attributes)
    )
