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
        (("data.source.val=nowhere",), ("data.source: val: nowhere",)),
        (("data.source.labeled=99",), ("data.source: labeled: 99 images requested",)),
        (("data.target.labeled=2",), ("data.target.labeled", "data.upper_bound=true")),
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
