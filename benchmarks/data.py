"""The input pipeline: crops per second and core, from files to the batch that a method gets.

    python benchmarks/data.py --root /data/camvid [--against COMMIT] [--workers 1]

Reads photographs of ``ROOT/images/train`` with masks in ``ROOT/masks/train``, as they are, and enlarged as JPEGs that
the benchmark makes. "cpu" counts the time of all processes, "wall" the time that passes. The conversion to float and
the jitter that follow the loader are part of it. ``--against`` measures another commit in turn with this one, and
prints how many times as fast this one is per core.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from u2pl.data.batches import Batches
from u2pl.data.files import FileSample, cached
from u2pl.data.loading import loader
from u2pl.data.source import DataSource
from u2pl.data.transforms import LabeledTransform, UnlabeledTransform

HERE = Path(__file__).resolve()
SIZES = (160, 352, 513)
BATCH, IMAGES, LARGE = 8, 24, (2048, 1536)
CLASSES = 11


def enlarged(samples: list[FileSample], folder: Path) -> list[FileSample]:
    """The same photographs as JPEGs of 2048x1536, as cameras make them."""
    made = []
    for sample in samples:
        image, mask = folder / f"{sample.name}.jpg", folder / f"{sample.name}.png"
        if not mask.exists():
            assert sample.mask_path is not None
            Image.open(sample.image_path).resize(LARGE, Image.Resampling.BICUBIC).save(image, quality=92)
            Image.open(sample.mask_path).resize(LARGE, Image.Resampling.NEAREST).save(mask)
        made.append(FileSample(sample.name, image, mask, CLASSES))
    return made


def photographs(root: Path) -> list[FileSample]:
    """Evenly spread images of a folder data set."""
    paths = sorted((root / "images" / "train").glob("*.jpg"))
    if not paths:
        raise SystemExit(f"--root: there is no image in {root / 'images' / 'train'}")
    masks = root / "masks" / "train"
    spread = paths[:: max(1, len(paths) // IMAGES)][:IMAGES]
    return [FileSample(path.stem, path, masks / f"{path.stem}.png", CLASSES) for path in spread]


def conversion() -> Callable[[Any], Any]:
    """What follows the loader, on the device; nothing in commits whose loader makes floats."""
    try:
        return importlib.import_module("u2pl.pixels.views").views_of
    except ImportError:
        return lambda batch: batch


def batches_of(samples: list[FileSample], *, kept: bool, crop: int, jitter: bool, unlabeled: bool) -> Batches:
    """Half of the images are labeled."""
    half = len(samples) // 2
    source = DataSource(tuple(map(str, range(CLASSES))), samples[:half], samples[half:], [])
    source = cached(source) if kept else source
    if kept:  # read every image once
        for sample in (*source.labeled, *source.unlabeled):
            sample.image()
        for sample in source.labeled:
            sample.mask()
    return Batches(
        labeled=source.labeled,
        unlabeled=source.unlabeled if unlabeled else None,
        labeled_transform=LabeledTransform(crop_size=crop, jitter=jitter),
        unlabeled_transform=UnlabeledTransform(crop_size=crop, photometric=jitter),
        batch_size=BATCH,
        steps=10**6,
        seed=0,
    )


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    use = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in use)


def measure(batches: Batches, *, seconds: float, workers: int) -> tuple[float, float]:
    """Crops per second of all processes' time, and per second that passes."""
    convert = conversion()
    convert(batches[0])  # warm
    crops = BATCH * (1 if batches.unlabeled is None else 2)
    began, used, done = time.perf_counter(), cpu_seconds(), 0
    items = loader(batches, start=1, workers=workers)
    for item in items:
        convert(item)
        done += 1
        passed = time.perf_counter() - began
        if passed >= seconds:
            break
    del item, items  # ends the loader processes, so that their time counts
    return done * crops / (cpu_seconds() - used), done * crops / passed


def measure_all(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A line for each case."""
    torch.set_num_threads(arguments.threads)
    small = photographs(arguments.root)
    kinds = {"camvid": small, "large": enlarged(small[:8], arguments.made)}
    switches = itertools.product(kinds, SIZES, (True, False), (True, False), (True, False))
    for kind, crop, kept, unlabeled, jitter in switches:
        name = (kind, str(crop), *named(cached=kept, semi=unlabeled, jitter=jitter))
        if arguments.only and not set(arguments.only) <= set(name):
            continue
        batches = batches_of(kinds[kind], kept=kept, crop=crop, jitter=jitter, unlabeled=unlabeled)
        cpu, wall = measure(batches, seconds=arguments.seconds, workers=arguments.workers)
        yield {"case": " ".join(name), "cpu": cpu, "wall": wall}


def named(*, cached: bool, semi: bool, jitter: bool) -> tuple[str, str, str]:
    return "cached" if cached else "decoded", "semi" if semi else "supervised", "jitter" if jitter else "plain"


def run(arguments: argparse.Namespace, source: Path, made: Path) -> dict[str, dict[str, float]]:
    """All cases in a process of its own, with the package in ``source``."""
    command = [sys.executable, str(HERE), "--lines", "--root", str(arguments.root), "--made", str(made)]
    command += ["--seconds", str(arguments.seconds), "--workers", str(arguments.workers)]
    command += ["--threads", str(arguments.threads), *(f"--only={word}" for word in arguments.only)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """The source folder of another commit."""
    git = ["git", "-C", str(HERE.parents[1]), "worktree"]
    subprocess.run([*git, "add", "--detach", str(folder), commit], check=True, capture_output=True)
    try:
        yield folder / "src"
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(arguments: argparse.Namespace) -> None:
    with TemporaryDirectory() as made, worktree(arguments.against, Path(made) / "other") as other:
        sources = {"now": HERE.parents[1] / "src", "before": other}
        found: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in sources}
        for _ in range(arguments.repeats):
            for name, source in sources.items():
                found[name].append(run(arguments, source, Path(made)))
    print(f"{'crops per second and core':40}{'before':>9}{'now':>9}{'ratio':>8}")
    for case in found["now"][0]:
        now, before = (statistics.median(one[case]["cpu"] for one in found[name]) for name in ("now", "before"))
        print(f"{case:40}{before:9.0f}{now:9.0f}{now / before:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("U2PL_TEST_DATA")
    parser.add_argument("--root", type=Path, default=Path(data) / "camvid" if data else None, required=not data)
    parser.add_argument("--against", metavar="COMMIT")
    parser.add_argument("--only", action="append", default=[], help="a word of the cases to measure, such as 352")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case")
    parser.add_argument("--repeats", type=int, default=3, help="with --against")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--made", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--lines", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments)
        return
    with TemporaryDirectory() as made:
        arguments.made = arguments.made or Path(made)
        if not arguments.lines:
            print(f"{'crops per second':40}{'cpu':>9}{'wall':>9}")
        for line in measure_all(arguments):
            text = json.dumps(line) if arguments.lines else f"{line['case']:40}{line['cpu']:9.0f}{line['wall']:9.0f}"
            print(text, flush=True)


if __name__ == "__main__":
    main()
