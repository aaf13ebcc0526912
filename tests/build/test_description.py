"""The description in a file of weights comes from anyone: it is one of ours, or one error that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.build.description import checked_description
from u2pl.build.trained import network_of
from u2pl.engine.checkpoint import fits, save_weights
from u2pl.errors import InputError
from u2pl.predictor import Predictor

GOOD: dict[str, Any] = {
    "classes": ["sky", "road"],
    "palette": [[0, 0, 0], [255, 0, 0]],
    "scale": 1.0,
    "method": "supervised",
    "network": {"name": "deeplabv3plus", "encoder": "resnet18", "channels": 8, "low_level_channels": 8},
}
PATH = Path("some.safetensors")


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def network(**changes: Any) -> dict[str, Any]:
    return changed(network={**GOOD["network"], **changes})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"contrast": False, "lookup": None, "evaluation": {"flip": True}, "images": {"bands": [2, 1, 0]}},
        {"lookup": [0, 1, 255, -1] * 64, "more": {"of": ["later", "versions"]}, "images": None, "evaluation": None},
        {"palette": [], "network": {**GOOD["network"], "pretrained": False, "weights": None}},
        {"network": {"name": "smp", "encoder": "tu-resnet18.a1_in1k", "architecture": "FPN", "std": [1, 1, 1]}},
    ],
)
def test_descriptions_of_all_versions_are_read(change: dict[str, Any]) -> None:
    known = checked_description(changed(**change), PATH)
    assert known["classes"] == ["sky", "road"]
    assert "pretrained" not in known["network"]
    assert isinstance(known["images"], dict)


@pytest.mark.parametrize(
    "description",
    [
        *(None, [], "x", 3, {}, {"classes": ["a", "b"]}),
        *(
            changed(classes=each)
            for each in (None, "ab", [], ["a"], ["a", "a"], ["a", 1], ["a", "\x1b[2J"], ["a", " "])
        ),
        *(changed(classes=["a", "b" * 999]), changed(classes=[str(number) for number in range(256)])),
        *(changed(palette=each) for each in ([[0, 0]], [[0, 0, 256]], [[0, 0, 0]], "red", [[0.5, 0, 0]] * 2, {})),
        *(changed(lookup=each) for each in ([], [0] * 255, [2] * 256, [-2] * 256, ["0"] * 256, [True] * 256, {}, 1)),
        *(changed(scale=each) for each in (0, -1, 1e-9, 5, 1e308, float("nan"), "1", None, [1])),
        *(changed(method=each) for each in (None, "", "other", ["u2pl"], {"u2pl": 1}, 1)),
        *(changed(contrast=each) for each in ("yes", {}, 1)),
        *(changed(network=each) for each in (None, [], "smp", {"unheard": 1}, {"encoder": None}, {"channels": "many"})),
        *(
            network(**{key: value})
            for key, value in (("pretrained", True), ("weights", "/etc/passwd"), ("name", "auto"))
        ),
        *(
            network(encoder=each)
            for each in ("tu-hf-hub:user/model", "tu-local-dir:/tmp", "../x", "a b", "", "x" * 999)
        ),
        *(network(channels=each) for each in (0, -1, 10**9, 65_536, 1.5, [1])),
        *(changed(evaluation=each) for each in ([], {"protocol": "tiled"}, {"window": 10**12}, {"scales": [0]})),
        *(changed(images=each) for each in ([], {"bands": "red"}, {"root": "/etc"}, {"value_range": [1, 0]})),
    ],
)
def test_others_are_one_error(description: Any) -> None:
    with pytest.raises(InputError, match=r"^some\.safetensors has a description that cannot be used") as caught:
        checked_description(description, PATH)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=1000)
@given(st.sampled_from([*GOOD, "lookup", "evaluation", "images", "contrast"]), VALUES)
def test_any_value_is_read_or_refused(key: str, value: Any) -> None:
    try:
        checked_description(changed(**{key: value}), PATH)
    except InputError as error:
        assert PATH.name in str(error)  # noqa: PT017


def test_a_network_wider_than_its_tensors_is_never_built(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, network_of(checked_description(GOOD, PATH)), GOOD)
    assert Predictor.from_file(path).classes == ("sky", "road")
    save_weights(path, network_of(checked_description(GOOD, PATH)), network(channels=8192))
    built: list[Any] = []
    real: Callable[..., Any] = network_of

    def build(description: dict[str, Any]) -> Any:
        made = real(description)
        built.append(next(made.parameters()).device.type)
        return made

    with (
        mock.patch("u2pl.build.trained.network_of", build),
        pytest.raises(InputError, match="do not fit its description"),
    ):
        Predictor.from_file(path)
    assert built == ["meta"]


def test_fits_compares_names_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, torch.nn.Linear(3, 2), {})
    assert fits(path, lambda: torch.nn.Linear(3, 2))
    assert not fits(path, lambda: torch.nn.Linear(2, 3))
    assert not fits(path, lambda: torch.nn.Sequential(torch.nn.Linear(3, 2)))
