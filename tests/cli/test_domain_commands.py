"""Two data sets on the command line: what is printed, trained and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml as yaml_file
from PIL import Image

Command = Callable[..., Any]

MAPPING = "source,target\nsky,above\nroad,ground\ncar,thing\ntree,thing\n"


@pytest.fixture(scope="module")
def target(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the data set with other classes, and training masks that nobody can read."""
    root = tmp_path_factory.mktemp("target") / "set"
    shutil.copytree(files, root)
    for path in (root / "masks").rglob("*.png"):
        mask = Image.open(path)
        Image.frombytes("L", mask.size, mask.tobytes()).point([0, 1, 2, 2] + [255] * 252).save(path)
    for path in (root / "masks" / "train").iterdir():
        path.write_bytes(b"not to be read")
    (root / "classes.txt").write_text("above\nground\nthing\n")
    (root / "mapping.csv").write_text(MAPPING)
    return root


@pytest.fixture(scope="module")
def domains(files: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file of both."""
    path = tmp_path_factory.mktemp("config") / "domains.yaml"
    data = {
        "name": "domain",
        "source": {"root": str(files), "val": "val", "mapping": "mapping.csv"},
        "target": {"root": str(target), "val": "val"},
        "workers": 0,
    }
    path.write_text(yaml_file.safe_dump({"data": data, "method": {"name": "u2pl", "schedule": {"warmup": 0.3}}}))
    return path


@pytest.fixture(scope="module")
def run(u2pl: Command, domains: Path, small: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained from one to the other at half scale, rare classes more often."""
    out = tmp_path_factory.mktemp("runs") / "run"
    overrides = ("data.target.scale=0.5", "data.source.scale=0.5", "data.rare_class_sampling=true")
    done = u2pl("train", domains, *small, *overrides, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "u2pl on domain: 4 labeled, 7 unlabeled, 2 validation images, 3 classes" in " ".join(done.out.split())
    return out


def test_check_shows_both_domains(u2pl: Command, domains: Path) -> None:
    done = u2pl("check", domains, "method.negative_keys.low_rank=1", "method.negative_keys.high_rank=3")
    assert (done.code, done.err) == (0, "")
    size = "of 72x68 to 64x80"
    told = f"images (height x width): 4 source {size}, 7 target {size}, 2 target validation {size}\n"
    assert told in done.out
    assert "source target validation class % of pixels images % of pixels images above" in " ".join(done.out.split())
    assert "ready to train" in done.out


def test_a_run_is_scored_on_the_target(u2pl: Command, run: Path, target: Path) -> None:
    done = u2pl("evaluate", run, "--json")
    assert (done.code, done.err) == (0, "")
    assert '"above"' in done.out
    assert u2pl("evaluate", run, "data.target.scale=1").code == 0
    raw = u2pl("evaluate", run, "--json", "--images", target / "images" / "val", "--masks", target / "masks" / "val")
    assert raw.out == done.out  # at the target's scale, its values mapped as the reader's
    image = next((target / "images" / "val").glob("*"))
    assert u2pl("predict", run, image, "--out", run / "masks").code == 0


def test_a_run_resumes_with_the_domains_it_began_with(u2pl: Command, run: Path) -> None:
    done = u2pl("train", run / "config.yaml", "data.target.val=null", "--out", run, "--resume")
    assert done.code == 2
    assert done.err.startswith("u2pl: data.target.val: is None now but 'val' in ")
    assert u2pl("train", run / "config.yaml", "--out", run, "--resume").code == 0


def test_source_only_and_upper_bound_are_an_override_away(
    u2pl: Command, domains: Path, files: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    alone = u2pl("train", domains, *small, "method.name=supervised", "--out", tmp_path / "source")
    assert (alone.code, alone.err) == (0, "")
    assert "supervised on domain: 4 labeled, 7 unlabeled" in " ".join(alone.out.split())
    own = (f"data.target.root={files}", "data.source.mapping=null", "data.upper_bound=true")
    upper = u2pl("train", domains, *small, *own, "method.name=supervised", "--out", tmp_path / "upper")
    assert (upper.code, upper.err) == (0, "")
    assert "supervised on domain: 4 labeled, 7 unlabeled" in " ".join(upper.out.split())
    assert "source" not in u2pl("check", domains, *own).out


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ("data.source.mapping=null",),
            ("sky, road, car, tree only in the source", "above, ground, thing only in the"),
        ),
        (("data.source.mapping=null",), ("give data.source.mapping=FILE.csv", "such as sky,above")),
        (("data.source.mapping=none.csv",), ("data.source.mapping: there is no file none.csv", "source,target")),
        (("data.source=null",), ("data.source: is needed for data.name=domain",)),
        (("data.target=null",), ("data.target: is needed",)),
        (("data.target.root=null",), ("data.target.root: is needed for data.target.name=folder",)),
        (("data.target.root=/nowhere",), ("data.target: /nowhere/images is not a folder",)),
        (("data.source.val=nowhere",), ("data.source.val: nowhere",)),
        (("data.source.labeled=99",), ("data.source.labeled: 99 images requested",)),
        (("data.target.labeled=2", "data.upper_bound=true"), ("data.target.labeled:", "leave one of the two out")),
        (("data.target.labeled=99",), ("data.target.labeled: 99 images requested, but only 4 in",)),
        (("data.target.labeled=1.5",), ("data.target.labeled: the fraction 1.5 is not in",)),
        (("data.target.labeled=few.txt",), ("data.target.labeled: there is no split file few.txt",)),
        (("data.target.mapping=x.csv",), ("unknown key data.target.mapping",)),
        (("data.target.rot=x",), ("unknown key data.target.rot", "did you mean root?")),
        (("data.source.name=domain",), ("data.source.name", "'domain'")),
        (("data.source.height=64",), ("data.source.height", "not used with data.source.name=folder")),
        (("data.scale=0.5",), ("data.scale", "not used with data.name=domain")),
        (("data.root=x",), ("data.root", "not used with data.name=domain")),
        (
            ("data.rare_class_sampling.temperature=0",),
            ("data.rare_class_sampling.temperature", "greater than or equal to 0.001"),
        ),
        (("data.name=folder", "data.root=x"), ("x/images is not a folder",)),  # nothing is left of the two domains
        (
            ("data.name=folder", "data.root=x", "data.source.root=y"),
            ("data.source", "not used with data.name=folder"),
        ),
    ],
)
def test_bad_keys(u2pl: Command, domains: Path, overrides: tuple[str, ...], words: tuple[str, ...]) -> None:
    refuse(u2pl("check", domains, *overrides), *words)


def refuse(result: Any, *words: str) -> None:
    """One line on stderr with all words, exit code 2, nothing else."""
    assert (result.code, result.out) == (2, ""), result
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("u2pl: ")
    for word in words:
        assert word in result.err


@pytest.fixture(scope="module")
def readable(target: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target with training masks that can be read."""
    root = tmp_path_factory.mktemp("readable") / "set"
    shutil.copytree(target, root)
    for path in (root / "masks" / "train").iterdir():
        mask = Image.open(files / "masks" / "train" / path.name)
        Image.frombytes("L", mask.size, mask.tobytes()).point([0, 1, 2, 2] + [255] * 252).save(path)
    return root


def test_check_shows_the_labels_of_both_domains(u2pl: Command, domains: Path, readable: Path, tmp_path: Path) -> None:
    ranks = ("method.negative_keys.low_rank=1", "method.negative_keys.high_rank=3")
    split = tmp_path / "few.txt"
    split.write_text("train/a\ntrain/c\n")
    for labeled in ("2", "0.5", split):
        done = u2pl("check", domains, f"data.target.root={readable}", f"data.target.labeled={labeled}", *ranks)
        assert (done.code, done.err) == (0, "")
        told = " ".join(done.out.split())
        for words in ("4 source labeled of", ", 2 target labeled of", ", 5 target unlabeled of", "2 target validation"):
            assert words in told
        columns = 3 * "% of pixels images "
        assert f"source labeled target labeled target validation class {columns}above" in told


@pytest.mark.parametrize("method", ["supervised", "mean_teacher", "fixmatch", "unimatch", "unimatch_v2", "u2pl"])
def test_every_method_trains_with_labels_of_both(
    u2pl: Command, domains: Path, readable: Path, small: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    own = (f"data.target.root={readable}", "data.target.labeled=2", "method.mixing.name=cross_domain")
    more = (f"method.name={method}", "method.schedule.warmup=0", "data.rare_class_sampling=true")
    done = u2pl("train", domains, *small, *own, *more, "--out", tmp_path / "run")
    assert (done.code, done.err) == (0, "")
    told = f"{method} on domain: 6 labeled (2 of the target), 5 unlabeled, 2 validation images, 3 classes"
    assert told in " ".join(done.out.split())
    assert u2pl("evaluate", tmp_path / "run").code == 0


def test_labels_of_the_target_that_cannot_be(
    u2pl: Command, domains: Path, files: Path, target: Path, readable: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    split, own = tmp_path / "few.txt", f"data.target.root={readable}"
    for lines, words in {
        "train/a\ntrain/nothing\n": ("data.target: split file", "lists 1 image (train/nothing) not found among"),
        "train/more/e\n": ("data.target: split file", "without a mask"),
        "val/v\n": ("data.target:", "1 image (val/v) in both labeled and val"),
        f"{next((files / 'images' / 'train').glob('a.*'))}\n": ("data.target.labeled: split file", "of the source"),
        "\n": ("data.target: split file", "is empty"),
    }.items():
        split.write_text(lines)
        refuse(u2pl("check", domains, own, f"data.target.labeled={split}"), *words)
    split.write_text(f"{next((readable / 'images' / 'train').glob('a.*'))}\n")
    assert u2pl("check", domains, own, f"data.target.labeled={split}", "method.name=supervised").code == 0
    bare = tmp_path / "bare"
    shutil.copytree(target, bare)
    shutil.rmtree(bare / "masks" / "train")
    told = ("data.target:", "has no labeled image; add masks")
    refuse(u2pl("check", domains, f"data.target.root={bare}", "data.target.labeled=2"), *told)
    whole = tmp_path / "whole"
    shutil.copytree(readable, whole)
    shutil.rmtree(whole / "images" / "train" / "more")
    every = (f"data.target.root={whole}", "data.target.labeled=1.0")
    done = u2pl("train", domains, *small, *every, "--out", tmp_path / "run")
    refuse(done, "there is no unlabeled image; lower data.target.labeled")
    assert not (tmp_path / "run").exists()
    assert u2pl("train", domains, *small, *every, "method.name=supervised", "--out", tmp_path / "run").code == 0


def test_bad_mappings(u2pl: Command, domains: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for text, words in {
        MAPPING.replace("car,", "cra,"): ("m.csv, line 4: 'cra' is no class of the source (did you mean car?)",),
        MAPPING.replace(",ground", ",grund"): ("m.csv, line 3: 'grund' is no class of the target", "mean ground?"),
        MAPPING.replace("source,target", "a,b"): ("m.csv has no column source and no column target",),
    }.items():
        path.write_text(text)
        refuse(u2pl("check", domains, f"data.source.mapping={path}"), *words)
    path.write_bytes(("\ufeff" + MAPPING).replace(",", ";").replace("\n", "\r\n").encode())
    assert u2pl("check", domains, f"data.source.mapping={path}").code == 0


def test_domains_that_lack_something(
    u2pl: Command, domains: Path, own_files: Path, target: Path, tmp_path: Path
) -> None:
    shutil.rmtree(own_files / "masks" / "train")
    refuse(u2pl("check", domains, f"data.source.root={own_files}"), "data.source:", "has no labeled image")
    copy = tmp_path / "copy"
    shutil.copytree(target, copy)
    shutil.rmtree(copy / "images" / "train")
    refuse(u2pl("check", domains, f"data.target.root={copy}"), "data.target: has no training image")
    shutil.rmtree(copy / "images" / "val")
    refuse(u2pl("check", domains, f"data.target.root={copy}", "data.target.val=null"), "data.target:", "no image")
    refuse(
        u2pl("check", domains, f"data.source.root={target}", "data.source.mapping=null", "data.source.val=null"),
        "in the target's validation",
    )
