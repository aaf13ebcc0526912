"""What a file of weights says about its network. The file may come from anyone, so nothing in it is believed unchecked.

A description names no weights to fetch and no encoder outside of the library: reading a file never reaches the network.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from u2pl.config.data import DataKeys
from u2pl.config.fields import AUTO
from u2pl.config.network import NetworkConfig
from u2pl.config.train import EvaluationConfig
from u2pl.data.files import INVALID
from u2pl.data.image_files import ImageReader
from u2pl.data.text import check_name
from u2pl.errors import InputError
from u2pl.methods import METHODS
from u2pl.structures import IGNORE_INDEX, Factor

_Byte = Annotated[int, Field(ge=0, le=255)]
_WIDEST = 8192  # channels of a layer; a description may not fill the memory
_ENCODER = r"[A-Za-z0-9_.\-]+"  # without : and /, with which timm loads models of other places
_SETTINGS = dict[str, bool | int | float | str | list[int] | list[float] | None]


def _nothing(value: Any) -> Any:
    return {} if value is None else value


class Description(BaseModel):
    """The description of a trained network. Later versions may add keys; earlier ones do not have all."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    classes: Annotated[list[str], Field(min_length=2, max_length=IGNORE_INDEX)]
    palette: Annotated[list[Annotated[list[_Byte], Field(min_length=3, max_length=3)]], Field(max_length=256)] = []
    lookup: Annotated[list[int], Field(min_length=256, max_length=256)] | None = None
    scale: Factor = 1.0
    method: str
    contrast: bool = True
    network: _SETTINGS
    evaluation: Annotated[_SETTINGS, BeforeValidator(_nothing)] = {}
    images: Annotated[_SETTINGS, BeforeValidator(_nothing)] = {}

    @field_validator("classes")
    @classmethod
    def _names(cls, names: list[str]) -> list[str]:
        for name in names:
            if not name.strip():
                raise ValueError("a name is empty")
            try:
                check_name(name, "names")
            except InputError as error:
                raise ValueError(str(error)) from error
        if len(set(names)) < len(names):
            raise ValueError("a name comes twice")
        return names

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in METHODS:
            raise ValueError(f"one of {', '.join(METHODS)}")
        return name

    @field_validator("network")
    @classmethod
    def _builds_here(cls, keys: dict[str, Any]) -> dict[str, Any]:
        """Refuse what would fetch weights or models, and what only a training could choose."""
        keys = dict(keys)
        for key in ("pretrained", "weights", "start_from"):
            if keys.pop(key, None):
                raise ValueError(f"{key} is not allowed in a file of weights")
        if AUTO in keys.values():
            raise ValueError("auto is chosen in training only")
        for key, value in keys.items():
            if isinstance(value, int) and value > _WIDEST:
                raise ValueError(f"{key} is above {_WIDEST}")
        network = NetworkConfig.model_validate(keys, strict=False)
        if not re.fullmatch(_ENCODER, network.encoder):
            raise ValueError("encoder is the name of one in the library")
        return keys

    @field_validator("evaluation")
    @classmethod
    def _scores(cls, keys: dict[str, Any]) -> dict[str, Any]:
        EvaluationConfig.model_validate(keys, strict=False)
        return keys

    @field_validator("images")
    @classmethod
    def _readable(cls, keys: dict[str, Any]) -> dict[str, Any]:
        keys = {key: value for key, value in keys.items() if value is not None}
        if unknown := set(keys) - set(inspect.signature(ImageReader).parameters):
            raise ValueError(f"{min(unknown)} is not known to this version")
        DataKeys.model_validate(keys, strict=False)
        return keys

    @model_validator(mode="after")
    def _together(self) -> Description:
        count = len(self.classes)
        if self.palette and len(self.palette) < count:
            raise ValueError("palette has fewer colours than there are classes")
        if self.lookup and not all(0 <= value < count or value in (INVALID, IGNORE_INDEX) for value in self.lookup):
            raise ValueError("lookup names classes that are not there")
        return self


def checked_description(description: Any, path: Path) -> dict[str, Any]:
    """The description in a file of weights, with every key of this version. Raises InputError that names the file."""
    try:
        return Description.model_validate(description).model_dump()
    except (ValidationError, RecursionError) as error:
        why = "it is nested too deeply"
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"][:2]))
            why = f"{key}: {first['msg'].splitlines()[0]}" if key else first["msg"].splitlines()[0]
        raise InputError(
            f"{path} has a description that cannot be used ({why}); give what `u2pl train` or `import-weights` wrote"
        ) from error
