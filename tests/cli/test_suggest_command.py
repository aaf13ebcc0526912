"""Which images to label next, from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from spread_runs import masks_in, spread_run

from u2pl.labelling.looking import LookingPredictor
from u2pl.predictor import Predictor

Command = Callable[..., Any]
NAMES = {f"train/more/{name}" for name in "efg"}


def table(out: Path) -> list[dict[str, str]]:
    with (out / "suggested.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def order(out: Path) -> list[str]:
    return [row["image"] for row in table(out)]


def drafts(out: Path) -> dict[str, np.ndarray]:
    return masks_in(out / "drafts")


@pytest.fixture(scope="module")
def model(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights differ enough between classes that it is unsure of some pixels only; not to be written to."""
    return spread_run(run_folder, tmp_path_factory.mktemp("models") / "run", std=30.0)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images; two of the same name in different folders, and one twice. Not to be written to."""
    root, random = tmp_path_factory.mktemp("pool") / "pool", np.random.default_rng(1)
    for number, name in enumerate(("a/1", "a/2", "b/1", "b/deep er/4", "5", "6", "7")):
        height, width = (48, 64) if number % 2 else (60, 44)
        coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = root / f"{name}.{'jpg' if number == 3 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    shutil.copy(root / "6.png", root / "twin of 6.png")
    return root


def suggested(u2pl: Command, *arguments: Any) -> Any:
    done = u2pl("suggest", *arguments)
    assert (done.code, done.err) == (0, "")
    return done


def test_the_unlabeled_images_of_the_run(u2pl: Command, model: Path, files: Path, tmp_path: Path) -> None:
    done = suggested(u2pl, model, "--count", 2, "--out", tmp_path / "out")
    assert re.search(r"looked at 7 images \(\d+\.\d images/s\)", done.out)  # three unlabeled and four labeled ones
    assert f"2 of 3 images, ranked, in {tmp_path / 'out' / 'suggested.csv'}" in done.out
    rows = table(tmp_path / "out")
    assert [row["rank"] for row in rows] == ["1", "2"]
    found = {
        path.with_suffix("").relative_to(files / "images").as_posix() for path in map(Path, order(tmp_path / "out"))
    }
    assert found < NAMES
    assert set(drafts(tmp_path / "out")) == found
    labeled = {str(path) for path in (files / "images" / "train").iterdir() if path.is_file()}
    assert rows[0]["nearest"] in labeled
    assert rows[1]["nearest"] in labeled | {rows[0]["image"]}
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == sorted(
        ("suggested.csv", "contact_sheet.png", "drafts", "looks.bin", "looks.json")
    )
    assert not list((tmp_path / "out").rglob(".*.partial"))


def test_all_images_of_a_folder_with_their_drafts(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = suggested(u2pl, model, "--images", pool, "--out", out)
    assert "--count 20: there are 8 unlabeled images; all are ranked" in done.out
    rows = table(out)
    assert {Path(row["image"]) for row in rows} == set(pool.rglob("*.*g"))
    found = drafts(out)
    assert set(found) == {"a/1", "a/2", "b/1", "b/deep er/4", "5", "6", "7", "twin of 6"}
    predictor, unsure, pixels = Predictor.from_run(model), 0, 0
    for row in rows:
        path = Path(row["image"])
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        prediction, draft = predictor(image), found[path.relative_to(pool).with_suffix("").as_posix()]
        assert draft.shape == tuple(image.shape[-2:])  # though the run halves its images
        sure = draft != 255
        assert (draft == prediction.mask.numpy())[sure].mean() > 0.99
        assert float(row["unreliable"]) == pytest.approx(1 - sure.mean(), abs=0.01)
        assert float(row["entropy"]) == pytest.approx(float(prediction.entropy.mean()), abs=1e-3)
        if 0 < sure.mean() < 1:
            entropy = prediction.entropy.numpy()
            assert entropy[sure].max() < entropy[~sure].min() + 1e-3
        shares = {name: float((prediction.mask == n).float().mean()) for n, name in enumerate(predictor.classes)}
        assert set(row["classes"].split(";")) == {name for name, share in shares.items() if share >= 0.01}
        unsure, pixels = unsure + (1 - sure.mean()), pixels + 1
    assert 0.05 < unsure / pixels <= 0.2  # alpha of the run
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (5 * 262 - 6, 2 * 80 - 6)


@pytest.mark.parametrize("strategy", ["typical", "expected", "diverse", "entropy", "random"])
def test_a_command_again_writes_the_same(u2pl: Command, model: Path, pool: Path, tmp_path: Path, strategy: str) -> None:
    arguments = (model, "--images", pool, "--count", 3, "--strategy", strategy, "--seed", 4)
    suggested(u2pl, *arguments, "--out", tmp_path / "a")
    suggested(u2pl, *arguments, "--out", tmp_path / "b")
    again = suggested(u2pl, *arguments, "--out", tmp_path / "a")
    assert "images are known from an earlier call" in again.out
    assert "looked at" not in again.out
    written = [{path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.*g")} for n in "ab"]
    assert written[0] == written[1]
    assert (tmp_path / "a/suggested.csv").read_bytes() == (tmp_path / "b/suggested.csv").read_bytes()
    assert len(drafts(tmp_path / "a")) == 3


def test_strategies_differ_and_earlier_drafts_go(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    orders = {}
    for strategy in ("typical", "expected", "diverse", "entropy", "random"):
        suggested(u2pl, model, "--images", pool, "--count", 4, "--strategy", strategy, "--out", tmp_path)
        orders[strategy] = tuple(order(tmp_path))
        names = {Path(path).relative_to(pool).with_suffix("").as_posix() for path in orders[strategy]}
        assert set(drafts(tmp_path)) == names
    assert len(set(orders.values())) == 5
    entropies = [float(row["entropy"]) for row in table(tmp_path)]
    suggested(u2pl, model, "--images", pool, "--count", 8, "--strategy", "entropy", "--out", tmp_path)
    entropies = [float(row["entropy"]) for row in table(tmp_path)]
    assert entropies == sorted(entropies, reverse=True)
    first = set(orders["random"])
    suggested(u2pl, model, "--images", pool, "--count", 4, "--strategy", "random", "--seed", 1, "--out", tmp_path)
    assert set(order(tmp_path)) != first


@pytest.mark.parametrize("strategy", ["typical", "diverse"])
def test_a_twin_comes_last(u2pl: Command, model: Path, pool: Path, tmp_path: Path, strategy: str) -> None:
    suggested(u2pl, model, "--images", pool, "--strategy", strategy, "--out", tmp_path)
    last = table(tmp_path)[-1]
    twins = {str(pool / "6.png"), str(pool / "twin of 6.png")}
    assert {last["image"], last["nearest"]} == twins
    assert float(last["score"]) == 0


def test_labeled_images_and_masks_are_left_out(u2pl: Command, model: Path, files: Path, tmp_path: Path) -> None:
    done = suggested(u2pl, model, "--images", files, "--out", tmp_path / "out")
    assert "12 of 15 images are labeled already, or are masks: they are left out" in done.out
    assert set(drafts(tmp_path / "out")) == {f"images/{name}" for name in NAMES}
    os.symlink(files / "images", tmp_path / "linked")
    suggested(u2pl, model, "--images", tmp_path / "linked", "--out", tmp_path / "other")
    assert set(drafts(tmp_path / "other")) == NAMES


def test_weights_alone_and_a_run_without_its_data(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    suggested(u2pl, model, "--images", pool, "--strategy", "entropy", "--out", whole)
    alone = suggested(
        u2pl, model / "last.safetensors", "--images", pool, "--strategy", "entropy", "--out", tmp_path / "w"
    )
    assert "does not say which images are labeled: none is left out" in alone.out
    assert order(whole) == order(tmp_path / "w")
    assert table(tmp_path / "w")[0]["nearest"] == ""
    run = copied(model, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"root: .*", "root: nowhere", text))
    lost = suggested(u2pl, run, "--images", pool, "--strategy", "entropy", "--out", tmp_path / "lost")
    assert "cannot be read" in lost.out
    assert "no labeled image is left out" in lost.out
    assert order(whole) == order(tmp_path / "lost")


def test_the_run_decides_what_is_unreliable(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    run = copied(model, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("alpha: 0.2", "alpha: 0.6"))
    shares = []
    for number, each in enumerate((model, run)):
        suggested(u2pl, each, "--images", pool, "--out", tmp_path / str(number))
        shares.append(np.mean([float(row["unreliable"]) for row in table(tmp_path / str(number))]))
    assert shares[0] <= 0.2
    assert 0.45 < shares[1] <= 0.6


def test_unreadable_images_are_listed(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "pool"
    shutil.copytree(pool, spoilt)
    (spoilt / "a/2.png").write_bytes((spoilt / "a/2.png").read_bytes()[:300])
    (spoilt / "5.png").write_text("none")
    done = u2pl("suggest", model, "--images", spoilt, "--out", tmp_path / "out")
    assert done.code == 1
    assert [re.findall(r"pool/(\S+)", line)[0] for line in done.err.splitlines()] == ["5.png", "a/2.png"]
    assert len(table(tmp_path / "out")) == 6
    again = u2pl("suggest", model, "--images", spoilt, "--out", tmp_path / "out")
    assert (again.code, again.err) == (1, done.err)
    for path in spoilt.rglob("*.*g"):
        path.write_text("none")
    done = refused(u2pl, model / "last.safetensors", "--images", spoilt, "--out", tmp_path / "other")
    assert "no unlabeled image can be read; the first: " in done
    assert not (tmp_path / "other").exists()


def test_tags_are_what_data_tags_reads(u2pl: Command, model: Path, files: Path, yaml: Path, tmp_path: Path) -> None:
    suggested(u2pl, model, "--tags", "--out", tmp_path / "own")
    suggested(u2pl, model, "--tags", "--images", files / "images", "--out", tmp_path / "given")
    for out in ("own", "given"):
        rows = list(csv.DictReader((tmp_path / out / "tags.csv").open()))
        classes = {Path(row["image"]).with_suffix("").as_posix(): row["classes"] for row in table(tmp_path / out)}
        assert {Path(row["image"]).with_suffix("").as_posix() for row in rows} == NAMES
        for row in rows:
            path = next(each for each in classes if each.endswith(Path(row["image"]).with_suffix("").as_posix()))
            assert set(row["tags"].split(";")) == set(classes[path].split(";"))
        done = u2pl(
            "check", yaml, f"data.root={files}", "method.name=weak_u2pl", f"data.tags={tmp_path / out / 'tags.csv'}"
        )
        assert (done.code, done.err) == (0, "")
    corrected = (tmp_path / "own" / "tags.csv").read_text() + "x"
    (tmp_path / "own" / "tags.csv").write_text(corrected)
    assert "tags.csv exists, perhaps corrected by hand" in refused(u2pl, model, "--tags", "--out", tmp_path / "own")
    suggested(u2pl, model, "--out", tmp_path / "own")
    assert (tmp_path / "own" / "tags.csv").read_text() == corrected


def test_names_of_every_kind(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for number, name in enumerate((b'a "b", c\xff.png', b"e\x1b[31m.png", "v :car: 🚗.png".encode())):
        shutil.copy(sorted(pool.glob("*.png"))[number], os.path.join(os.fsencode(odd), name))
    done = suggested(u2pl, model, "--images", odd, "--tags", "--out", tmp_path / "out")
    assert "\x1b" not in done.out
    assert {os.fsencode(name) for name in order(tmp_path / "out")} == {
        os.path.join(os.fsencode(odd), name) for name in os.listdir(os.fsencode(odd))
    }


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def refused(u2pl: Command, *arguments: Any) -> str:
    """The one line that a command is refused with."""
    done = u2pl("suggest", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "Traceback" not in done.err
    return str(done.err)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--count", "0"), "--count 0: should be at least 1"),
        (("--count", "-3"), "--count -3: should be at least 1"),
        (("--seed", str(2**63)), "--seed 9223372036854775808: should be 0 to"),
        (("--strategy", "best"), "--strategy 'best': should be one of typical, expected, diverse, entropy, random"),
        (("--weights", "first"), "--weights first: should be last or best"),
        (("--precision", "fp8"), "--precision fp8"),
        (("--images", "nowhere"), "--images nowhere: is missing; give a folder of images"),
        (("--images", __file__), "is a file; give a folder of images"),
        (("--images", ""), "--images: the path is empty"),
    ],
)
def test_bad_input(u2pl: Command, model: Path, tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    assert says in refused(u2pl, model, *options, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_a_candidate(u2pl: Command, model: Path, files: Path, tmp_path: Path) -> None:
    out, empty = ("--out", tmp_path / "out"), tmp_path / "empty"
    empty.mkdir()
    assert "holds no image (known: .jpg" in refused(u2pl, model, "--images", empty, *out)
    assert "holds no unlabeled image to suggest from" in refused(u2pl, model, "--images", files / "images/val", *out)
    for name in ("x.png", "x.jpg"):
        shutil.copy(files / "images/train/more/e.png", empty / name)
    assert "have the same name without the suffix; rename one" in refused(u2pl, model, "--images", empty, *out)
    run = copied(model, tmp_path / "run")
    shutil.copytree(files, tmp_path / "set")
    shutil.rmtree(tmp_path / "set/images/train/more")
    text = (run / "config.yaml").read_text().replace(str(files), str(tmp_path / "set"))
    (run / "config.yaml").write_text(text)
    assert "its data have no unlabeled image to suggest from" in refused(u2pl, run, *out)
    assert "names no images; give --images DIR" in refused(u2pl, model / "last.safetensors", *out)
    assert not (tmp_path / "out").exists()


def test_a_run_that_cannot_be_used(u2pl: Command, model: Path, files: Path, pool: Path, tmp_path: Path) -> None:
    rest = ("--images", pool, "--out", tmp_path / "out")
    assert "is no run folder: config.yaml is missing" in refused(u2pl, files, *rest)
    assert "is no run folder: config.yaml is missing" in refused(u2pl, tmp_path / "nowhere", *rest)
    assert "is missing; give a .safetensors file" in refused(u2pl, tmp_path / "no.safetensors", *rest)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    assert "holds no trained network of u2pl" in refused(u2pl, foreign, *rest)
    run = copied(model, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  steps: 3\n", "  steps: 9\n"))
    assert "is not finished: 3 of 9 steps are done" in refused(u2pl, run, *rest)
    (run / "config.yaml").write_text("name: other\n")
    assert "unknown key name" in refused(u2pl, run, *rest)
    (run / "config.yaml").write_text(text)
    weights = run / "last.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "last.safetensors holds no trained network" in refused(u2pl, run, *rest)
    weights.unlink()
    assert "has no last.safetensors" in refused(u2pl, run, *rest)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_taken(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    options = (model, "--images", pool, "--count", 2)
    run = copied(model, tmp_path / "run")
    assert "which `u2pl suggest` did not write; choose another" in refused(u2pl, *options, "--out", run)
    (tmp_path / "file").write_text("")
    assert "is a file; give a folder" in refused(u2pl, *options, "--out", tmp_path / "file")
    out = tmp_path / "out"
    suggested(u2pl, *options, "--out", out)
    draft = next((out / "drafts").rglob("*.png"))
    Image.open(draft).convert("L").save(draft)  # as an editor saves it
    edited = draft.read_bytes()
    assert "has been edited and would be replaced" in refused(u2pl, *options, "--out", out)
    assert draft.read_bytes() == edited


def test_images_around_the_output_folder(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    around = tmp_path / "pool"
    shutil.copytree(pool, around)
    for _ in range(2):
        suggested(u2pl, model, "--images", around, "--out", around / "out")
        assert len(table(around / "out")) == 8


ENDED = """
import os, sys
number, at = int(sys.argv.pop(1)), int(sys.argv.pop(1))
from u2pl.labelling import looks
add, count = looks.Looks.add, 0
def adding(self, place, look):
    global count
    add(self, place, look)
    count += 1
    if count == at:
        with self.path.open("ab") as file:
            file.write(b"half a record")
        os.kill(os.getpid(), number)
looks.Looks.add = adding
from u2pl.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_its_end_it_goes_on(u2pl: Command, model: Path, pool: Path, tmp_path: Path, number: int) -> None:
    command = [
        sys.executable,
        "-c",
        ENDED,
        int(number),
        5,
        "suggest",
        model,
        "--images",
        pool,
        "--out",
        tmp_path / "parts",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if number == signal.SIGINT:
        assert done.returncode == 130
        assert done.stderr == f"u2pl: stopped by SIGINT; to go on: u2pl {' '.join(map(str, command[5:]))}\n"
    else:
        assert done.returncode == -number
    assert not (tmp_path / "parts" / "suggested.csv").exists()
    again = suggested(u2pl, model, "--images", pool, "--out", tmp_path / "parts")
    assert "5 of 12 images are known from an earlier call" in again.out
    assert "looked at 7 images" in again.out
    suggested(u2pl, model, "--images", pool, "--out", tmp_path / "whole")
    assert order(tmp_path / "parts") == order(tmp_path / "whole")
    assert drafts(tmp_path / "parts").keys() == drafts(tmp_path / "whole").keys()


def test_changed_images_are_looked_at_again(u2pl: Command, model: Path, pool: Path, tmp_path: Path) -> None:
    own = copied(pool, tmp_path / "pool")
    suggested(u2pl, model, "--images", own, "--out", tmp_path / "out")
    shutil.copy(own / "7.png", own / "5.png")
    again = suggested(u2pl, model, "--images", own, "--out", tmp_path / "out")
    assert "looked at 12 images" in again.out
    about = json.loads((tmp_path / "out" / "looks.json").read_text())
    assert about["classes"] == 4


def test_no_masks_are_kept(u2pl: Command, model: Path, pool: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """While images are looked at, nothing of the size of an image lives longer than the image's turn."""
    import gc

    sizes = {48 * 64, 60 * 44}
    most = []
    looks_of = LookingPredictor.looks_of

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        for pair in looks_of(self, *arguments, **options):
            large = [
                each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape[-2:].numel() in sizes
            ]
            most.append(sum(each.numel() for each in large if each.dim() >= 2 and each.dtype != torch.uint8))
            yield pair

    monkeypatch.setattr(LookingPredictor, "looks_of", watched)
    suggested(u2pl, model, "--images", pool, "--out", tmp_path)
    assert len(most) == 12
    assert max(most) <= 2 * 4 * max(sizes)  # the scores of the image in work, at most
