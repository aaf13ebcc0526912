"""Types of the values in the schema: what a key may be, and what every key refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WrapValidator,
    field_validator,
)

from u2pl.paths import unusable

Side = Annotated[int, Field(ge=16, le=65_536)]
T = TypeVar("T")

AUTO = "auto"  #: value of a key that u2pl chooses once it knows the data and the machine


def _or_auto(value: Any, validate: Callable[[Any], Any]) -> Any:
    return AUTO if isinstance(value, str) and value == AUTO else validate(value)


MAY_BE_AUTO = WrapValidator(_or_auto)
#: A key that may be `auto` until :mod:`u2pl.auto.rules` chooses a value. Builders and engine get a T.
Auto = Annotated[T, MAY_BE_AUTO, PlainSerializer(lambda value: value)]


def _split(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


#: A list of names. On the command line it may be written as ``background,cat``.
Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=255), BeforeValidator(_split)]


def _ascending(value: list[float]) -> list[float]:
    if not 0.01 <= value[0] <= value[1] <= 100:
        raise ValueError("two numbers from 0.01 to 100, the smaller first")
    return value


Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascending)]


def _possible(value: Any) -> Any:
    if isinstance(value, str) and (why := unusable(value)):
        raise ValueError(f"a path that can exist (this one {why})")
    return value


#: Marks a key whose text is a path.
A_PATH = AfterValidator(_possible)


class Section(BaseModel):
    """A part of the schema. It refuses unknown keys, infinite numbers, and true or false in place of a number.

    An optional section may be a switch: ``true`` means its defaults, ``false`` leaves the part out.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _switches(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``true`` where 1 is valid: in Python they are equal."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if not isinstance(value, bool) or bool in (kind, *get_args(kind)):
            return value
        if any(isinstance(part, type) and issubclass(part, Section) for part in get_args(kind)):
            return {} if value else None
        raise ValueError("a value, not true or false")


class DerivedSection(Section):
    """A section that is made from a part. Its keys bring their meanings: reading them from source is slow."""

    model_config = ConfigDict(use_attribute_docstrings=False)
