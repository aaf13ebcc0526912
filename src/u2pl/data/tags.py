"""Image-level tags: which classes an image shows, but not where.

They are read from a CSV file or from the ``Annotations`` of PASCAL VOC. For experiments they are derived from masks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from xml.etree import ElementTree

from u2pl.data.files import FileSample
from u2pl.data.splits import Pool, some
from u2pl.data.text import read_rows
from u2pl.errors import InputError, quoted
from u2pl.paths import is_folder, read_bytes, usable

_LARGEST_ANNOTATION = 2**24  # bytes
_HEADINGS = ("image", "images", "name", "file", "filename", "id")


def tagged(
    pool: Pool, names: Sequence[str], tags: str | Path | None, *, known: Sequence[str], kept: Sequence[str]
) -> tuple[list[FileSample], tuple[str, ...]]:
    """The images of those names with their tags, and notes about images that are left out.

    Tags of known classes that are not kept are dropped. An image with no other tags is left out, because its objects
    would count as background.

    Args:
        tags: a CSV file (see :func:`read_csv`), relative to the working directory or to the data set; ``xml`` for the
            data set's folder ``Annotations``; another folder of annotations; ``masks``; None for no tags.
        known: names of all classes of the data set.
        kept: names of the classes in use; the first is the background.

    Raises InputError naming the file or key if the tags cannot be used.
    """
    if tags is None:
        return pool.pick(names), ()
    if str(tags) == "masks":
        return _of_masks(pool, names), ()
    source = _find(str(tags), pool)
    if is_folder(source):
        read = {name: read_annotation(path) for name in names if (path := source / f"{name}.xml").exists()}
        if names and not read:
            raise InputError(
                f"data.tags: {source} holds no {names[0]}.xml and none of another image; give a folder of them"
            )
        shown = {name: classes for name, classes in read.items() if classes}
    else:
        shown = read_csv(source, pool)
    for name, classes in shown.items():
        _refuse_unknown(classes, known, source, name)
    foreign = [name for name in names if name in shown and not shown[name] & set(kept)]
    samples = [
        replace(pool.samples[name], tags=frozenset(kept.index(each) for each in shown[name] & set(kept)))
        if name in shown
        else pool.samples[name]
        for name in names
        if name not in set(foreign)
    ]
    note = f"{some(foreign)} tagged only with classes that data.classes leaves out; not used" if foreign else ""
    return samples, (note,) if note else ()


def read_csv(path: Path, pool: Pool) -> dict[str, frozenset[str]]:
    """Read the class names of each image from a CSV file. Images without any are not in the result.

    The first column is the image, as in a split file. The others hold class names; ``;`` separates several in one
    column. Columns are separated by ``,``, ``;`` or tabs. A header ``image,tags``, BOM, CRLF and blank lines are
    allowed. Several rows of an image add up. Raises InputError if the file cannot be read or names an absent image.
    """
    give = "give a csv in UTF-8 with the columns image,tags as data.tags"
    rows = [cells for _, cells in read_rows(path, give=give, delimiter=_delimiter)]
    if rows and rows[0][0].lower() in _HEADINGS:
        del rows[0]
    if not rows:
        raise InputError(f"data.tags: {path} is empty; write a line image,tag;tag for each image")
    shown: dict[str, frozenset[str]] = {}
    absent = []
    for image, *cells in rows:
        name = pool.match(image, path)
        if name is None:
            absent.append(image)
            continue
        named = {tag.strip() for cell in cells for tag in re.split("[;,]", cell)} - {""}
        if named:
            shown[name] = shown.get(name, frozenset()) | named
    if absent:
        raise InputError(
            f"data.tags: {path} has rows for {some(absent)} not found among the images of {pool.root}; "
            "correct them or add the files"
        )
    return shown


def _delimiter(head: str) -> str:
    first = re.search(r"[,;\t]", head)
    return first[0] if first else ","


class _Annotation(ElementTree.TreeBuilder):
    """Refuses entities, which make gigabytes of text out of a few lines. Annotations have none."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE")


def read_annotation(path: Path) -> frozenset[str]:
    """Class names of the objects in a PASCAL VOC annotation. Raises InputError naming the file."""
    data = read_bytes(path, give="replace or remove the file", largest=_LARGEST_ANNOTATION)
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Annotation()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        why = "it has a DOCTYPE" if type(error) is ValueError else "it is no XML"
        raise InputError(f"data.tags: {path} cannot be read ({why}); replace or remove the file") from error
    return frozenset((name.text or "").strip() for name in root.iterfind("object/name")) - {""}


def _of_masks(pool: Pool, names: Sequence[str]) -> list[FileSample]:
    samples = pool.pick(names)
    with ThreadPoolExecutor() as threads:
        values = list(threads.map(lambda sample: sample.mask_values() if sample.has_mask else None, samples))
    return [replace(sample, tags=tags or None) for sample, tags in zip(samples, values, strict=True)]


def _find(tags: str, pool: Pool) -> Path:
    """The file or folder that ``data.tags`` refers to."""
    places = [pool.root / "Annotations"] if tags == "xml" else [usable(tags, "data.tags:"), pool.root / tags]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InputError(f"data.tags: there is no {places[-1]}; give a csv with the columns image,tags, xml, or masks")
    if tags == "xml" and not found.is_dir():
        raise InputError(f"data.tags: {found} is not a folder; give a folder of xml files")
    return found


def _refuse_unknown(classes: frozenset[str], known: Sequence[str], source: Path, image: str) -> None:
    for name in sorted(classes - set(known)):
        raise InputError(f"data.tags: {source} tags {image} with {quoted(name)}, {no_class(name, known)}")


def no_class(name: str, known: Sequence[str]) -> str:
    """End of an error message: the name is not a class, and the closest class name."""
    near: Mapping[str, str] = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), near, n=1)
    hint = f"did you mean {near[close[0]]}?" if close else f"known: {', '.join(known)}"
    return f"which is no class of this data set ({hint})"
