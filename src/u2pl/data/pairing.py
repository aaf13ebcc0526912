"""Find the mask of each image: same path below two folders, and a name by a pattern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from u2pl.data.mask_files import LOSSY_SUFFIXES, MASK_SUFFIXES, lossy
from u2pl.data.walking import files_below
from u2pl.errors import InputError

#: The name of a mask without its ending: that of its image.
SAME_NAME = "{stem}"
_SHOWN = 3


@dataclass
class Masks:
    """The masks below a folder, by the image that they belong to.

    Args:
        folder: of the masks; need not exist.
        pattern: name of a mask without its ending, where ``{stem}`` is the name of the image without, and ``{name}``
            with its ending.
    """

    folder: Path
    pattern: str = SAME_NAME
    paths: dict[str, Path] = field(init=False, default_factory=dict)  #: by relative path without the ending
    _lossy: list[Path] = field(init=False, default_factory=list)
    _used: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        if sum(self.pattern.count(part) for part in ("{stem}", "{name}")) != 1 or "/" in self.pattern:
            raise InputError(
                f"data.mask_pattern: {self.pattern!r} should hold {{stem}} or {{name}} once, such as {{stem}}_mask"
            )
        if not self.folder.is_dir():
            return
        files, _ = files_below(self.folder, lambda path: _is_file(path, (*MASK_SUFFIXES, *LOSSY_SUFFIXES)))
        for path in files:
            if path.suffix.lower() in LOSSY_SUFFIXES:
                self._lossy.append(path)
                continue
            key = _key(path, self.folder)
            if key in self.paths:
                raise InputError(f"{path} and {self.paths[key].name} are two masks of one image; remove one")
            self.paths[key] = path

    def of(self, image: Path, folder: Path) -> Path | None:
        """The mask of an image below ``folder``, or None. Raises InputError if it has two."""
        inside = image.relative_to(folder)
        name = self.pattern.replace("{stem}", image.stem).replace("{name}", image.name)
        key = (PurePosixPath(inside.parent.as_posix()) / name).as_posix()
        if key in self.paths:
            self._used.add(key)
        return self.paths.get(key)

    def unused(self, images: Sequence[Path], folder: Path) -> list[str]:
        """Notes about files that are the mask of no image, after :meth:`of` was called for all images.

        Raises InputError if there are masks and none belongs to an image.
        """
        notes = []
        if self._lossy:
            count = f"{len(self._lossy)} file{'s' if len(self._lossy) > 1 else ''}"
            named = _some(self._lossy, self.folder)
            notes.append(f"{count} in {self.folder} cannot be masks ({named}): {lossy('JPEG or WebP')}")
        left = [path for key, path in self.paths.items() if key not in self._used]
        text = f"{len(left)} of {len(self.paths)} masks in {self.folder} belong to no image"
        text += f" ({_some(left, self.folder)})"
        if left and not self._used:
            pattern = self._pattern(left, images, folder)
            remedy = f"set data.mask_pattern={pattern}" if pattern else "a mask has the path and the name of its image"
            raise InputError(f"{text}; {remedy}")
        if left:
            notes.append(f"{text} and are not used")
        elif self._lossy and not self.paths:
            raise InputError(notes[0])
        return notes

    def _pattern(self, masks: Iterable[Path], images: Sequence[Path], folder: Path) -> str | None:
        """The pattern by which most of these masks would belong to an image, if there is one."""
        by_folder: dict[str, list[Path]] = {}
        for image in images:
            by_folder.setdefault(image.relative_to(folder).parent.as_posix(), []).append(image)
        guesses: Counter[str] = Counter()
        for mask in masks:
            near = by_folder.get(mask.relative_to(self.folder).parent.as_posix(), [])
            parts = [(part, put) for image in near for part, put in ((image.name, "{name}"), (image.stem, "{stem}"))]
            for part, put in sorted(parts, key=lambda each: -len(each[0])):
                if mask.stem.startswith(part):
                    guesses[put + mask.stem.removeprefix(part)] += 1
                elif mask.stem.endswith(part):
                    guesses[mask.stem.removesuffix(part) + put] += 1
                else:
                    continue
                break
        return guesses.most_common(1)[0][0] if guesses else None


def _is_file(path: Path, suffixes: Sequence[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()


def _key(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _some(paths: Sequence[Path], folder: Path) -> str:
    """Up to three of the files: ``a.png, b.png, c.png, ...``."""
    names = [path.relative_to(folder).as_posix() for path in paths[:_SHOWN]]
    return ", ".join([*names, *(["..."] if len(paths) > _SHOWN else [])])
