"""The command `u2pl report`: what runs did, as one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from u2pl.build import build_source
from u2pl.commands.finished_run import FinishedRun, read_run, read_runs
from u2pl.data.fingerprint import fingerprint
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.engine.machine import make_fabric
from u2pl.errors import InputError
from u2pl.predictor import Predictor
from u2pl.report.grid import Grid
from u2pl.report.html.charts import Chart, Line
from u2pl.report.html.curves import curves
from u2pl.report.html.gallery import gallery, preview
from u2pl.report.html.kept import KEPT, keep, kept
from u2pl.report.html.measuring import Measured, measure, ranking
from u2pl.report.html.page import SIGNATURE, Page, Picture, render, require_templates
from u2pl.report.printing import progress_bar

REPORT = "report.html"
IMAGES = 200  #: of a gallery at most
SECONDS = 6.0  #: after which no further image of a gallery is predicted


def report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    images: int | None = None,
    console: Console | None = None,
) -> Path:
    """Write the report of one run, or of several, and return its path.

    Raises InputError before anything is written if a folder holds no finished run, a file of it is damaged, or ``out``
    would replace a file of others.

    Args:
        runs: run folders. The page shows the first one that is not supervised, and compares it with the others.
        out: the file; None: ``report.html`` in the folder of the run, or in the folder around several.
        images: of the gallery; None: as many as are predicted in a few seconds.
        console: prints the progress.
    """
    require_templates()
    if not runs:
        raise InputError("there is nothing to report; give a run folder")
    if images is not None and images < 1:
        raise InputError(f"--images {images}: is no number of images; give 1 or more")
    finished = read_runs(runs)
    folder = runs[0] if len(runs) == 1 else runs[0].resolve().parent
    path = out or folder / REPORT
    refuse_replacing(path)
    write_text_atomically(path, render(page_of(finished, images=images, console=console)))
    return path


def report_training(out: Path, source: DataSource, say: Callable[[str], None]) -> None:
    """Write the report of a run that has just ended. What keeps it from being written is one line, and no error."""
    try:
        refuse_replacing(out / REPORT)
        write_text_atomically(out / REPORT, render(page_of([read_run(out)], source=source, keeps=True)))
        say(f"report in {out / REPORT}")
    except Exception as error:  # a training that took days does not fail because of its report
        say(f"{REPORT} is not written: {' '.join(str(error).split()) or type(error).__name__}")


def report_comparison(
    out: Path, runs: Sequence[Path], table: Grid, say: Callable[[str], None], *, what: str = "Comparison"
) -> None:
    """Write the report of finished runs of a comparison; see :func:`report_training`."""
    try:
        refuse_replacing(out / REPORT)
        page = page_of(read_runs(runs), table=table, keeps=True)
        title = f"{what} in {out.resolve().name}; shown in detail: {page.run.name}"
        write_text_atomically(out / REPORT, render(replace(page, title=title)))
        say(f"report in {out / REPORT}")
    except Exception as error:
        say(f"{REPORT} is not written: {' '.join(str(error).split()) or type(error).__name__}")


def refuse_replacing(path: Path) -> None:
    """Raise InputError if a report would replace a file of others."""
    try:
        if path.is_dir():
            raise InputError(f"--out {path}: is a folder; give a file, such as {path / REPORT}")
        if path.exists() and SIGNATURE not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
            raise InputError(f"--out {path}: exists, and `u2pl report` did not write it; choose another --out")
    except OSError as error:
        raise InputError(f"--out {path}: cannot write there ({error.strerror})") from error
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: {path.parent} is missing; make that folder, or choose another --out")


def page_of(
    runs: Sequence[FinishedRun],
    *,
    source: DataSource | None = None,
    images: int | None = None,
    console: Console | None = None,
    table: Grid | None = None,
    keeps: bool = False,
) -> Page:
    """Everything that the report of these runs shows.

    If the validation images are gone, or are others than before, the pictures that the training kept are shown. Raises
    InputError for weights that cannot be used.

    Args:
        source: the data set of the run; None: the one of its configuration, as far as it is still there.
        table: of a comparison.
        keeps: write small pictures into the folder of the run, for a report when its images are gone.
    """
    shown = next((run for run in runs if run.method != "supervised"), runs[0])
    baseline = shown.baseline(runs)
    other = baseline or next((run for run in runs if run is not shown), None)
    since = shown.gain_since_warmup() if baseline is None else None
    other_settings = shown.not_over(runs) if baseline is None else None
    page = Page(
        title=f"Report of {shown.name}",
        run=shown.row(runs),
        runs=[run.row(runs) for run in runs] if len(runs) > 1 else (),
        gain=since if baseline is None else shown.gain_over(baseline),
        gain_over="its own warm-up, on labels only" if baseline is None else f"labels alone ({baseline.name})",
        classes=shown.classes,
        palette=shown.palette,
        other="" if other is None else other.name,
        charts=curves(shown.lines, shown.alphas()),
        confusion=shown.confusion,
        confusion_of="Counted over all validation images.",
        choices=shown.choices,
        notes=() if other_settings is None else (other_settings,),
        table=table,
    )
    try:
        samples = source or validation_of(shown)
    except InputError as error:
        return with_kept_gallery(page, shown, str(error))
    measured = predictions(shown, samples, images=images, console=console)
    if measured.unreadable and not measured.shots:
        return with_kept_gallery(page, shown, measured.unreadable[0])
    if keeps:
        keep(shown.folder / KEPT, measured)
    return with_gallery(page, measured, len(samples.val)) if samples.val else page


def with_kept_gallery(page: Page, run: FinishedRun, why: str) -> Page:
    """The page with the small pictures that the training kept; with a note if there are none."""
    try:
        measured = kept(run.folder / KEPT, len(run.classes))
    except InputError as error:
        return replace(page, notes=[*page.notes, f"There is no gallery and no calibration: {why}", str(error)])
    number = measured.images if run.areas is None else len(run.areas)
    shown = with_gallery(page, measured, number)
    return replace(shown, notes=[*page.notes, f"The pictures are small ones, kept at the end of the training: {why}"])


def validation_of(run: FinishedRun) -> DataSource:
    """The data set of a run. Raises InputError if it is gone, or its validation images are others than before."""
    config = run.config.data.model_copy(update={"pseudo_masks": None, "cache": False})
    source = build_source(config, seed=run.config.seed)
    now = fingerprint(source)
    if source.classes != run.classes or (run.data is not None and run.data["val"] != now["val"]):
        raise InputError("data: the validation images or the classes are not those that the run had")
    return source


def predictions(run: FinishedRun, source: DataSource, *, images: int | None, console: Console | None) -> Measured:
    """Predictions of validation images, evenly spread from the worst to the best."""
    device = make_fabric(accelerator="auto", devices=1, nodes=1, precision="fp32").device
    trained = Predictor.from_run(run.folder, device=device)
    predictor = Predictor(  # samples are already scaled
        trained.network, classes=trained.classes, palette=trained.palette, inference=trained.inference
    )
    ranked = list(range(len(source.val)))
    if run.areas is not None and len(run.areas) == len(source.val):
        ranked = ranking(run.areas)
    with progress_bar(console or Console(quiet=True), transient=True) as bar:
        task = bar.add_task("predicting", total=None)
        return measure(
            predictor,
            source.val,
            ranked,
            most=IMAGES if images is None else images,
            seconds=SECONDS if images is None else float("inf"),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def with_gallery(page: Page, measured: Measured, number: int) -> Page:
    """The page with what predictions show. ``number`` is that of all validation images."""
    shots, notes = measured.shots, [*page.notes]
    if measured.unreadable:
        notes.append(f"Images that cannot be read: {len(measured.unreadable)}. The first: {measured.unreadable[0]}")
    part = f"{len(shots)} of {number} validation images, evenly spread from the worst to the best."
    told = part if len(shots) < number else f"All {number} validation images."
    three = {0: "worst", len(shots) // 2: "middle", len(shots) - 1: "best"}
    chart = Chart(
        "accuracy by confidence",
        (Line("measured", [(sure, right) for sure, right, _ in measured.calibration.points()]),),
        "accuracy",
        "confidence",
        note=f"Pixels of {measured.images} validation images.",
        square=True,
    )
    return replace(
        page,
        pictures=[
            Picture(
                preview(shots[place], page.palette), f"{kind}: {shots[place].name}, {shots[place].score:.1f} % mIoU"
            )
            for place, kind in three.items()
        ],
        confusion=measured.confusion if page.confusion is None else page.confusion,
        confusion_of=page.confusion_of if page.confusion is not None else f"Counted over {measured.images} images.",
        calibration=chart if chart.lines[0].points else None,
        calibration_error=measured.calibration.error(),
        gallery=gallery(shots, page.palette),
        gallery_of=told,
        notes=notes,
    )
