"""Which keys of a section a builder has a use for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from u2pl.errors import InputError


def accepted(builder: Callable[..., Any], options: dict[str, Any], chosen: str, section: str) -> dict[str, Any]:
    """``options`` as they are. Raises InputError for a key that is no argument of ``builder``."""
    known = inspect.signature(builder).parameters
    for key in options:
        if key not in known:
            raise InputError(f"{section}.{key}: has no meaning with {chosen}; leave it out")
    return options
