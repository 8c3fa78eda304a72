"""`struct`: attrs classes that are laid out as msgspec structs, for the few that are made for each chunk or each call.

Reading a chunk into such classes takes 0.6 µs, into classes that attrs lays out itself 2.1 µs, more than all other work
on the chunk. Every other model is a plain attrs class: there the difference is about 1 % of a call.

To attrs, cattrs, type checkers and readers the result is a frozen attrs class: the body is written with `attrs.field`,
and `attrs.fields`, `asdict`, `evolve` and `astuple` work. A struct cannot have validators, converters,
`__attrs_post_init__`, a custom `__init__`, `super()` without arguments, weak references or subclasses; the class
statement raises instead of ignoring such a body.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import attrs
import msgspec

__all__ = ["force", "struct"]

T = TypeVar("T")

# force(model, name, value): set a field of a frozen struct that nobody else holds yet.
force: Final[Callable[[Any, str, object], None]] = msgspec.structs.force_setattr

_REFUSED: Final = ("__init__", "__attrs_init__", "__attrs_pre_init__", "__attrs_post_init__", "__slots__")

if TYPE_CHECKING:
    from attrs import frozen as struct
else:

    def struct(described: type[T] | None = None, *, kw_only: bool = False) -> Any:
        """Make a frozen attrs class, laid out as a struct, of a class whose body is written for attrs.

        Args:
            described: the class.
            kw_only: whether `__init__` takes keyword arguments only.

        Raises:
            TypeError: the body asks for what a struct cannot do.
        """

        def make(described: type[T]) -> type[T]:
            given = dict(vars(described))
            _check_body(described.__name__, given)
            fields = attrs.fields(attrs.frozen(slots=False, kw_only=kw_only)(described))
            for field in fields:
                _check_field(described.__name__, field)
            return _as_attrs(_laid_out(described, given, fields, kw_only=kw_only), fields)

        return make if described is None else make(described)


def _check_body(name: str, body: Mapping[str, Any]) -> None:
    for refused in _REFUSED:
        if refused in body:
            raise TypeError(f"{name}: a struct cannot have {refused}; use a plain attrs class")
    for attribute in body.values():
        if isinstance(attribute, cached_property):
            raise TypeError(f"{name}.{attribute.attrname}: a struct cannot have a cached_property, which needs a dict")
        function = getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute)
        code = getattr(function, "__code__", None)
        if code is not None and "__class__" in code.co_freevars:
            raise TypeError(f"{name}.{code.co_name}: a struct's method cannot use super() without arguments")


def _check_field(name: str, field: Any) -> None:
    takes_self = isinstance(field.default, attrs.Factory) and field.default.takes_self  # type: ignore[arg-type]
    asked = {
        "a validator": field.validator is not None,
        "a converter": field.converter is not None,
        "init=False": not field.init,
        "an alias": field.alias != field.name,
        "a key to compare by": field.eq_key is not None or field.order_key is not None,
        "a default that takes self": takes_self,
    }
    for what, given in asked.items():
        if given:
            raise TypeError(
                f"{name}.{field.name}: a struct's field cannot have {what}; write a plain attrs class instead"
            )


def _laid_out(
    described: type, body: Mapping[str, Any], fields: "tuple[attrs.Attribute[Any], ...]", *, kw_only: bool
) -> Any:
    """Make the struct: the fields of the class, with its methods and properties."""
    names = {field.name for field in fields}
    left_out = names | {"__dict__", "__weakref__", "__annotations__"}
    namespace = {name: value for name, value in body.items() if name not in left_out and not _is_annotate(name)}
    namespace["__init_subclass__"] = classmethod(_refuse_subclass)
    namespace["__rich_repr__"] = _rich_repr  # msgspec's own, which rich asks first, would show what is hidden
    return msgspec.defstruct(
        described.__name__,
        [(field.name, field.type, *_default(field)) for field in fields],
        bases=(*(base for base in described.__bases__ if base is not object), msgspec.Struct),
        namespace=namespace,
        module=described.__module__,
        frozen=True,
        kw_only=kw_only,
        gc=False,  # read from JSON, they make no cycles
        omit_defaults=True,
    )


def _is_annotate(name: str) -> bool:
    return name.startswith("__annotate") or name == "__conditional_annotations__"  # Python 3.14's lazy annotations


def _default(field: Any) -> tuple[Any, ...]:
    if field.default is attrs.NOTHING:
        return ()
    if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        return (msgspec.field(default_factory=field.default.factory),)
    return (field.default,)


def _as_attrs(made: Any, fields: tuple[Any, ...]) -> Any:
    """Make the struct an attrs class, with equality, hash and repr by the fields."""
    these: dict[str, Any] = {
        field.name: attrs.field(
            default=field.default,
            eq=field.eq,
            hash=field.hash,
            repr=field.repr,
            kw_only=field.kw_only,
            metadata=field.metadata,
        )
        for field in fields
    }
    return attrs.frozen(made, these=these, init=False, slots=False, match_args=False)


def _refuse_subclass(made: type, /, **_: object) -> NoReturn:
    base = made.__mro__[1].__name__
    raise TypeError(f"{base} cannot be subclassed: its layout is fixed, for speed. Hold one in a class of your own")


def _rich_repr(self: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(self, field.name)) for field in attrs.fields(type(self)) if field.repr)
