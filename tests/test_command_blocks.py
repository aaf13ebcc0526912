"""What a page tells you to type is true: each command block is parsed, and run unless a mark says why not.

A mark is a comment that readers do not see, just above the block: ``<!-- not run: needs Cityscapes -->``.

The blocks of a page run one after another in a folder with the data that the page assumes, made small from the real
data sets (``pages_data.py``). Trainings are cut short: ``u2pl train``, ``distill`` and ``assess`` get the keys
``SHORT``, ``assess`` also ``--folds 2``, ``u2pl demo`` gets ``--steps 4``, and ``u2pl compare`` and ``ablate`` get
``--dry-run``. Blocks of Python get ``image``, ``batch`` and ``steps``, the same keys after ``"data.val=val"``, and the
processor in place of ``cuda``. ``pip`` and ``export`` are parsed only.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import pages_data
import u2pl
from command_blocks import ROOT, SHORT, Block, blocks, parse, shortened
from u2pl.cli.app import main
from u2pl.structures import Batch

RESEARCH = sorted((ROOT / "docs" / "research").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "start.md",
    *(page for room in ("howto", "explanation", "reference") for page in sorted((ROOT / "docs" / room).glob("*.md"))),
]
SHELLS, PYTHON = ("sh", "bash", "console"), "python"
COMMANDS = [
    block
    for page in (*PAGES, *RESEARCH)
    for block in blocks(page)
    if block.language in SHELLS or block.language == PYTHON
]
TO_RUN = {
    page: [block for block in COMMANDS if block.page == page and block.reason is None]
    for page in PAGES
    if any(block.page == page and block.reason is None for block in COMMANDS)
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def write_files_of(page: Path, folder: Path) -> None:
    """The files that a page shows with their names, such as ``# my.yaml``, and the scripts of the repository."""
    for block in blocks(page):
        named = re.match(r"# (\w+\.yaml)\n", block.text)
        if named is not None:
            (folder / named[1]).write_text(block.text, encoding="utf-8")
    for each in ("examples", "benchmarks"):
        (folder / each).symlink_to(ROOT / each)


@pytest.mark.parametrize("block", COMMANDS, ids=[block.name for block in COMMANDS])
def test_every_command_block_names_what_there_is(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files_of(block.page, tmp_path)
    monkeypatch.chdir(tmp_path)
    if block.language == PYTHON:
        ast.parse(block.text)
        return
    assert list(block.commands())
    for words in block.commands():
        parse(words)


@pytest.mark.parametrize(
    "line",
    [
        *("u2pl trane folder", "u2pl train folder --outt x", "u2pl train nofolder", "u2pl train folder train.stepz=1"),
        *("u2pl compare folder --methods u2plx", 'u2pl compare folder --variant "a: method.namex=u2pl"'),
        *(
            "u2pl ablate folder --axis method.reliability.alfa=1,2",
            "u2pl predict runs/a b --out c evaluation.flop=true",
        ),
        *(
            "u2pl evaluate",
            "u2pl splits fetchh pascal",
            "pip install .[exports]",
            "python benchmarks/none.py",
            "rm -rf x",
        ),
        "python benchmarks/step.py --smal",
    ],
)
def test_what_is_wrong_in_a_block_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"."):
        parse(shlex.split(line))


@pytest.mark.parametrize("page", [*PAGES, *RESEARCH], ids=[page.name for page in (*PAGES, *RESEARCH)])
def test_every_block_to_type_has_a_language(page: Path) -> None:
    assert [block.name for block in blocks(page) if block.is_untold_command] == []


def test_measurements_say_why_no_test_runs_them() -> None:
    assert [block.name for block in COMMANDS if block.page in RESEARCH and block.reason is None] == []


def test_the_step_in_the_explanation_is_that_of_the_code() -> None:
    [block] = [block for block in COMMANDS if block.reason == "lines of U2PL.forward"]
    code = [line.strip() for line in inspect.getsource(u2pl.U2PL.forward).splitlines()]
    places = [code.index(line) for line in block.text.splitlines() if line]
    assert places == sorted(places)


@pytest.fixture(scope="module")
def made(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that pages assume, with two finished runs; not to be written to."""
    folder = tmp_path_factory.mktemp("pages")
    pages_data.make(real_data, folder)
    encoder = ("network.encoder=mobilenet_v2", "network.weights=mobilenet_v2.pt", "network.channels=32")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, more in (("photos", ()), ("plain", ("method.name=supervised",))):
            keys = ("data.root=photos", "data.val=val", *encoder, *more, *SHORT)
            run_u2pl("u2pl", "train", "folder", *keys, "--out", f"runs/{name}")
            for state in (folder / "runs" / name).glob("*.ckpt"):
                state.unlink()
    return folder


@pytest.fixture
def folder(
    made: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The working folder of a reader of this page."""
    page = request.getfixturevalue("page")
    pages_data.copy(made, tmp_path, without=[words[-1] for block in TO_RUN[page] for words in outs(block)])
    write_files_of(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    pages_data.remove(tmp_path)


def outs(block: Block) -> Iterator[list[str]]:
    """``["--out", FOLDER]`` of each training in the block."""
    if block.language == PYTHON:
        yield from (["--out", each] for each in re.findall(r'u2pl\.train\(config, Path\("([^"]+)"\)\)', block.text))
        return
    for words in block.commands():
        if words[:2] == ["u2pl", "train"] and "--out" in words:
            yield words[words.index("--out") :][:2]


def run_u2pl(*words: str) -> None:
    """One command in this process. Fails with what it printed, unless it succeeds."""
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), mock.patch.object(sys, "argv", [*words]):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == 0, f"{shlex.join(words)}\n{out.getvalue()}"


def run_script(words: list[str]) -> None:
    """One script of the repository, which finds its neighbours. Pictures go into the working folder."""
    with mock.patch.object(sys, "argv", words), mock.patch.object(sys, "path", [str(ROOT / "benchmarks"), *sys.path]):
        runpy.run_path(words[0], run_name="__main__")


def run_python(text: str) -> None:
    keys = ", ".join(f'"{key}"' for key in SHORT)
    text = text.replace('"data.val=val"]', f'"data.val=val", {keys}]').replace('device="cuda"', 'device="cpu"')
    image = torch.randint(0, 256, (3, 72, 96), dtype=torch.uint8)
    unlabeled = torch.rand(2, 3, 64, 64)
    batch = Batch(torch.rand(2, 3, 64, 64), torch.randint(0, 21, (2, 64, 64)), unlabeled, strong=unlabeled)
    exec(
        compile(text, "block", "exec"),
        {"__name__": "__main__", "u2pl": u2pl, "image": image, "batch": batch, "steps": 2},
    )


@functools.cache
def run_demo(*words: str) -> None:
    """A demo reads no files, so each line of it runs once for all pages."""
    run_u2pl(*words)


RUNNERS: dict[str, Callable[[list[str]], Any]] = {
    "u2pl": lambda words: (run_demo if words[1] == "demo" else run_u2pl)(*shortened(words)),
    "python": lambda words: run_script(words[1:]),
    **dict.fromkeys(("pip", "export"), lambda words: None),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", list(TO_RUN), ids=[page.name for page in TO_RUN])
def test_the_blocks_of_a_page_run(page: Path, folder: Path) -> None:
    for number, block in enumerate(TO_RUN[page]):
        pages_data.between(page.name, number)
        if block.language == PYTHON:
            run_python(block.text)
            continue
        for words in block.commands():
            RUNNERS[words[0]](words)
