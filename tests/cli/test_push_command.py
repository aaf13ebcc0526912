"""The commands `u2pl push` and `u2pl predict hf://...` against a server that answers as the Hub does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from hub_server import READS, WRITES, Hub, Repository, running_hub
from u2pl.config.overrides import load_saved

Command = Callable[..., Any]
MAIN = "from u2pl.cli import main; main()"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def environment(hub: str, home: Path, token: str = "") -> dict[str, str]:
    """Variables of a process that takes this server for the Hub, and its own cache."""
    kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and key != "HF_HUB_CACHE"}
    kept |= {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    return kept | ({"HF_TOKEN": token} if token else {})


def process(script: str, *arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True, text=True, env=env, timeout=300, check=False,
    )  # fmt: skip


def one_line(done: Any) -> str:
    """The error of a command that ended with one line."""
    output, error, code = (
        (done.out, done.err, done.code) if hasattr(done, "code") else (done.stdout, done.stderr, done.returncode)
    )
    assert (code, output) == (2, ""), error
    assert error.startswith("u2pl: ")
    assert error.count("\n") == 1, error
    return str(error)


@pytest.mark.slow
def test_a_run_goes_to_the_hub_and_comes_back(
    u2pl: Command, run_folder: Path, files: Path, hub: Hub, tmp_path: Path
) -> None:
    writer = environment(hub.url, tmp_path / "writer", WRITES)
    pushed = process(MAIN, "push", run_folder, "me/streets", env=writer)
    assert (pushed.returncode, pushed.stdout) == (0, f"last weights in {hub.url}/me/streets, for you only\n"), pushed
    there = hub.repositories["me/streets"]
    assert there.private
    assert len(there.commits) == 1
    expected = {"README.md", "config.yaml", "last.safetensors", "metrics.jsonl", "validation.safetensors"}
    assert set(there.files) == {".gitattributes", *expected}
    assert there.files["last.safetensors"] == (run_folder / "last.safetensors").read_bytes()
    for name, content in there.files.items():
        for secret in (files, run_folder, run_folder.parent):
            assert os.fsencode(secret) not in content, name
            assert secret.parent.name.encode() not in content, name

    code = re.search(r"```python\n(.*?)```", there.files["README.md"].decode(), re.DOTALL)
    assert code is not None
    image = next((files / "images" / "val").glob("v.*"))
    script = code[1].replace("photo.jpg", str(image)) + f"print(tuple(mask.shape), predictor.classes)\n{MAIN}"
    reader = environment(hub.url, tmp_path / "reader", READS)
    used = process(script, "predict", "hf://me/streets", files / "images/val", "--out", tmp_path / "hub", env=reader)
    width, height = Image.open(image).size
    assert used.stdout.splitlines()[0] == f"{(height, width)} ('sky', 'road', 'car', 'tree')", used.stderr
    assert used.returncode == 0, used.stderr
    local = u2pl("predict", run_folder, files / "images" / "val", "--out", tmp_path / "local")
    assert local.code == 0
    masks = sorted(path.relative_to(tmp_path / "local") for path in (tmp_path / "local").rglob("*.png"))
    assert len(masks) == 2
    for mask in masks:
        assert (tmp_path / "hub" / mask).read_bytes() == (tmp_path / "local" / mask).read_bytes()
    offline = environment("http://127.0.0.1:9", tmp_path / "reader")  # from the cache, without a connection
    again = process(script, "--version", env=offline)
    assert again.stdout.splitlines()[0] == used.stdout.splitlines()[0], again.stderr


@pytest.mark.slow
def test_a_second_push_replaces_the_first_one_and_leaves_what_others_wrote(
    run_folder: Path, hub: Hub, tmp_path: Path
) -> None:
    written = {"last.safetensors": b"old", "validation.safetensors": b"old", "LICENSE": b"mine", "notes.txt": b"mine"}
    hub.repositories["me/streets"] = Repository(files=dict(written))
    pushed = process(
        MAIN, "push", run_folder, "me/streets", "--public", "--weights", "best",
        env=environment(hub.url, tmp_path, WRITES),
    )  # fmt: skip
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.endswith("for everybody\n")
    there = hub.repositories["me/streets"]
    assert len(there.commits) == 1
    assert set(there.files) == {"README.md", "config.yaml", "best.safetensors", "metrics.jsonl", "LICENSE", "notes.txt"}


@pytest.mark.slow
def test_a_killed_push_leaves_nothing(run_folder: Path, hub: Hub, tmp_path: Path) -> None:
    before = {"last.safetensors": b"old", "README.md": b"old"}
    hub.repositories["me/streets"] = Repository(private=True, files=dict(before))
    hub.stops_at_upload = True
    pushing = subprocess.Popen(
        [sys.executable, "-c", MAIN, "push", str(run_folder), "me/streets"],
        env=environment(hub.url, tmp_path, WRITES), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert hub.arrived.wait(300)
    pushing.kill()
    pushing.wait()
    assert hub.repositories["me/streets"].files == before
    assert hub.repositories["me/streets"].commits == []


#: What a process says for each of several commands. Importing the library once is enough.
EACH = """
import sys
from u2pl.cli import main
for line in sys.argv[1].splitlines():
    sys.argv = ["u2pl", *line.split()]
    try:
        main()
    except SystemExit as end:
        print(end.code, file=sys.stderr)
"""


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(run_folder: Path, files: Path, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["me/public"] = Repository()
    hub.repositories["me/other"] = Repository(private=True, files={"pytorch_model.bin": b"", "README.md": b"mine"})
    hub.repositories["me/foreign"] = Repository(files={"best.safetensors": b"no weights"})
    image, out = next((files / "images" / "val").glob("v.*")), tmp_path / "out"
    cases = {
        f"push {run_folder} me/public": "me/public is public on the Hub; push with --public",
        f"push {run_folder} me/other": "me/other holds no model of u2pl, but pytorch_model.bin",
        f"push {run_folder} me/other --public": "me/other is private on the Hub; push with --private",
        f"predict hf://me/nothing {image} --out {out}": "me/nothing: does not exist on the Hub, or is private",
        f"predict hf://me/public {image} --out {out}": "me/public has no last.safetensors and no best.safetensors",
        f"predict hf://me/public {image} --out {out} --weights best": "me/public has no best.safetensors",
        f"predict hf://me/public@v2 {image} --out {out}": "me/public@v2: has no such revision",
        f"predict hf://me/foreign {image} --out {out}": "me/foreign: best.safetensors holds no trained network of u2pl",
        f"predict hf://me {image} --out {out}": "'me' is no name of a repository; write user/name",
    }
    said = process(EACH, "\n".join(cases), env=environment(hub.url, tmp_path / "home", WRITES))
    lines = said.stderr.splitlines()
    assert lines[1::2] == ["2"] * len(cases), said.stderr
    for line, expected in zip(lines[::2], cases.values(), strict=True):
        assert line.startswith(f"u2pl: {expected}")
    refused = process(MAIN, "push", run_folder, "me/new", env=environment(hub.url, tmp_path / "home", READS))
    assert "me/new: the token may not do this; take one that may write" in one_line(refused)
    wrong = process(MAIN, "push", run_folder, "me/new", env=environment(hub.url, tmp_path / "home", "hf_wrong"))
    assert "me/new: the Hub does not accept the token" in one_line(wrong)
    assert set(hub.repositories) == {"me/public", "me/other", "me/foreign"}
    assert all(not each.commits for each in hub.repositories.values())
    assert not out.exists()


def test_a_repository_of_a_failed_push_stays_and_is_told_of(
    u2pl: Command, run_folder: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITES)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    hub.refuses_commits = True
    failed = "the Hub refuses (413: Storage limit reached); check the name"
    remains = (
        f"an empty repository remains: push again to fill it, or delete it in the settings of {hub.url}/me/streets"
    )
    first = one_line(u2pl("push", run_folder, "me/streets"))
    assert first == f"u2pl: me/streets: {failed}; {remains}\n"
    assert one_line(u2pl("push", run_folder, "me/streets")) == f"u2pl: me/streets: {failed}\n"  # not made by this push
    monkeypatch.setattr("u2pl.commands.push._files_of", lambda *_, **__: None)  # another process makes it meanwhile
    assert "me/streets: the Hub refuses (409" in one_line(u2pl("push", run_folder, "me/streets"))
    assert set(hub.repositories) == {"me/streets"}
    assert hub.repositories["me/streets"].files.keys() == {".gitattributes"}
    assert not any(line.startswith("DELETE") or "delete" in line for line in hub.asked)


def test_without_a_connection_or_a_token(
    u2pl: Command, run_folder: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", WRITES)
    assert "me/streets: no connection to 127.0.0.1" in one_line(u2pl("push", run_folder, "me/streets"))
    predicted = u2pl("predict", "hf://me/streets", files / "images", "--out", tmp_path / "out")
    assert "me/streets: no connection to 127.0.0.1" in one_line(predicted)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "there is no token for the Hub; log in with `hf auth login`" in one_line(
        u2pl("push", run_folder, "me/streets")
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "repository", ["streets", "me/streets/more", "me/", "/streets", "me/a b", "me/..", "hf://me/a"]
)
def test_what_is_no_name_of_a_repository(u2pl: Command, run_folder: Path, tmp_path: Path, repository: str) -> None:
    said = one_line(u2pl("push", run_folder, repository, "--out", tmp_path / "out"))
    assert "is no name of a repository; write user/name" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["nothing", "config.yaml", "metrics.jsonl", "last.safetensors", "cut"])
def test_what_is_no_finished_run(u2pl: Command, run_folder: Path, tmp_path: Path, broken: str) -> None:
    folder = tmp_path / "run"
    if broken != "nothing":
        shutil.copytree(run_folder, folder)
        if broken == "cut":
            whole = (folder / "last.safetensors").read_bytes()
            (folder / "last.safetensors").write_bytes(whole[:-100])
        else:
            (folder / broken).write_text("{")
    assert str(folder) in one_line(u2pl("push", folder, "me/streets", "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_and_other_weights(u2pl: Command, run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    saved = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(saved.replace("steps: 3\n", "steps: 30\n"))
    assert "is not finished: 3 of 30 steps" in one_line(u2pl("push", folder, "me/a", "--out", tmp_path / "out"))
    (folder / "config.yaml").write_text(saved)
    (folder / "best.safetensors").unlink()
    best = one_line(u2pl("push", folder, "me/a", "--out", tmp_path / "out", "--weights", "best"))
    assert f"{folder} has no best.safetensors" in best
    assert "should be last or best" in one_line(u2pl("push", folder, "me/a", "--weights", "first"))
    assert "exists already; give a new folder" in one_line(u2pl("push", folder, "me/a", "--out", folder))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_would_be_pushed_is_a_run_folder(u2pl: Command, run_folder: Path, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    done = u2pl("push", run_folder, "me/streets", "--out", out)
    assert (done.code, done.err) == (0, "")
    assert done.out == f"nothing is pushed; the files of me/streets are in {out}\n"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    before, after = load_saved(run_folder / "config.yaml"), load_saved(out / "config.yaml")
    assert (before.data.root, before.data.val) == (str(files), "val")
    assert after == before.with_values({"data.root": None, "data.val": None})
    assert (out / "config.yaml").read_text().startswith("# Without the paths of data.root, data.val.\n")
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "library_name": "u2pl",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "semi-supervised-learning", "u2pl"],
    }
    for expected in (
        "# license: fill in",
        "| labeled images | 4 |",
        "| unlabeled images | 3 |",
        "| validation images | 2 |",
        "| network | deeplabv3plus resnet18 |",
        "| steps | 3 |",
        "on 2 validation images.",
    ):
        assert expected in card
    assert u2pl("report", out, "--out", tmp_path / "report.html").code == 0
    assert "- `validation.safetensors`: counts" in card
    (run_folder / "README.md").write_text("mine")
    try:
        assert u2pl("push", run_folder, "me/streets", "--out", tmp_path / "own").code == 0
    finally:
        (run_folder / "README.md").unlink()
    assert (tmp_path / "own" / "README.md").read_text() == "mine"


def test_the_scores_on_a_card_are_those_of_the_weights(u2pl: Command, run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    best = {**last, "step": 2, "teacher/miou": 98.7, "teacher/iou/car": 97.6, "student/miou": 99.9}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(best) + "\n")
    areas = torch.tensor([[[8, 1, 4, 0], [16, 2, 16, 0]]]).repeat(4, 1, 1)  # IoU 50, 50, 25 and none
    with safe_open(folder / "validation.safetensors", framework="pt") as before:
        save_file({"areas": areas}, folder / "validation.safetensors", metadata=before.metadata())
    cards = {}
    for weights in ("last", "best"):
        done = u2pl("push", folder, "me/streets", "--weights", weights, "--out", tmp_path / weights)
        assert (done.code, done.err) == (0, "")
        cards[weights] = (tmp_path / weights / "README.md").read_text()
    assert "mIoU 41.7 % on 2 validation images; 95 % interval 41.7 to 41.7" in cards["last"]
    assert "| 2 | car | 25.0 |\n| 3 | tree | - |\n" in cards["last"]
    assert "mIoU 98.7 % on 2 validation images." in cards["best"]
    assert "| 2 | car | 97.6 |\n" in cards["best"]
    assert "interval" not in cards["best"]
    assert "were chosen on the validation images" in cards["best"]
    assert not (tmp_path / "best" / "validation.safetensors").exists()
