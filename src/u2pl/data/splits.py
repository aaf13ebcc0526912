"""Choose the labeled images: by published split files, or by seeded draws that cover the classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from u2pl.data.files import FileSample
from u2pl.data.text import read_lines
from u2pl.errors import InputError
from u2pl.paths import is_file, is_folder, usable

#: None: all images with a mask; int: a count; float: a fraction in (0, 1]; a path: a split file; False: none, and no
#: training mask is read (for a target domain).
Labeled = int | float | str | Path | None

#: Data sets with published split files (NAME/COUNT/labeled.txt) that can be fetched.
PUBLISHED = ("pascal", "cityscapes")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def is_image(path: Path) -> bool:
    """Whether this is a file with an image suffix. Hidden files, such as those of macOS, do not count."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def read_split(path: str | Path) -> list[str]:
    """Read the image ids of a split file, in its order, without duplicates.

    A line is an id (``2007_000032``), the path of an image, or ``image mask`` separated by white space; the mask is
    dropped. BOM, CRLF and blank lines are allowed. Raises InputError if the file is missing or empty.
    """
    try:
        lines = read_lines(Path(path), give="give a text file with one image id per line")
    except InputError as error:
        raise InputError(f"split file {error}") from error
    ids = list(dict.fromkeys(_image_column(line) for line in lines if line))
    if not ids:
        raise InputError(f"split file {path} is empty; write one image id per line")
    return ids


def draw_labeled(presence: Mapping[str, frozenset[int]], count: int, seed: int) -> list[str]:
    """Draw ``count`` names that cover as many classes as possible, the rarest first. The result is sorted.

    ``presence`` holds the classes of each name. The draw depends on the seed and the names, but not on their order. If
    two counts can both cover all classes, the larger draw contains the smaller one. Names without a class come last.
    """
    order = sorted(presence, key=lambda name: (not presence[name], fingerprint(seed, name)))
    cover = _cover(presence, order, seed, frugal=False)
    if len(cover) > count:
        cover = _cover(presence, order, seed, frugal=True)[:count]
    rest = [name for name in order if name not in cover]
    return sorted([*cover, *rest[: count - len(cover)]])


def _cover(presence: Mapping[str, frozenset[int]], order: Sequence[str], seed: int, *, frugal: bool) -> list[str]:
    """Names that together show every class, chosen for the rarest class first.

    For each class this is the first name in ``order`` that shows it. If ``frugal``, it is the name that adds the most
    classes; this favours crowded images, so it is used for small counts only.
    """
    frequency = Counter(index for classes in presence.values() for index in classes)
    covered: set[int] = set()
    cover: list[str] = []
    for index in sorted(frequency, key=lambda index: (frequency[index], fingerprint(seed, str(index)))):
        if index not in covered:
            holders = [name for name in order if index in presence[name]]
            best = max(holders, key=lambda name: len(presence[name] - covered)) if frugal else holders[0]
            cover.append(best)
            covered |= presence[best]
    return cover


class Pool:
    """The images of a data set by name. Split files, counts and fractions select from them."""

    def __init__(
        self, samples: Iterable[FileSample], *, root: Path, folders: Sequence[Path], image_folder: str, ending: str = ""
    ) -> None:
        """Relative paths of split files are searched in the working directory, then in ``folders``. If an id is a
        path, everything up to ``image_folder`` and a trailing ``ending`` are ignored."""
        self.root, self.folders, self.image_folder, self.ending = root, folders, image_folder, ending
        self.samples: dict[str, FileSample] = {}
        self._bare: dict[str, list[str]] = {}
        for sample in samples:
            if sample.name in self.samples:
                twin = self.samples[sample.name].image_path
                raise InputError(
                    f"{sample.image_path} and {twin.name} have the same name without the suffix; rename one"
                )
            self.samples[sample.name] = sample
            self._bare.setdefault(PurePosixPath(sample.name).name, []).append(sample.name)

    def pick(self, names: Iterable[str]) -> list[FileSample]:
        return [self.samples[name] for name in names]

    def with_mask(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.samples[name].has_mask]

    def find(self, path: str | Path) -> Path | None:
        """The split file that ``path`` refers to, or None."""
        candidates = [usable(path), *(folder / path for folder in self.folders)]
        return next((candidate for candidate in candidates if is_file(candidate)), None)

    def listed(self, path: str | Path, *, key: str, masks: bool) -> list[str]:
        """Names listed in a split file. Raises InputError for ids that are absent or ambiguous, and for images without
        a mask if ``masks`` is set."""
        file = self.find(path)
        if file is None:
            other = is_folder(usable(path)) and " (it is a folder)"
            raise InputError(f"{key}: there is no split file {path}{other or ''}; {_remedy(Path(path))}")
        matches = {identifier: self.match(identifier, file) for identifier in read_split(file)}
        absent = [identifier for identifier, name in matches.items() if name is None]
        if absent:
            raise InputError(
                f"split file {file} lists {some(absent)} not found among the images of {self.root}; "
                "correct the list or add the files"
            )
        names = list(dict.fromkeys(name for name in matches.values() if name is not None))
        bare = [name for name in names if masks and not self.samples[name].has_mask]
        if bare:
            raise InputError(
                f"split file {file} ({key}) lists {some(bare)} without a mask; add masks or take them off the list"
            )
        return names

    def labeled(self, labeled: Labeled, *, among: Sequence[str], seed: int, required: bool = True) -> list[str]:
        """Names of the labeled images: those of a split file, or a draw from the names ``among``. Raises InputError if
        there are fewer images than the draw needs, or none; without ``required`` there may be none."""
        if isinstance(labeled, (str, Path)):
            return self.listed(labeled, key="labeled", masks=True)
        if labeled is False:
            return []
        candidates = self.with_mask(among)
        if labeled is None and not candidates and not required:
            return []
        if not candidates:
            raise InputError(f"{self.root} has no labeled image; add masks for at least one training image")
        count = _count(labeled, len(candidates), self.root)
        if count == len(candidates):
            return candidates
        return draw_labeled(self.presence(candidates), count, seed)

    def presence(self, names: Sequence[str]) -> dict[str, frozenset[int]]:
        """The classes that each of the masks shows. Reads them all."""
        with ThreadPoolExecutor() as threads:
            values = threads.map(FileSample.mask_values, self.pick(names))
            return dict(zip(names, values, strict=True))

    def match(self, identifier: str, file: Path) -> str | None:
        """The name of the image that a line of ``file`` refers to, or None. Raises InputError if there are several."""
        parts = list(PurePosixPath(identifier.replace("\\", "/").lstrip("/")).parts)
        if self.image_folder in parts[:-1]:
            parts = parts[len(parts) - parts[::-1].index(self.image_folder) :]
        stem = "/".join(parts)
        for name in (stem.removesuffix(self.ending), _strip_suffix(stem).removesuffix(self.ending)):
            if name in self.samples:
                return name
            twins = self._bare.get(name, [])
            if len(twins) > 1:
                raise InputError(f"{file}: {identifier} is ambiguous ({', '.join(twins[:3])}); write one of these")
            if twins:
                return twins[0]
        return None


def refuse_overlap(labeled: Iterable[str], val: Iterable[str], root: Path) -> None:
    """Raise InputError if an image is both labeled and used for validation."""
    both = sorted(set(labeled) & set(val))
    if both:
        raise InputError(f"{root}: {some(both)} in both labeled and val; take the images off one of the lists")


def _count(labeled: int | float | None, available: int, root: Path) -> int:
    if labeled is None:
        return available
    if isinstance(labeled, float):
        if not 0 < labeled <= 1:
            raise InputError(f"labeled: the fraction {labeled} is not in (0, 1]; use an integer for a count")
        return max(1, round(labeled * available))
    if not 1 <= labeled <= available:
        remedy = f"ask for 1 to {available}"
        if labeled == 0:
            remedy += ", or give data.tags, from which weak_u2pl learns without masks"
        raise InputError(f"labeled: {labeled} images requested, but only {available} in {root} have masks; {remedy}")
    return labeled


def _remedy(missing: Path) -> str:
    """How to get a missing split file. Its path shows whether it is a published one."""
    data_set = missing.parts[-3] if len(missing.parts) >= 3 else ""
    if data_set in PUBLISHED:
        return f"`u2pl splits fetch {data_set}` fetches the published ones into splits/{data_set}"
    return "give the path of a text file with one id per line"


def some(names: Sequence[str]) -> str:
    """The number of images and up to three names: ``5 images (a, b, c, ...)``."""
    listing = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} image{'s' if len(names) > 1 else ''} ({listing})"


def _image_column(line: str) -> str:
    columns = line.split()
    # File names may contain spaces: a line has two columns only if both are image paths.
    pair = len(columns) == 2 and all(_strip_suffix(column) != column for column in columns)
    return columns[0] if pair else line


def _strip_suffix(name: str) -> str:
    return name[: name.rindex(".")] if name.lower().endswith(IMAGE_SUFFIXES) else name


def fingerprint(seed: int, name: str) -> bytes:
    """A key by which names sort in a random order that depends on the seed."""
    return hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8).digest()
