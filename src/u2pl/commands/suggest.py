"""The command `u2pl suggest`: unlabeled images -> which of them to label next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.commands.candidates import Candidates, candidates, config_of
from u2pl.commands.distill import require_finished
from u2pl.commands.predict import allow_pixels
from u2pl.commands.pseudo_masks import weights_digest
from u2pl.commands.run_folder import claimed
from u2pl.commands.segmenting import memory_for, read_ahead
from u2pl.commands.suggestions import ProposedTags, Sheet, refuse_other_files, write_drafts, write_table
from u2pl.config.schema import LARGEST_SEED, Config
from u2pl.data.files import FileSample
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError, quoted
from u2pl.labelling.looking import Draft, LookingPredictor
from u2pl.labelling.looks import Looks
from u2pl.labelling.strategies import STRATEGIES, Ranking, rank
from u2pl.report.printing import print_line

_ALPHA = 0.2  # as in U2PL, for a file of weights
_FORMAT = 1  # of what a look is; a new number drops the looks of earlier versions


@dataclass
class Suggested:
    """What one command suggests."""

    ranking: Ranking
    paths: list[Path]  #: of the suggested images, the most useful first
    images: int  #: that were ranked
    failed: list[str] = field(default_factory=list)  #: why other images were not, one line each


def suggest(
    run: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    images: Path | None = None,
    count: int = 20,
    strategy: str = "typical",
    seed: int = 0,
    tags: bool = False,
    weights: str = "last",
    precision: str = "fp32",
    device: str | torch.device | None = None,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    say: Callable[[str], None] = print_line,
) -> Suggested:
    """Rank unlabeled images by how much their labels are expected to help, and write drafts of the first ``count``.

    An image gets a high rank if it resembles many images that resemble neither a labeled one nor one of higher rank;
    other values of ``strategy`` have other reasons, see :data:`u2pl.labelling.strategies.Strategy`. The network sees
    each image once, and suggested ones again for their drafts. ``out/looks.bin`` keeps about two thousand numbers of an
    image: a command that was stopped goes on, and one with another ``count`` or ``strategy`` only ranks anew.

    ``out`` gets ``suggested.csv``, ``contact_sheet.png`` with the first hundred, masks in ``drafts`` (class indices;
    255 where the model is unsure) and, with ``tags``, ``tags.csv`` in the format of `data.tags`.

    Args:
        run: a finished run folder, or a file of weights.
        overrides: keys such as ``evaluation.flip=true`` or ``data.value_range=[0,4095]``.
        images: a folder of images; None: the unlabeled images of the run's data. Labeled ones are left out.
        strategy: one of ``STRATEGIES``.
        seed: decides between equal images, and draws those of ``random``.
        weights: ``last`` or ``best``, of a run folder.
        precision: of the network: fp32, bf16 or auto.
        device: None: the GPU if there is one.
        progress: called with what is done, and (images done, images to do), first with 0.

    Raises InputError, before anything is written, for what cannot be used.
    """
    if count < 1:
        raise InputError(f"--count {count}: should be at least 1")
    if strategy not in STRATEGIES:
        raise InputError(f"--strategy {quoted(strategy)}: should be one of {', '.join(STRATEGIES)}")
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"--seed {quoted(seed)}: should be 0 to {LARGEST_SEED}")
    refuse_other_files(out, tags=tags)
    config = config_of(run)
    if config is not None:
        require_finished(run)
    allow_pixels(None)
    if device is None:
        device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
    predictor = LookingPredictor.load(run, weights=weights, device=device, overrides=overrides, precision=precision)
    found = candidates(run, config, images, out, classes=predictor.classes, reader=predictor.reader, say=say)
    samples = [*found.unlabeled, *found.labeled]
    failed: list[str] = []
    with claimed(out, does="writes"):
        file = run if config is None else run / f"{weights}{WEIGHTS_SUFFIX}"
        looks = Looks(out, _about(file, predictor, samples), len(samples))
        look(predictor, samples, looks, failed=failed, progress=progress, say=say)
        readable = [place for place in looks.places if place < len(found.unlabeled)]
        if not readable:
            raise InputError(f"no unlabeled image can be read; the first: {failed[0]}")
        if count > len(readable):
            say(f"--count {count}: there are {len(readable)} unlabeled images; all are ranked")
        ranking = rank(
            looks,
            count,
            labeled=range(len(found.unlabeled), len(samples)),
            strategy=strategy,
            alpha=_alpha(config),
            seed=seed,
        )
        _write(predictor, out, ranking, samples, found, tags=tags, progress=progress)
    paths = [samples[each.place].image_path for each in ranking.suggestions]
    return Suggested(ranking, paths, len(readable), failed)


def look(
    predictor: LookingPredictor,
    samples: Sequence[FileSample],
    looks: Looks,
    *,
    failed: list[str],
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
    say: Callable[[str], None] = print_line,
) -> None:
    """Look at each sample that has no look yet. ``failed`` gets the errors of those that cannot be read."""
    done = set(looks.places)
    waiting = [place for place in range(len(samples)) if place not in done]
    if done:
        say(f"{len(done)} of {len(samples)} images are known from an earlier call")
    numbers = {id(samples[place]): place for place in waiting}
    count, began = 0, perf_counter()

    def step() -> None:
        nonlocal count
        count += 1
        progress("looking at images", count, len(waiting))

    def fail(error: InputError) -> None:
        failed.append(str(error))
        step()

    progress("looking at images", 0, len(waiting))
    with closing(read_ahead([samples[place] for place in waiting], failed=fail)) as images:
        found = predictor.looks_of(images, itemgetter(1), during=memory_for)
        with closing(found):
            for (sample, _), seen in found:
                looks.add(numbers[id(sample)], seen)
                step()
    if waiting:
        say(f"looked at {len(waiting)} images ({len(waiting) / (perf_counter() - began):.1f} images/s)")


def _write(
    predictor: LookingPredictor,
    out: Path,
    ranking: Ranking,
    samples: Sequence[FileSample],
    found: Candidates,
    *,
    tags: bool,
    progress: Callable[[str, int, int], None],
) -> None:
    """The files in ``out``; the table last, as a sign that all are there."""
    chosen = [samples[each.place] for each in ranking.suggestions]
    shown = {sample.name: each.classes for sample, each in zip(chosen, ranking.suggestions, strict=True)}
    sheet, proposed = Sheet(predictor), ProposedTags(predictor, shown, found.tag_names)

    def seen(sample: FileSample, draft: Draft) -> None:
        sheet.add(sample, draft)
        if tags:
            proposed.add(sample, draft)

    def drafted(done: int, total: int) -> None:
        progress("drafting masks", done, total)

    write_drafts(predictor, chosen, out, gamma=ranking.gamma, progress=drafted, seen=seen)
    sheet.write(out)
    if tags:
        proposed.write(out)
    write_table(out, ranking.suggestions, samples, predictor.classes)


def _about(weights: Path, predictor: LookingPredictor, samples: Sequence[FileSample]) -> dict[str, Any]:
    """What looks depend on: the weights, and the files of the images."""
    files = hashlib.sha256()
    for sample in samples:
        try:
            state = sample.image_path.stat()
            version = f"{state.st_size} {state.st_mtime_ns}"
        except OSError:
            version = "none"
        files.update(f"{sample.image_path.absolute()}\0{version}\0".encode(errors="surrogateescape"))
    return {
        "format": _FORMAT,
        "weights": weights_digest(weights),
        "precision": predictor.precision,
        "evaluation": repr(predictor.evaluation),
        "reader": repr(predictor.reader),
        "images": files.hexdigest(),
    }


def _alpha(config: Config | None) -> float:
    """The share of unreliable pixels with which the run began."""
    alpha = None if config is None else config.method.reliability.alpha
    return alpha if isinstance(alpha, float) else _ALPHA
