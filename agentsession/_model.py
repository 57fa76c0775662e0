"""What all models share: conversion to and from JSON, and support for FastAPI and pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeAlias, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from agentsession._marks import marked
from agentsession.state import check_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["AwareDatetime", "Model", "Natural"]

AwareDatetime: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A moment that tells its offset from UTC; one that does not is refused where it is read."""

Natural: TypeAlias = Annotated[int, Meta(ge=0)]
"""A number from 0; a negative one is refused where it is read."""

# What holds state, in whatever model.
_STATE: Final = frozenset({"state", "state_delta"})


class Model:
    """A base of the public structs; it comes before ``Struct`` in the list of bases.

    pydantic takes it as a field's type and FastAPI as a type of answers, and of bodies with
    ``Annotated[Event, Body()]``, each with its JSON schema. Neither has to be installed. Where no
    type is declared, neither of them knows the model: not in a field of type ``Any``, and not in
    what an endpoint without a return annotation gives back. Declare the type there, or hand over
    what ``to_dict()`` returns.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: dicts, lists, strings, numbers, booleans and ``None``.

        :meth:`from_dict` makes an equal one of it. A moment is an ISO 8601 string in UTC. In state,
        ``bytes`` are ``{"$bytes": "…"}`` in base64, :data:`~agentsession.state.DELETE` is
        ``{"$delete": true}``, and ``temp:`` names are left out, which are nobody else's. Of events
        and their parts, so are fields at their defaults.

        Raises:
            StateValueError: A value could not be stored, since it would not come back from JSON as
                it is; the error names its path.
            ValueError: A field has the wrong type, is empty though it must not be, or is a moment
                without its offset from UTC.
        """
        assert isinstance(self, Struct)  # noqa: S101 - for the type checker
        return _as_builtins(_in_json(self, ()))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make one of what ``to_dict()`` returned; what it does not know in it is left out.

        It shares no dict and no list with *data*. Instead of its JSON, a model inside may be the
        object itself, which is taken as it is.

        Raises:
            TypeError: *data* is no mapping.
            ValueError: Something in it has the wrong type, is missing, or is not allowed.
        """
        if not isinstance(data, Mapping):
            msg = f"{cls.__name__} is made of a dict, not {type(data).__qualname__}: {data!r:.80}"
            raise TypeError(msg)
        cls._check_tag(data)
        try:
            return msgspec.convert(_copied(dict(data)), cls)
        except (msgspec.ValidationError, RecursionError) as exc:
            msg = f"no {cls.__name__}: {exc}"
            raise ValueError(msg) from exc

    @classmethod
    def _check_tag(cls, data: Mapping[str, Any]) -> None:
        """Refuse what does not say that it is one; a wrong tag is refused where it is read."""
        name = _tag_field(cls)
        if name is not None and name not in data:
            tag = _config(cls).tag
            msg = f"no {cls.__name__}: it has no {name!r}, which must be {tag!r}"
            raise ValueError(msg)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import (  # noqa: PLC0415 - only pydantic itself asks
            PydanticSerializationUnexpectedValue,
            core_schema,
        )

        def validate(value: Any) -> Any:
            try:
                return value if isinstance(value, cls) else cls.from_dict(value)
            except TypeError as exc:
                raise ValueError(str(exc)) from exc  # All that pydantic takes for a refusal.

        def serialize(value: Any) -> Any:
            if not isinstance(value, cls):
                # pydantic asks the members of a union in turn, and takes the first that gives JSON.
                msg = f"expected {cls.__name__}, not {type(value).__qualname__}"
                raise PydanticSerializationUnexpectedValue(msg)
            return value.to_dict()

        assert issubclass(cls, Struct)  # noqa: S101 - for the type checker
        fields: dict[str, core_schema.TypedDictField] = {}
        config = cls.__struct_config__
        if config.tag is not None:
            tag = core_schema.literal_schema([config.tag])
            required = _tag_field(cls) is not None
            fields[str(config.tag_field)] = core_schema.typed_dict_field(tag, required=required)
        for field in msgspec.structs.fields(cls):
            fields[field.encode_name] = core_schema.typed_dict_field(
                _field_schema(field.type, handler), required=field.required
            )
        return core_schema.no_info_plain_validator_function(
            validate,
            json_schema_input_schema=core_schema.typed_dict_schema(fields),
            serialization=core_schema.plain_serializer_function_ser_schema(serialize),
            # By this name pydantic refers to it, rather than to repeat it.
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # pyright takes two minutes for get() on all that a CoreSchema may be.
        inner = cast("Mapping[str, CoreSchema]", schema).get("json_schema_input_schema", schema)
        described = handler(inner)
        first, _, _ = (inspect.getdoc(cls) or "").partition("\n\n")
        return {"title": cls.__name__, "description": " ".join(first.split()), **described}


def _in_json(model: Struct, path: tuple[str | int, ...]) -> Struct:
    """Return a model with a form in JSON for all that it holds, and refuse what has none.

    A field is a model, a list of them, a moment, state, or JSON already.
    """
    changed: dict[str, Any] = {}
    for name in model.__struct_fields__:
        value = getattr(model, name)
        if name in _STATE:
            changed[name] = marked(value)
        elif isinstance(value, Struct):
            changed[name] = _in_json(value, (*path, name))
        elif _is_list_of_models(value):
            changed[name] = [
                _in_json(item, (*path, name, index)) for index, item in enumerate(value)
            ]
        elif isinstance(value, datetime):
            changed[name] = _in_utc(value)
        else:
            check_json(value, (*path, name))
    return msgspec.structs.replace(model, **changed) if changed else model


def _in_utc(moment: datetime) -> datetime:
    """Return a moment in UTC, unless it does not tell its offset from it."""
    try:
        return moment if moment.utcoffset() is None else moment.astimezone(UTC)
    except OverflowError as exc:
        msg = f"{moment} cannot be told in UTC: {exc}"
        raise ValueError(msg) from exc


def _as_builtins(model: Struct) -> dict[str, Any]:
    """Return a model as plain values, of which an equal one can be made.

    msgspec writes many types as JSON and reads JSON as one of them, so what it wrote is read.
    """
    kind = type(model)
    try:
        plain: dict[str, Any] = msgspec.to_builtins(model)
        back = msgspec.convert(plain, kind)
    except (msgspec.ValidationError, TypeError) as exc:
        msg = f"no {kind.__name__}: {exc}"
        raise ValueError(msg) from exc
    for name in kind.__struct_fields__:
        if getattr(back, name) != getattr(model, name):
            msg = f"no {kind.__name__}: {name} has the wrong type, or holds something that has"
            raise ValueError(msg)
    return plain


def _is_list_of_models(value: object) -> bool:
    if type(value) is not list or not value:
        return False
    return all(isinstance(item, Struct) for item in cast("list[object]", value))


def _copied(value: Any) -> Any:
    """Copy the dicts and lists that plain values are made of."""
    if type(value) is dict:
        members = cast("Mapping[Any, Any]", value)
        return {name: _copied(item) for name, item in members.items()}
    if type(value) is list:
        return [_copied(item) for item in cast("Iterable[Any]", value)]
    return value


def _tag_field(cls: type) -> str | None:
    """Name the field that says which part it is; the version of an event says nothing of that."""
    config = _config(cls)
    return config.tag_field if isinstance(config.tag, str) else None


def _config(cls: Any) -> msgspec.structs.StructConfig:
    config: msgspec.structs.StructConfig = cls.__struct_config__
    return config


def _field_schema(kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Describe a field: its type, and that a name is not empty and a number not negative."""
    from pydantic_core import core_schema  # noqa: PLC0415 - as above

    if get_origin(kind) is Annotated:
        kind, *checks = get_args(kind)
        if kind is str and checks[0].min_length:
            return core_schema.str_schema(min_length=checks[0].min_length)
        if kind is int:
            return core_schema.int_schema(ge=checks[0].ge)
    return handler.generate_schema(kind)
