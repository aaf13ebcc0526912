"""Configuration -> data set, of one domain or of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from u2pl.config.part import accepted
from u2pl.config.schema import DataConfig, SourceConfig, TargetConfig
from u2pl.data.class_mapping import read_mapping
from u2pl.data.files import cached
from u2pl.data.pseudo_masks import with_pseudo_masks
from u2pl.data.readers import READERS
from u2pl.data.readers.domain import domain
from u2pl.data.readers.folder import AUTO, NONE
from u2pl.data.source import DataSource
from u2pl.data.splits import read_split, some
from u2pl.errors import InputError
from u2pl.paths import is_file, usable


def build_source(data: DataConfig, *, seed: int) -> DataSource:
    """The data set. Raises InputError for a key that its reader does not use, and for errors of the reader."""
    apart = {"cache", "workers", "timeout", "rare_class_sampling", "pseudo_masks", "pseudo_share"}
    options = {key: value for key, value in data if key not in apart and value is not None}
    if data.name == "domain":
        source = read_domains(**accepted(read_domains, options, "data.name=domain", "data"), seed=seed)
    else:
        source = _read(options, "data", seed)
    if data.pseudo_masks is not None:
        source = with_pseudo_masks(source, usable(data.pseudo_masks, "data.pseudo_masks:"))
    return cached(source) if data.cache is True else source


def _read(options: dict[str, Any], section: str, seed: int) -> DataSource:
    """The data set of a section, given its keys that are set."""
    name = options["name"]
    if name != "scenes" and "root" not in options:
        raise InputError(f"{section}.root: is needed for {section}.name={name}; give the folder of the data set")
    if name != "scenes" and "val" in options:
        options["val"] = str(options["val"])  # a folder's name may be a number
        if name != "folder" and options["val"] in (AUTO, NONE):  # the layout says what is for validation
            del options["val"]
    keys = {key: value for key, value in options.items() if key != "name"}
    keys = accepted(READERS[name], keys, f"{section}.name={name}", section)
    try:
        return READERS[name](**keys, seed=seed)
    except InputError as error:  # readers name a key without its section
        if str(error).partition(":")[0] in keys:
            raise InputError(f"data.{error}") from error
        raise


def read_domains(
    *,
    name: str = "domain",
    source: SourceConfig | None = None,
    target: TargetConfig | None = None,
    upper_bound: bool = False,
    seed: int,
) -> DataSource:
    """Source and target as one data set. Of the target, only the masks of ``target.labeled`` train, or with
    ``upper_bound`` all, without those of the source."""
    if source is None or target is None:
        key = "data.source" if source is None else "data.target"
        raise InputError(f"{key}: is needed for data.name={name}; give {key}.root and, unless folder, {key}.name")
    if upper_bound and target.labeled:
        raise InputError(
            "data.target.labeled: with data.upper_bound=true all masks of the target train; leave one of the two out"
        )
    told = target.model_dump(exclude_none=True, exclude=set() if target.labeled else {"labeled"})
    labels = _part(source.model_dump(exclude_none=True, exclude={"mapping"}), "data.source", seed)
    images = _part(told if upper_bound or target.labeled else {**told, "labeled": False}, "data.target", seed)
    if isinstance(target.labeled, str):
        _refuse_other_images(target.labeled, source.root, target.root)
    mapping = None
    if source.mapping is not None:
        file = _find_mapping(source.mapping, source.root, target.root)
        mapping = read_mapping(file, labels.classes, images.classes)
    return domain(source=labels, target=images, mapping=mapping, upper_bound=upper_bound)


def _part(options: dict[str, Any], section: str, seed: int) -> DataSource:
    try:
        return _read(options, section, seed)
    except InputError as error:  # name the section
        message = str(error)
        if message.startswith(f"{section}."):
            raise
        key = message.removeprefix("data.")
        raise InputError(f"{section}: {message}" if key == message else f"{section}.{key}") from error


def _find_mapping(path: str, *roots: str | None) -> Path:
    """The mapping file, by its path from the working directory or from either data set."""
    places = [usable(path), *(usable(root) / path for root in roots if root is not None)]
    found = next((place for place in places if is_file(place)), None)
    if found is None:
        raise InputError(
            f"data.source.mapping: there is no file {path}; write a csv with the header source,target and a line "
            "for each class of the source, such as car,vehicle"
        )
    return found


def _refuse_other_images(split: str, source: str | None, target: str | None) -> None:
    """Raise InputError if a split file of the target lists paths of images that the source has.

    A reader matches the end of a path, so an image of the target with the same name would take its place.
    """
    if source is None or target is None:
        return
    file = next((each for each in (usable(split), usable(target) / split) if is_file(each)), None)
    root, own = usable(source).resolve(), usable(target).resolve()
    if file is None or own == root or own.is_relative_to(root):
        return
    paths = [(each, usable(each)) for each in read_split(file)]
    others = [each for each, path in paths if is_file(path) and path.resolve().is_relative_to(root)]
    if others:
        raise InputError(
            f"data.target.labeled: split file {file} lists {some(others)} of the source; list images of the target"
        )
