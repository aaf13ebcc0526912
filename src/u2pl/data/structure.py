"""Checks of the lists of a data set; no file is read."""

from __future__ import annotations

from u2pl.data.source import DataSource
from u2pl.data.splits import some

NO_SCORE = "no score will be known"


def structure_warnings(source: DataSource) -> list[str]:
    """Warnings about the lists of a data set; no file is read."""
    notes = list(source.notes)
    if not source.val and not any(NO_SCORE in note for note in notes):
        notes.append(f"there are no validation images, so {NO_SCORE}; set data.val")
    return notes


def structure_errors(source: DataSource, semi_supervised: bool, *, weak: bool = False) -> list[str]:
    """Errors in the lists of a data set, one line each; no file is read."""
    errors = []
    if len(source.classes) < 2:
        errors.append(f"there is one class, {source.classes[0]}; a segmentation needs two: name the background, too")
    if weak:
        errors += _tag_errors(source)
    elif not (source.labeled or source.pseudo):
        errors.append("there is no labeled image; add a mask for at least one training image")
    if semi_supervised and not source.unlabeled:
        remedy = "add images without masks, label fewer, or train supervised"
        if source.target_labeled:
            remedy = "lower data.target.labeled, add images of the target, or train supervised"
        errors.append(f"there is no unlabeled image; {remedy}")
    validated = {sample.name for sample in source.val}
    overlap = [sample.name for sample in source.labeled if sample.name in validated]
    errors += [f"image {name} is in both labeled and val; take it off one of the lists" for name in overlap]
    return errors


def _tag_errors(source: DataSource) -> list[str]:
    """Errors for a method that learns from tags."""
    if not source.unlabeled:
        return ["there is no image to learn from by its tags; set data.labeled=0, or label fewer images"]
    untagged = [sample.name for sample in source.unlabeled if sample.tags is None]
    if len(untagged) == len(source.unlabeled):
        return [
            "no unlabeled image has a tag; set data.tags to a csv with the columns image,tags, xml, or masks, and "
            "data.labeled=0 where no mask is to train"
        ]
    if untagged and not source.labeled:  # if some images have masks, others may have no mask and no tags
        return [f"{some(untagged)} without a tag; add their classes to data.tags or take them off the training images"]
    return []
