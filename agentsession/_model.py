"""What all models share: conversion to and from JSON, and support for FastAPI and pydantic."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args, get_origin

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

__all__ = ["Model"]


class Model:
    """A base of the public structs; it comes before ``Struct`` in the list of bases.

    pydantic takes it as a field's type and FastAPI as a type of answers, and of bodies with
    ``Annotated[Event, Body()]``, each with its JSON schema. Neither has to be installed.
    """

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: dicts, lists, strings, numbers, booleans and ``None``.

        A moment is an ISO 8601 string. In state, ``bytes`` are ``{"$bytes": "…"}`` in base64,
        :data:`~agentsession.state.DELETE` is ``{"$delete": true}``, and ``temp:`` names are left
        out, which are nobody else's. Of events and their parts, so are fields at their defaults.
        """
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make one of what :meth:`to_dict` returned; what it does not know in it is left out.

        Raises:
            TypeError: *data* is no mapping.
            ValueError: Something in it has the wrong type, is missing, or is not allowed.
        """
        if not isinstance(data, Mapping):
            msg = f"{cls.__name__} is made of a dict, not {type(data).__qualname__}: {data!r:.80}"
            raise TypeError(msg)
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as exc:
            msg = f"no {cls.__name__}: {exc}"
            raise ValueError(msg) from exc

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic itself asks

        def validate(value: Any) -> Any:
            try:
                return value if isinstance(value, cls) else cls.from_dict(value)
            except TypeError as exc:
                raise ValueError(str(exc)) from exc  # All that pydantic takes for a refusal.

        assert issubclass(cls, Struct)  # noqa: S101 - for the type checker
        fields: dict[str, core_schema.TypedDictField] = {}
        config = cls.__struct_config__
        if config.tag is not None:
            tag = core_schema.literal_schema([config.tag])
            fields[str(config.tag_field)] = core_schema.typed_dict_field(tag, required=False)
        for field in msgspec.structs.fields(cls):
            fields[field.encode_name] = core_schema.typed_dict_field(
                _field_schema(field.type, handler), required=field.required
            )
        return core_schema.no_info_plain_validator_function(
            validate,
            json_schema_input_schema=core_schema.typed_dict_schema(fields),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.to_dict),
            # By this name pydantic refers to it, rather than to repeat it.
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = handler(schema.get("json_schema_input_schema", schema))
        first, _, _ = (inspect.getdoc(cls) or "").partition("\n\n")
        return {"title": cls.__name__, "description": " ".join(first.split()), **described}


def _field_schema(kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Describe a field; of what msgspec checks beside its type, only that a name is not empty."""
    from pydantic_core import core_schema  # noqa: PLC0415 - as above

    if get_origin(kind) is Annotated:
        kind, *checks = get_args(kind)
        if kind is str and checks[0].min_length:
            return core_schema.str_schema(min_length=checks[0].min_length)
    return handler.generate_schema(kind)
