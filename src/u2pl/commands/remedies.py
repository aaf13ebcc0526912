"""Errors of the machine during a command -> one line with the keys that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from u2pl.engine.memory import is_out_of_memory
from u2pl.errors import InputError

STEP = "lower train.batch_size or train.crop_size"
WHOLE_IMAGES = "set evaluation.protocol=sliding, or a smaller evaluation.window"


@contextmanager
def out_of_memory_is_bad_input(remedy: str = STEP, *, where: str = "") -> Iterator[None]:
    """Turn torch's out-of-memory errors into an InputError that says ``where``, and names the ``remedy``."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory{where and f' {where}'}: {remedy}") from error
