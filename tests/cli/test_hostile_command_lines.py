"""Hundreds of bad command lines: each ends in one line on stderr and exit code 2, and writes nothing.

Every key meets every hostile value, and every command its own. A line that trains or builds a network is not here: what
is bad is found before that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from u2pl.config.schema import all_keys

pytestmark = pytest.mark.slow
Command = Callable[..., Any]

LONG = "a" * 5000
#: Values that few keys accept. Those that one accepts end in the error of the command, which has nothing to compare.
VALUES = (
    *("0", "-1", "1e308", "1e-308", ".nan", ".inf", "-.inf", "1" + "0" * 30, "9" * 5000, "1e999", "0x", "0b_"),
    *("", "~", "null", "true", "no", "auto", "[]", "{}", "[[]]", "[1", "{a: 1}", "{1: 2}", "{a: 1, a: 2}", "[" * 200),
    *(
        LONG,
        f"[{','.join(['1'] * 2000)}]",
        "a\x1b[31mb",
        "a\nb",
        "\u202e",
        "\udcff",
        "2024-13-45",
        "&a [*a]",
        "!!set {}",
    ),
    *("/dev/zero", "/etc", "../..", "~nouser/x", "!!python/object:os.system"),
)
KEYS = [key for key, _ in all_keys()]
CANNOT_BE_MEANT = (
    *("data.scale=1e-12", "data.workers=100000", "data.train=1e9", "data.height=99999999", "data.val=100000000"),
    *("train.scale_range=[1e9,1e9]", "train.crop_size=99999999999999999999", "train.epochs=1e30", "train.lr=1e308"),
    *("train.lr=1e-300", "train.steps=1000000000000", "train.batch_size=9999999", "train.devices=99999"),
    *("train.nodes=9999999", "train.momentum=1", "train.weight_decay=1e9", "train.power=1e9", "seed=" + "9" * 5000),
    *("network.dropout=1", "network.channels=1000000", "network.embedding_dim=1000000", "network.std=[0,0,0]"),
    *("network.mean=[124,117,104]", "network.multi_grid=[]", "network.aspp_dilations=[1e9]", "network.encoder=" + LONG),
    *(
        "method.contrast.temperature=1e-30",
        "method.contrast.anchors=1000000000",
        "method.contrast.bank_size=1" + "0" * 12,
    ),
    *("method.loss_weights.unsupervised=1e308", "method.cam.scales=[1e-9]", "method.cam.refinement.iterations=100000"),
    *("method.alignment.bound=0.5", "method.supervised_loss.offset=1", "evaluation.overlap=0.9999"),
    *("evaluation.scales=[1e-9]", "evaluation.window=100000", "data.root=" + LONG, "data.root=a\x01b", 'data.root=""'),
)
SPECIAL: tuple[tuple[str, ...], ...] = (
    ("train", LONG),
    ("train", ""),
    ("train", "/dev/zero"),
    ("check", "."),
    ("check", "../.."),
    ("check", "scenes", "root=x"),
    ("check", "scenes", "=1"),
    ("check", "scenes", "."),
    ("check", "scenes", "..=1"),
    ("check", "scenes", "data.=1"),
    ("check", "scenes", ".data=1"),
    ("check", "scenes", f"{LONG}=1"),
    ("check", "scenes", f"train.{LONG}=1"),
    ("check", "folder", "data.root=~nouser/x"),
    ("check", "folder", "data.root=2024-13-45"),
    ("check", "folder", "data.root=0b_"),
    ("check", "folder", "data.root=/dev/zero"),
    *(("check", "folder", f"data.name={name}", "data.root=nowhere") for name in ("pascal_voc", "cityscapes", "gta5")),
    ("check", "domain", "data.source.mapping=/dev/zero", "data.source.name=folder", "data.source.root=x"),
    ("train", "scenes", "--out", ""),
    ("train", "scenes", "--out", "a" * 300),
    ("train", "scenes", "--out", "/dev/null/x"),
    ("train", "scenes", "--out", LONG),
    ("train", "scenes", "train.accelerator=mps"),
    ("train", "scenes", "method.contrast.anchors=65536", "method.contrast.negatives=65536"),
    ("evaluate", ""),
    ("evaluate", LONG),
    ("evaluate", "."),
    ("evaluate", "/dev/zero"),
    ("evaluate", "x.safetensors"),
    ("evaluate", "foreign.safetensors"),
    ("evaluate", "foreign.safetensors", "--weights", "best"),
    ("evaluate", "foreign.safetensors", "--images", "", "--masks", "x"),
    ("predict", "foreign.safetensors", "image.png", "--out", ""),
    ("predict", "foreign.safetensors", "image.png", "--out", "out"),
    ("predict", "foreign.safetensors", "", "--out", "out"),
    ("predict", "text.safetensors", "image.png", "--out", "out"),
    ("predict", ".", "/dev/zero", "--out", "out"),
    ("predict", "pipe.safetensors", "image.png", "--out", "out"),
    ("import-weights", ".", "--out", "x.safetensors"),
    ("import-weights", "/dev/zero", "--out", "x.safetensors"),
    ("import-weights", "pipe.safetensors", "--out", "x.safetensors"),
    ("import-weights", "text.safetensors", "--out", "x.safetensors"),
    ("import-weights", "foreign.safetensors", "--out", "foreign.safetensors"),
    ("import-weights", "foreign.safetensors", "--out", "x.safetensors"),
    ("import-weights", "foreign.safetensors", "--out", "x.txt"),
    ("import-weights", "foreign.safetensors", "--out", "x.safetensors", "--output-stride", "7"),
    ("import-weights", LONG, "--out", "x.safetensors"),
    *(
        ("import-masks", file, "--format", name, "--out", "x")
        for file in (".", "/dev/zero", "pipe.safetensors", "text.safetensors", "foreign.safetensors", LONG, "")
        for name in ("png", "coco", "cvat", "voc")
    ),
    *(("import-masks", "image.png", "--format", name, "--out", "x") for name in ("", LONG, "[")),
    *(("export-masks", run, "..", "--format", "coco", "--out", "x") for run in ("foreign.safetensors", ".", LONG)),
    *(("export-masks", ".", folder, "--format", "coco", "--out", "x") for folder in ("/dev/zero", "image.png", LONG)),
    *(("presets", name) for name in (LONG, "../..", "/etc/passwd", "", "scene")),
    *(("keys", name) for name in (LONG, "../..", "", "train.", ".", "trian")),
    *(("splits", "fetch", name) for name in ("../..", "/etc", "", LONG, "pascal/../cityscapes")),
    ("splits", "fetch", "pascal", "--url", "nowhere"),
    ("splits", "fetch", "pascal", "--url", "file:///dev/null"),
    ("splits", "fetch", "pascal", "--out", ""),
    *(("splits", "draw", "folder", "data.root=x", "--labeled", text) for text in ("5,x", "", ",", "9" * 5000, LONG)),
    ("splits", "draw", "scenes", "--labeled", "5"),
    ("splits", "draw", LONG, "--labeled", "5"),
    ("splits", "draw", "folder", "--labeled", "5", "--seed", "-1"),
    *(("demo", "--steps", steps) for steps in ("0", "-5")),
    *(("demo", "--setting", name) for name in ("x", "", LONG, "../..")),
    ("demo", "--seed", "-1"),
    ("demo", "--out", ""),
    *(("compare", "scenes", "--methods", text) for text in ("", ",", "x", LONG, "u2pl,,u2pl", "[", "../..")),
    *(
        ("compare", "scenes", "--variant", text)
        for text in ("", ":", "a", "a:", ":b=1", 'a: "', "a: b", "a=b: c=d", LONG)
    ),
    *(
        ("compare", "scenes", "--methods", "u2pl", "--labeled", text)
        for text in ("", ",", "x", "-1", "0", "1e9", "nan", "[]")
    ),
    *(
        ("compare", "scenes", "--methods", "u2pl", "--seeds", text)
        for text in ("", "-1", "x", "1.5", "9" * 5000, "9" * 25)
    ),
    ("compare", "scenes", "--methods", "u2pl", "--out", ""),
    *(
        ("ablate", "scenes", "--axis", text)
        for text in ("", "=", "x", "x=", "=1", "x=1", "train.lr=[", f"train.lr={LONG}")
    ),
    *(("ablate", "folder", "--axis", f"data.root={text}") for text in ("2024-13-45", "0b_", "*a", "9" * 5000)),
    ("ablate", "scenes"),
)
FILES = {
    "twice.yaml": b"train: {steps: 1}\ntrain: {steps: 2}\n",
    "bomb.yaml": b"a: &a [1,1]\nb: &b [*a,*a]\n",
    "date.yaml": b"data: {name: folder, root: 2024-13-45}\n",
    "tag.yaml": b"seed: !!python/object/apply:os.system [touch x]\n",
    "deep.yaml": b"[" * 50_000,
    "nul.yaml": b"seed: 1\0\n",
    "utf16.yaml": "seed: 1\n".encode("utf-16"),
    "latin.yaml": b"# caf\xe9\nseed: 1\n",
    "number.yaml": b"1: 2\n",
    "null.yaml": b"null: x\n",
    "list.yaml": b"- 1\n",
    "empty_list.yaml": b"[]\n",
    "digits.yaml": b"seed: " + b"9" * 5000,
    "base.yaml": b"base: base.yaml\n",
    "base_list.yaml": b"base: [a]\n",
    "base_device.yaml": b"base: /dev/zero.yaml\n",
    "section.yaml": b"train: 5\n",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory: odd files, and nothing that a command may add to or change."""
    folder = tmp_path_factory.mktemp("place")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.yaml")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "folder.yaml").mkdir()
    (folder / "text.safetensors").write_text("weights")
    save_file({"a": np.ones(2, np.float32)}, folder / "foreign.safetensors", metadata={"u2pl": '{"network": 1}'})
    return folder


def refused(u2pl: Command, *arguments: str) -> str | None:
    """What is wrong with the answer to a command line; None if it is one line and exit code 2."""
    try:
        answer = u2pl(*arguments)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    lines = answer.err.splitlines()
    if answer.code != 2 or len(lines) != 1 or not lines[0].startswith("u2pl: ") or len(lines[0]) > 1300:
        return f"exit code {answer.code}, {answer.err[-300:]!r}"
    return None


def tell(u2pl: Command, place: Path, monkeypatch: pytest.MonkeyPatch, lines: list[tuple[str, ...]]) -> None:
    """Fail with all command lines that are not refused, or that change the working directory."""
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    wrong = [(line, what) for line in lines if (what := refused(u2pl, *line))]
    assert not wrong, "\n".join(f"{' '.join(line)[:120]}: {what}" for line, what in wrong)
    assert sorted(path.name for path in place.iterdir()) == before


def test_every_key_with_every_value(u2pl: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [("compare", "scenes", f"{key}={value}") for key in KEYS for value in VALUES]
    assert len(lines) > 3000
    tell(u2pl, place, monkeypatch, lines)


@pytest.mark.parametrize("override", CANNOT_BE_MEANT, ids=lambda text: text[:40])
def test_values_that_cannot_be_meant_are_told_by_their_key(u2pl: Command, override: str) -> None:
    answer = u2pl("compare", "scenes", override)
    key = override.partition("=")[0]
    assert answer.code == 2
    assert answer.err.startswith((f"u2pl: {key}: should ", f"u2pl: {key}: "))
    assert len(answer.err) < 300


def test_special_lines(u2pl: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(u2pl, place, monkeypatch, list(SPECIAL))


@pytest.mark.parametrize("command", ["train", "check"])
def test_files(u2pl: Command, place: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    names = [*FILES, "pipe.yaml", "folder.yaml", "none.yaml"]
    tell(u2pl, place, monkeypatch, [(command, name) for name in names])


def test_keys_without_effect_on_a_trained_model(u2pl: Command, run_folder: Path) -> None:
    for override in ("network.encoder=resnet50", "train.steps=9", "method.name=supervised", "train.lr=1"):
        answer = u2pl("evaluate", run_folder, override)
        assert answer.code == 2
        assert f"{override.partition('=')[0]}: has no effect on a trained model" in answer.err


def test_best_weights_of_a_run_without_them(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("best.*"))
    image = files / "images" / "train" / "a.png"
    for arguments in (("evaluate", tmp_path / "run"), ("predict", tmp_path / "run", image, "--out", tmp_path / "out")):
        answer = u2pl(*arguments, "--weights", "best")
        assert answer.code == 2
        assert "has only its last weights" in answer.err
