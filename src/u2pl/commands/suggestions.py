"""The files that `u2pl suggest` writes: a table, a contact sheet, drafts of masks, and tags."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from torch import Tensor

from u2pl.commands.run_folder import LOCK
from u2pl.commands.segmenting import memory_for, read_ahead
from u2pl.data.files import FileSample
from u2pl.data.text import read_rows
from u2pl.engine.checkpoint import unwritable, write_atomically
from u2pl.errors import InputError
from u2pl.labelling.looking import Draft, LookingPredictor
from u2pl.labelling.looks import LOOKS_FILES
from u2pl.labelling.strategies import Suggestion
from u2pl.labelling.tags import tags_of
from u2pl.report.contact_sheet import save_contact_sheet, thumbnail
from u2pl.report.pictures import is_signed, save_mask

SUGGESTED, SHEET, DRAFTS, TAGS = "suggested.csv", "contact_sheet.png", "drafts", "tags.csv"
_HEADER = ("rank", "image", "score", "unreliable", "entropy", "classes", "nearest")
_ON_A_SHEET = 100
_CLASSES = 5  # named in the table


def refuse_other_files(out: Path, *, tags: bool) -> None:
    """Raise InputError if the folder holds files of others, or work of a person that would be lost."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    own = {SUGGESTED, SHEET, DRAFTS, TAGS, LOCK, *LOOKS_FILES}
    for path in sorted(out.iterdir()):
        if path.name not in own and not path.name.endswith(".partial"):
            raise InputError(f"--out {out}: holds {path.name}, which `u2pl suggest` did not write; choose another")
    for path in _files(out / DRAFTS):
        if not is_signed(path) and not path.name.endswith(".partial"):
            raise InputError(f"--out {out}: {path} has been edited and would be replaced; choose another folder")
    if tags and (out / TAGS).exists():
        raise InputError(f"--out {out}: {TAGS} exists, perhaps corrected by hand; move it away, or leave --tags out")


def write_drafts(
    predictor: LookingPredictor,
    samples: Sequence[FileSample],
    out: Path,
    *,
    gamma: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seen: Callable[[FileSample, Draft], None] = lambda sample, draft: None,
) -> None:
    """Write ``drafts/NAME.png`` for each sample: class indices, and 255 where the network is unsure.

    Drafts of earlier suggestions are removed.

    Args:
        gamma: pixels of at least this entropy (nats) are 255.
        progress: called with (drafts written, all of them), first with 0.
        seen: called with each draft.
    """
    folder, written = out / DRAFTS, set()
    progress(0, len(samples))
    with closing(read_ahead(samples)) as images:
        drafts = predictor.drafts_of(images, lambda item: item[1], gamma=gamma, during=memory_for)
        with closing(drafts):
            for done, ((sample, _), draft) in enumerate(drafts, start=1):
                path = folder / f"{sample.name}.png"
                write_draft(path, draft, predictor)
                written.add(path)
                seen(sample, draft)
                progress(done, len(samples))
    for path in _files(folder):
        if path not in written:
            path.unlink(missing_ok=True)
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # it is not empty
            below.rmdir()


def write_draft(path: Path, draft: Draft, predictor: LookingPredictor) -> None:
    """Write the mask of a draft as a palette png of class indices, completely or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path, partial(save_mask, mask=draft.mask, palette=predictor.palette))


class Sheet:
    """Thumbnails of the first suggestions, as their drafts are made."""

    def __init__(self, predictor: LookingPredictor) -> None:
        self.palette = predictor.palette
        self.pictures: list[Tensor] = []
        self.titles: list[str] = []

    def add(self, sample: FileSample, draft: Draft) -> None:
        """Add a suggestion. Those after the hundredth are not on the sheet."""
        if len(self.pictures) < _ON_A_SHEET:
            self.pictures.append(thumbnail(draft.image, draft.mask, self.palette))
            self.titles.append(f"{len(self.titles) + 1}  {sample.name}")

    def write(self, out: Path) -> None:
        """Write ``contact_sheet.png``."""
        save = partial(save_contact_sheet, pictures=self.pictures, titles=self.titles)
        write_atomically(out / SHEET, save)


class ProposedTags:
    """Rows of a csv for `data.tags`, as drafts are made."""

    def __init__(
        self, predictor: LookingPredictor, shown: Mapping[str, tuple[int, ...]], names: Mapping[str, str]
    ) -> None:
        """``shown``: classes of the masks of images. ``names``: what the csv calls images. Both by a sample's name."""
        self.predictor, self.shown, self.names = predictor, shown, names
        self.rows: list[tuple[str, str]] = []

    def add(self, sample: FileSample, draft: Draft) -> None:
        """Add the row of a suggestion."""
        tags = tags_of(draft.image, self.shown[sample.name], self.predictor.image_prior)
        named = ";".join(self.predictor.classes[index] for index in tags)
        self.rows.append((self.names[sample.name], named))

    def write(self, out: Path) -> None:
        """Write ``tags.csv``."""
        _write_table(out / TAGS, ("image", "tags"), self.rows)


def write_table(
    out: Path, suggestions: Sequence[Suggestion], samples: Sequence[FileSample], classes: Sequence[str]
) -> None:
    """Write ``suggested.csv``; ``samples`` are all images, by their number."""

    def rows() -> Iterator[tuple[str, ...]]:
        for rank, each in enumerate(suggestions, start=1):
            yield (
                str(rank),
                str(samples[each.place].image_path),
                f"{each.score:.5f}",
                f"{each.unreliable:.4f}",
                f"{each.entropy:.4f}",
                ";".join(classes[index] for index in each.classes[:_CLASSES]),
                "" if each.nearest is None else str(samples[each.nearest].image_path),
            )

    _write_table(out / SUGGESTED, _HEADER, rows())


def suggested_images(folder: Path) -> list[Path]:
    """The images that ``suggested.csv`` lists. Raises InputError if it is another file, or an image is gone."""
    path = folder / SUGGESTED
    rows = read_rows(path, give="give what `u2pl suggest` wrote", delimiter=lambda head: ",")
    if not rows or "image" not in rows[0][1]:
        raise InputError(f"{path} has no column image; give what `u2pl suggest` wrote")
    column = rows[0][1].index("image")
    images = list(dict.fromkeys(Path(cells[column]).absolute() for _, cells in rows[1:] if len(cells) > column))
    if missing := next((image for image in images if not image.is_file()), None):
        raise InputError(
            f"{path} lists {missing}, which is gone; suggest anew, or run this in the folder in which you suggested"
        )
    return images


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    def write(partial_path: Path) -> None:
        # A name of a file may hold bytes that are no text.
        with partial_path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(header)
            table.writerows(rows)

    write_atomically(path, write)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
