"""Which images are alike: frames of one clip, or images of one group. Intervals draw them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from u2pl.data.validation import sequences

_RUNS = 12  # a single sequence is cut into so many runs


def alike(names: Sequence[str], told: Mapping[str, str] | None = None) -> tuple[int, ...]:
    """The number of the group of each image; images with the same number are alike.

    Args:
        told: the group of each image, by its name. An image that has none is alone. None, or if no image has one:
            :func:`neighbours`.
    """
    known = told if told is not None and any(name in told for name in names) else neighbours(names)
    keys = [("group", known[name]) if name in known else ("image", name) for name in names]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbers[key] for key in keys)


def neighbours(names: Iterable[str]) -> dict[str, str]:
    """The run of neighbouring frames of each name, see :func:`u2pl.data.validation.sequences`.

    A long sequence is cut into runs of about equal length, so long that a single sequence would give twelve: frames far
    from each other say more than neighbours do. With fewer than eighteen names, each frame is a run of its own.
    """
    found = sequences(names)
    length = max(1, round(sum(map(len, found.values())) / _RUNS))
    runs: dict[str, str] = {}
    for sequence, frames in found.items():
        parts = max(1, round(len(frames) / length))
        runs |= {name: f"{sequence}/{place * parts // len(frames)}" for place, name in enumerate(frames)}
    return runs
