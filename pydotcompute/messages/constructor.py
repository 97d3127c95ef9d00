"""The constructors of message classes: they normalize the body, and refuse a header that no mailbox could take.

There are two forms of the same. The plain form is the `__init__` that dataclasses make, which ends in a `__post_init__`
of ours; it is there from the start, and serves every class. The fast form is one generated `__init__` that does all of
it itself; the first instance of a class puts it in place, if it fits the class.
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
    """The `__post_init__` of a class with no instance yet: replaces itself by the one for that class.

    Not done when the class is declared, because its annotations may name classes that are declared after it.
    """
    cls = type(self)
    owner: Any = next((c for c in cls.__mro__ if c.__dict__.get("__post_init__") is first_check), None)
    if owner is None:  # Another thread was here meanwhile.
        self.__post_init__(*init_only)
        return
    # Looked up anew each time: further up there may be another `first_check`, which replaces itself too.
    inherits = hasattr(super(owner, self), "__post_init__")
    try:
        schema = introspect(owner)
    except MessageTypeError:
        schema = None  # Not a type for the wire: refused when a kernel declares it; in-process it may serve.
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
    """Returns True if a constructor of this class does nothing but assign its parameters and then check them."""
    fields = dataclasses.fields(cls)
    parameters = list(inspect.signature(cls.__init__).parameters)[1:]
    return (
        is_generated(cls.__dict__["__init__"])
        and _keeps_what_it_is_given(cls)
        # Without a schema there is nothing to normalize here; what is inherited may still have something.
        and (schema is not None or not hasattr(super(cls, cls), "__post_init__"))
        # No InitVar, and no field that the constructor does not take.
        and set(parameters) == {field.name for field in fields}
        # In the constructor a field would hide what is built in.
        and not any(hasattr(builtins, field.name) for field in fields)
    )


def _fast_form(cls: Any, schema: MessageSchema | None) -> Callable[..., None]:
    """The `__init__` of a dataclass with all that its `__post_init__` does, without calling it.

    `CalculationRequest(a=1.0, b=1.0)` of benchmarks/calculator_kernel.py takes 0.59 µs, and 0.75 µs in the plain form.
    Of these are 0.22 a call of an empty `__init__` with these parameters, and 0.22 the id. A request and its reply
    in-process cost 5 % more CPU time in the plain form.
    """
    plain = cls.__init__
    parameters = inspect.signature(plain).parameters
    this, *names = parameters
    source = Source(_TITLE, taken=parameters)
    with source.block(f"def __init__({_parameters(parameters)}):"):
        # A subclass may have a `__post_init__` that nobody has decorated.
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
    """The parameters of a function, as source; the defaults are set later."""
    texts = []
    for name, parameter in parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in texts:
            texts.append("*")
        texts.append(name if parameter.default is parameter.empty else f"{name}=None")
    return ", ".join(texts)


def _make_default(source: Source, field: dataclasses.Field[Any]) -> None:
    if field.default_factory is new_message_id:  # The same, without the call.
        with source.block("try:"):
            source.line(f"{field.name} = {source.bind(pool.pop, 'pop')}()")
        with source.block("except IndexError:"):
            source.line(f"{field.name} = {source.bind(refill, 'refill')}()")
    else:
        source.line(f"{field.name} = {source.bind(field.default_factory, 'make')}()")


def _header_problem(source: Source, priority: object) -> str:
    """A test that is true for every header that `check_header` refuses; `priority` is the default."""
    uuid = source.bind(UUID, "UUID")
    wrong_priority = f"type(priority) is not int or not 0 <= priority <= {MAX_PRIORITY}"
    if type(priority) is int and 0 <= priority <= MAX_PRIORITY:
        wrong_priority = f"priority is not {source.bind(priority, 'priority')} and ({wrong_priority})"
    wrong_correlation_id = f"correlation_id is not None and type(correlation_id) is not {uuid}"
    return f"type(message_id) is not {uuid} or {wrong_priority} or {wrong_correlation_id}"


def is_generated(init: object) -> bool:
    """Returns True if an `__init__` was made by dataclass, or is the fast form of one that was."""
    code = getattr(init, "__code__", None)
    return code is not None and code.co_filename in ("<string>", f"<{_TITLE}>")


def only_assigns(cls: Any) -> bool:
    """Returns True if a dataclass's constructor, given values that fit, only assigns them to attributes."""
    makes_as_usual = cls.__new__ is object.__new__ and type(cls).__call__ is type.__call__
    return makes_as_usual and is_generated(cls.__dict__.get("__init__")) and _keeps_what_it_is_given(cls)


def _keeps_what_it_is_given(cls: Any) -> bool:
    """Returns True if no code of the user's own takes part in assigning the fields, or runs after that."""
    post_inits = [base.__dict__["__post_init__"] for base in cls.__mro__ if "__post_init__" in base.__dict__]
    attributes = [inspect.getattr_static(cls, field.name, None) for field in dataclasses.fields(cls)]
    return (
        cls.__setattr__ is object.__setattr__
        and all(getattr(post_init, "__module__", None) == __name__ for post_init in post_inits)
        and all(isinstance(each, MemberDescriptorType) or not hasattr(each, "__set__") for each in attributes)
    )
