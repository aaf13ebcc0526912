"""`base`: presets and files on top of others; and the presets of the paper's rows against its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from u2pl.auto.resolving import steps_of
from u2pl.config.overrides import load_config
from u2pl.config.part import build_choice
from u2pl.config.parts import SUPERVISED_LOSSES, UNSUPERVISED_LOSSES
from u2pl.config.preset_files import preset_about, preset_names
from u2pl.config.reading import preset_text
from u2pl.config.schema import Config, TrainConfig
from u2pl.data.source import DataSource
from u2pl.errors import InputError
from u2pl.pixels.losses import OhemCrossEntropy, SymmetricCrossEntropy

VOC_IMAGES, CITYSCAPES_IMAGES = 10582, 2975
CLASSIC, BLENDER, CITYSCAPES = (92, 183, 366, 732, 1464), (662, 1323, 2646, 5291), (186, 372, 744, 1488)
STEPS = {  # epochs * unlabeled images / 16
    **{"voc_classic_92": 52450, "voc_classic_183": 51995, "voc_classic_366": 51080, "voc_classic_732": 49250},
    **{"voc_classic_1464": 45590, "voc_blender_662": 49600, "voc_blender_1323": 46295, "voc_blender_2646": 39680},
    **{"voc_blender_5291": 26455},
    **{"cityscapes_186": 34862, "cityscapes_372": 32538, "cityscapes_744": 27888, "cityscapes_1488": 18588},
    **{f"cityscapes_{n}_ael": steps for n, steps in zip(CITYSCAPES, (34862, 32538, 27888, 18588), strict=True)},
}
BOTH = {
    "network": {"name": "deeplabv3plus", "encoder": "resnet101", "output_stride": 8, "pretrained": True},
    "method": {"name": "u2pl"},
    "method.reliability": {"alpha": 0.2, "dynamic": True, "min_confidence": 0.0},
    "method.schedule": {"ramp": 0.0},
    "method.teacher": {"ema_decay": 0.99},
    "method.strong_views": {"jitter": "unlabeled"},
    "method.unsupervised_loss": {"name": "cross_entropy"},
    "method.weighting": {"name": "lambda_u", "maximum": None},
    "method.negative_keys": {"pixels": "unreliable", "rank_threshold": True, "low_rank": None, "high_rank": None},
    "method.contrast": {
        **{"min_probability": 0.3, "anchors": 50, "negatives": 256, "temperature": 0.5, "bank_size": 30000},
    },
    "method.loss_weights": {"contrastive": 0.1, "unsupervised": 1.0},
    "train": {
        **{"batch_size": 16, "devices": 1, "nodes": 1, "scale_range": [0.5, 2.0], "flip": 0.5, "optimizer": "sgd"},
        **{"momentum": 0.9, "power": 0.9, "lr_warmup": 0},
    },
    "evaluation": {"scales": [1.0], "flip": False},
}
ONLY_VOC = {
    "data": {"name": "pascal_voc", "val": None},
    "network": {"auxiliary": None},
    "method.supervised_loss": {"name": "cross_entropy"},
    "method.schedule": {"warmup": 1 / 80},
    "method.contrast": {"background_bank_size": 50000},
    "train": {"epochs": 80, "crop_size": 513, "lr": 0.001, "head_lr_factor": 10, "weight_decay": 1e-4},
    "evaluation": {"protocol": "auto"},
}
ONLY_CITYSCAPES = {
    "data": {"name": "cityscapes", "val": None},
    "network": {"auxiliary": True},
    "method.supervised_loss": {"name": "ohem"},
    "method.schedule": {"warmup": 0.0},
    "method.contrast": {"background_bank_size": None},
    "method.loss_weights": {"auxiliary": 0.4},
    "train": {"epochs": 200, "crop_size": 769, "lr": 0.01, "head_lr_factor": 1, "weight_decay": 5e-4},
    "evaluation": {"protocol": "sliding", "window": 769, "overlap": 0.333},
}


def source_of(labeled: int, unlabeled: int) -> DataSource:
    """A data set of so many samples, of which nothing is read."""
    return DataSource(("a",), [None] * labeled, [None] * unlabeled, [])  # type: ignore[list-item]


def parts_of(name: str) -> tuple[str, int]:
    """voc_classic_92 -> the folder of its lists, pascal/92, and 92."""
    count = int(name.removesuffix("_ael").rsplit("_", 1)[1])
    return f"{'cityscapes' if name.startswith('cityscapes') else 'pascal'}/{count}", count


def error(source: str | Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return tmp_path / f"{next(iter(files))}.yaml"

    return write


def test_every_row_of_the_tables_is_there() -> None:
    rows = {f"voc_classic_{n}" for n in CLASSIC} | {f"voc_blender_{n}" for n in BLENDER}
    rows |= {f"cityscapes_{n}{mixing}" for n in CITYSCAPES for mixing in ("", "_ael")}
    assert rows == set(STEPS)
    assert rows <= set(preset_names())
    assert len({preset_about(name) for name in rows}) == len(rows)


@pytest.mark.parametrize("name", STEPS)
def test_a_row_is_the_papers_recipe(name: str) -> None:
    config = load_config(name)
    for recipe in (BOTH, ONLY_CITYSCAPES if name.startswith("cityscapes") else ONLY_VOC):
        for section, keys in recipe.items():
            found = config.value(section).model_dump()
            assert {key: found[key] for key in keys} == keys
    assert config.method.mixing.name == ("ael" if name.endswith("_ael") else "cutmix")
    loss = build_choice(config.method.supervised_loss, SUPERVISED_LOSSES, "method.supervised_loss")
    ohem = (loss.threshold, loss.min_kept) if isinstance(loss, OhemCrossEntropy) else None
    assert ohem == ((0.7, 100000) if name.startswith("cityscapes") else None)
    folder, count = parts_of(name)
    assert config.data.labeled == f"splits/{folder}/labeled.txt"
    assert config.data.unlabeled == f"splits/{folder}/unlabeled.txt"
    assert str(count) in preset_about(name)


@pytest.mark.parametrize("name", STEPS)
def test_a_row_and_its_supervised_twin_are_as_long_as_the_papers(name: str) -> None:
    images, (_, labeled) = CITYSCAPES_IMAGES if name.startswith("cityscapes") else VOC_IMAGES, parts_of(name)
    source = source_of(labeled, images - labeled)
    assert steps_of(load_config(name).train, source) == STEPS[name]
    twin = load_config(name, ["method.name=supervised", "train.devices=4", "train.batch_size=4"])
    assert steps_of(twin.train, source) == STEPS[name]


def test_the_page_of_the_paper_lists_every_row() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "paper.md").read_text(encoding="utf-8")
    for family, counts in {"voc_classic": CLASSIC, "voc_blender": BLENDER, "cityscapes": CITYSCAPES}.items():
        assert page.count(f"| `{family}_N` | {' | '.join(map(str, counts))} |\n") == 1
        assert {f"{family}_{count}" for count in counts} <= set(STEPS)
    assert page.count("`cityscapes_N_ael` |") == 1


@pytest.mark.parametrize(
    ("train", "labeled", "unlabeled", "steps"),
    [
        ({"steps": 7}, 3, 100, 7),
        ({"epochs": 1, "batch_size": 8}, 3, 100, 12),
        ({"epochs": 1, "batch_size": 8, "steps": 7}, 3, 100, 12),
        ({"epochs": 3, "batch_size": 2}, 10, 0, 15),  # all are labeled
        ({"epochs": 0.001, "batch_size": 8}, 3, 100, 1),
        ({"epochs": 10, "batch_size": 2, "devices": 4, "nodes": 2}, 3, 100, 62),
    ],
)
def test_steps_of_epochs(train: dict[str, Any], labeled: int, unlabeled: int, steps: int) -> None:
    assert steps_of(TrainConfig(**train), source_of(labeled, unlabeled)) == steps


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        ((), None, 80),
        (("train.steps=100",), 100, None),
        (("train.lr=1", "train.steps=100", "train.lr=2"), 100, None),
        (("train.steps=100", "train.epochs=5"), None, 5),
        (("train.epochs=5", "train.steps=100"), 100, None),
        (("train.epochs=5",), None, 5),
        (("train={steps: 100}",), 100, None),
    ],
)
def test_the_length_set_last_counts(overrides: tuple[str, ...], steps: int | None, epochs: float | None) -> None:
    train = load_config("voc_classic_92", overrides).train
    assert train.epochs == epochs
    assert steps is None or train.steps == steps


def test_the_length_of_a_file_counts_before_that_of_its_base(write: Any) -> None:
    assert load_config(write(mine="base: pascal_voc\ntrain: {steps: 9}")).train.epochs is None
    assert load_config(write(mine="base: pascal_voc\ntrain: {steps: 9, epochs: 2}")).train.epochs == 2
    assert load_config(write(mine="base: scenes\ntrain: {epochs: 2}")).train.epochs == 2
    saved = write(mine=load_config("pascal_voc").to_yaml())  # the config.yaml of a run
    assert load_config(saved).train.epochs == 80
    assert load_config(saved, ["train.steps=9"]).train.epochs is None


def test_a_file_is_a_preset_with_changes(write: Any) -> None:
    path = write(mine="base: camvid\ndata: {root: photos, val: null}\ntrain: {lr: 0.5}\nseed: 3\n")
    expected = load_config("camvid", ["data.root=photos", "data.val=null", "train.lr=0.5", "seed=3"])
    assert load_config(path) == expected
    assert load_config(path, ["train.lr=0.7"]) == load_config("camvid", [*SAME, "train.lr=0.7"])


SAME = ("data.root=photos", "data.val=null", "seed=3")


def test_bases_are_chained_from_file_to_file(tmp_path: Path, write: Any) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.yaml").write_text("base: ../two.yaml\nseed: 1\n")
    write(two="base: three.yml\nseed: 2\ntrain: {lr: 0.5, power: 0.5}\n")
    (tmp_path / "three.yml").write_text(
        "base: cityscapes_186_ael\ntrain: {lr: 0.7}\nmethod: {reliability: {alpha: 0.5}}\n"
    )
    found = load_config(tmp_path / "sub" / "one.yaml")
    overrides = ["method.reliability.alpha=0.5", "train.lr=0.5", "train.power=0.5", "seed=1"]
    assert found == load_config("cityscapes_186_ael", overrides)


def test_no_base_is_no_change(write: Any) -> None:
    assert load_config(write(mine="base: null\nseed: 1\n")) == Config(seed=1)
    assert load_config(write(mine="base: scenes\n")) == load_config("scenes")


def test_bases_that_are_none(tmp_path: Path, write: Any) -> None:
    assert error(write(mine="base: camvidd\n")).startswith(f"{tmp_path / 'mine.yaml'}: base: no preset 'camvidd' (did")
    assert "mine.yaml: base: should be a preset's name or a YAML file, not 5" in error(write(mine="base: 5\n"))
    assert "not ['scenes']" in error(write(mine="base: [scenes]\n"))
    gone = error(write(mine="base: gone.yaml\n"))
    assert f"mine.yaml: base: {tmp_path / 'gone.yaml'} cannot be read" in gone
    assert "unknown key train.zzz" in error(write(mine="base: odd.yaml\n", odd="train: {zzz: 1}\n"))
    assert "odd.yaml must hold sections" in error(write(mine="base: odd.yaml\n", odd="5\n"))
    assert error(write(mine="base: scenes\ntrain: 5\n")).startswith("train: ")
    assert "unknown key base" in error("scenes", "base=camvid")


@pytest.mark.parametrize("second", ["mine", "other", "./../{folder}/mine"])
def test_bases_in_a_circle_are_told(tmp_path: Path, write: Any, second: str) -> None:
    second = second.format(folder=tmp_path.name)
    path = write(mine="base: other.yaml\n", other=f"base: {second}.yaml\n")
    message = error(path)
    assert "leads back to itself" in message
    circle = "other.yaml -> " if second == "other" else "mine.yaml -> "
    assert f"({tmp_path / circle}" in message


def test_a_printed_row_needs_no_base(write: Any) -> None:
    for name in ("voc_classic_92", "cityscapes_1488_ael"):
        text = preset_text(name)
        assert text.startswith(f"# {preset_about(name)}\n")
        assert "base" not in yaml.safe_load(text)
        assert load_config(write(mine=text)) == load_config(name)


def test_a_preset_of_the_plus_family_is_its_base_with_three_options() -> None:
    options = ["method.prototypes=true", "method.denoising=true", "method.unsupervised_loss.name=symmetric"]
    plus = load_config("folder_plus")
    assert plus == load_config("folder", options)
    assert plus != load_config("folder")
    loss = build_choice(plus.method.unsupervised_loss, UNSUPERVISED_LOSSES, "method.unsupervised_loss")
    assert loss == SymmetricCrossEntropy(0.1)
    text = (Path(__file__).parents[2] / "src" / "u2pl" / "config" / "presets" / "folder_plus.yaml").read_text()
    assert len([line for line in text.splitlines() if not line.startswith("#")]) == 2


def test_u2pl_strong_is_folder_on_the_views_of_unimatch_v2() -> None:
    strong = load_config("u2pl_strong")
    assert strong == load_config("folder", ["method.strong_views.number=2", "method.complementary_dropout=true"])
    assert strong.method.name == "u2pl"
