"""What a run's data are: the names of classes and samples, so that a resumed run can tell when they change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from u2pl.data.source import DataSource, Sample

_KINDS = ("labeled", "unlabeled", "val", "pseudo-labeled")
_NONE = (0, None)  # of a kind that a run has no images of, or that its version did not know


def fingerprint(source: DataSource) -> dict[str, Any]:
    """The classes, and the number of samples of each kind with a digest of their names in order.

    Where the data lie does not count.
    """
    lists = {"labeled": source.labeled, "unlabeled": source.unlabeled, "val": source.val}
    lists |= {"pseudo-labeled": source.pseudo} if source.pseudo else {}
    return {"classes": list(source.classes), **{kind: [len(each), _digest(each)] for kind, each in lists.items()}}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between two fingerprints, in words; None: nothing."""
    if before["classes"] != now["classes"]:
        return f"the classes were {', '.join(before['classes'])} and are now {', '.join(now['classes'])}"
    for kind in _KINDS:
        (count, digest), (counted, digested) = before.get(kind, _NONE), now.get(kind, _NONE)
        if count != counted:
            return f"there were {count} {kind} images and are now {counted}"
        if digest != digested:
            return f"the {count} {kind} images are not those of before"
    return None


def _digest(samples: Sequence[Sample]) -> str:
    names = hashlib.blake2b(digest_size=16)
    for sample in samples:
        names.update(sample.name.encode(errors="surrogateescape") + b"\0")
    return names.hexdigest()
