"""A section is the part that it builds: the same keys, defaults, checks and meanings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from torch import Tensor, nn

from u2pl.config import parts
from u2pl.config.fields import AUTO, Section
from u2pl.config.part import build_choice, meanings, section_of
from u2pl.config.schema import SourceConfig, TargetConfig, all_keys, may_be_auto, section_in
from u2pl.data.rare_classes import RareClassSampling
from u2pl.errors import InputError
from u2pl.methods import EmaTeacher, Schedule
from u2pl.methods.extras.masked_consistency import MaskedConsistencyLoss
from u2pl.methods.seeding import Seeding
from u2pl.pixels import (
    AdaptiveCutMix,
    ClassConfidence,
    DistributionAlignment,
    Prototypes,
    PrototypicalDenoising,
    Reliability,
    UnreliableContrast,
)
from u2pl.pixels.cam import PixelAdaptiveRefinement
from u2pl.pixels.negative_keys import NegativeKeys

C, DIM = 4, 2
PIXELS = np.full((2, 256), 3)


@dataclass(frozen=True)
class Pair:
    """A section and its part."""

    part: Callable[..., Any]
    needed: tuple[Any, ...] = ()  #: what the part cannot be built without
    objects: tuple[str, ...] = ()  #: arguments that no file can hold, or that come from other keys
    key: str = ""  #: where the section stands in a configuration


SECTIONS: dict[str, Pair] = {
    "MaskedConsistencySection": Pair(
        MaskedConsistencyLoss, objects=("jitter", "average"), key="method.masked_consistency"
    ),
    "ReliabilitySection": Pair(Reliability, objects=("total",), key="method.reliability"),
    "ScheduleSection": Pair(Schedule, key="method.schedule"),
    "TeacherSection": Pair(EmaTeacher, (nn.Linear(2, 2),), key="method.teacher"),
    "NegativeKeysSection": Pair(NegativeKeys, key="method.negative_keys"),
    "ContrastSection": Pair(
        UnreliableContrast,
        (C, DIM),
        ("negative_keys", "gather", "prototypes", "prototype_positives", "keep_truth"),
        "method.contrast",
    ),
    "CamSection": Pair(Seeding, objects=("refinement",), key="method.cam"),
    "RareClassSection": Pair(RareClassSampling, (PIXELS,), key="data.rare_class_sampling"),
    "AlignmentSection": Pair(DistributionAlignment, (C,), ("reduce",), "method.alignment"),
    "PrototypesSection": Pair(Prototypes, (C, DIM), ("reduce",), "method.prototypes"),
    "DenoisingSection": Pair(PrototypicalDenoising, (Prototypes(C, DIM),), key="method.denoising"),
}
CHOICES = {
    "MixingSection": ("method.mixing", parts.MIXINGS),
    "WeightingSection": ("method.weighting", parts.WEIGHTINGS),
    "SupervisedSection": ("method.supervised_loss", parts.SUPERVISED_LOSSES),
    "UnsupervisedSection": ("method.unsupervised_loss", parts.UNSUPERVISED_LOSSES),
}
INJECTED = {"num_classes": C, "confidence": ClassConfidence(C)}  #: what mixings are given beside their keys
SHARED = {"average", "total"}  #: what losses and weightings are given where there are several processes
KEYS = dict(all_keys())


def section_named(name: str) -> Any:
    return getattr(parts, name)


def defaults_of(part: Callable[..., Any]) -> dict[str, Any]:
    """The default of each argument that has one, a sequence as a list."""
    given = {name: each.default for name, each in inspect.signature(part).parameters.items()}
    known = {name: value for name, value in given.items() if value is not inspect.Parameter.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


def settings_of(built: Any) -> dict[str, Any]:
    """All that a part remembers of its keys."""
    found = {field.name: getattr(built, field.name) for field in fields(built)} if is_dataclass(built) else vars(built)
    found = {name: value for name, value in found.items() if not name.startswith("_")}
    if isinstance(built, UnreliableContrast):
        found["bank"] = built.bank.capacity
    return {name: plain(value) for name, value in found.items()}


def plain(value: Any) -> Any:
    """A value that can be compared; a sequence as a list."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_every_section_of_a_part_is_looked_at() -> None:
    named = {name for name in vars(parts) if name.endswith("Section")} - {"Section", "PartSection"}
    assert named == {*SECTIONS, *CHOICES}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_the_keys_and_the_defaults_of_its_part(name: str) -> None:
    pair, section = SECTIONS[name], section_named(name)()
    expected = {key: value for key, value in defaults_of(pair.part).items() if key not in pair.objects}
    nested = {key for key, value in section if isinstance(value, Section)}
    assert nested <= set(pair.objects)
    assert {key: value for key, value in section if key not in nested} == expected
    assert expected  # there is something to configure


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_builds_its_part(name: str) -> None:
    pair, section = SECTIONS[name], section_named(name)()
    told = {key: value for key, value in section if not isinstance(value, Section)}
    assert settings_of(pair.part(*pair.needed, **told)) == settings_of(pair.part(*pair.needed))


def test_a_section_within_a_section_builds_what_its_part_takes() -> None:
    cam = section_named("CamSection")()
    assert settings_of(PixelAdaptiveRefinement(**dict(cam.refinement))) == settings_of(PixelAdaptiveRefinement())
    assert settings_of(PixelAdaptiveRefinement()) == settings_of(Seeding().refinement)
    assert {key: value for key, value in cam.refinement} == defaults_of(PixelAdaptiveRefinement)  # noqa: C416


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_has_the_keys_of_all_that_can_be_chosen(name: str) -> None:
    _, choices = CHOICES[name]
    section = section_named(name)()
    own = {key for part in choices.values() for key in defaults_of(part)} - SHARED
    assert set(dict(section)) == {"name", *own}
    assert all(value is None for key, value in section if key != "name")
    assert section.name in choices


@pytest.mark.parametrize(("name", "chosen"), [(name, each) for name, (_, all_) in CHOICES.items() for each in all_])
def test_a_choice_builds_the_part_that_it_names(name: str, chosen: str) -> None:
    key, choices = CHOICES[name]
    section, part = section_named(name), choices[chosen]
    built = build_choice(section(name=chosen), choices, key, INJECTED)
    needed = [value for name, value in INJECTED.items() if name in inspect.signature(part).parameters]
    assert settings_of(built) == settings_of(part(*needed))
    for own, value in defaults_of(part).items():
        if own in SHARED:
            continue
        other = another_than(value)
        changed = build_choice(section(name=chosen, **{own: other}), choices, key, INJECTED)
        assert getattr(changed, own) == other
        assert changed != built
    foreign = set(dict(section())) - {"name", *defaults_of(part)}
    for other in foreign:
        with pytest.raises(InputError) as caught:
            build_choice(SimpleSection(name=chosen, **{other: 1}), choices, key, INJECTED)
        assert str(caught.value) == f"{key}.{other}: is not used with {key}.name={chosen}; leave it out"


def another_than(value: Any) -> Any:
    """A value of a key whose default is this one."""
    if value is None:
        return 0.5
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) or value == 1 else (value + 1) / 2


class SimpleSection(SimpleNamespace):
    """A section whose values are not checked."""

    def __iter__(self) -> Any:
        return iter(vars(self).items())


def test_functions_have_no_keys() -> None:
    loss = section_named("SupervisedSection")
    for key, value in {"threshold": 0.5, "offset": 1.1}.items():
        with pytest.raises(InputError, match=rf"^loss\.{key}: is not used with loss\.name=cross_entropy; leave it"):
            build_choice(loss(name="cross_entropy", **{key: value}), parts.SUPERVISED_LOSSES, "loss")


def test_what_is_injected_goes_to_the_parts_that_ask_for_it() -> None:
    built = build_choice(section_named("MixingSection")(name="ael"), parts.MIXINGS, "method.mixing", INJECTED)
    assert isinstance(built, AdaptiveCutMix)
    assert built.confidence is INJECTED["confidence"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ReliabilitySection", {"alpha": 1.1}),
        ("ReliabilitySection", {"min_confidence": -0.1}),
        ("ReliabilitySection", {"dynamic": 3}),
        ("ScheduleSection", {"warmup": float("nan")}),
        ("TeacherSection", {"passes": 3}),
        ("TeacherSection", {"ema_decay": 2}),
        ("NegativeKeysSection", {"pixels": "some"}),
        ("ContrastSection", {"temperature": 0}),
        ("ContrastSection", {"bank_size": 0}),
        ("ContrastSection", {"anchors": 1.5}),
        ("CamSection", {"scales": []}),
        ("CamSection", {"scales": [0]}),
        ("CamSection", {"refinement": {"dilations": [0]}}),
        ("RareClassSection", {"temperature": 0}),
        ("AlignmentSection", {"bound": float("inf")}),
        ("PrototypesSection", {"momentum": 1.5}),
        ("DenoisingSection", {"temperature": True}),
        ("MixingSection", {"area": 2}),
        ("WeightingSection", {"threshold": 2}),
        ("SupervisedSection", {"min_kept": 0}),
        ("UnsupervisedSection", {"offset": 1.0}),
        ("UnsupervisedSection", {"reverse_weight": -1}),
        ("ReliabilitySection", {"alhpa": 0.1}),
        ("ContrastSection", {"gather": None}),
    ],
)
def test_a_section_refuses_what_its_part_is_not_made_for(name: str, values: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section_named(name)(**values)


def test_every_key_says_what_it_means() -> None:
    domains = [(f"data.source.{name}", field) for name, field in SourceConfig.model_fields.items()]
    domains += [(f"data.target.{name}", field) for name, field in TargetConfig.model_fields.items()]
    silent = [key for key, field in [*KEYS.items(), *domains] if not (field.description or "").strip(" .")]
    assert silent == []


@pytest.mark.parametrize(
    "part",
    [*(pair.part for pair in SECTIONS.values()), PixelAdaptiveRefinement],
    ids=lambda part: part.__name__,
)
def test_the_meaning_of_a_key_is_that_of_the_argument(part: Callable[..., Any]) -> None:
    about = meanings(part)
    known = set(inspect.signature(part).parameters)
    assert set(about) <= known  # the docstring speaks of arguments that there are
    assert all("\n" not in text and not text.endswith(".") for text in about.values())
    pair = next((each for each in SECTIONS.values() if each.part is part), None)
    above = "method.cam.refinement" if pair is None else pair.key
    for name in set(defaults_of(part)) - set(pair.objects if pair is not None else ()):
        assert about[name]
        assert KEYS[f"{above}.{name}"].description == about[name]


@pytest.mark.parametrize(("name", "chosen"), [(name, each) for name, (_, all_) in CHOICES.items() for each in all_])
def test_the_meaning_of_a_key_of_a_choice_names_the_part(name: str, chosen: str) -> None:
    key, choices = CHOICES[name]
    for own in set(defaults_of(choices[chosen])) - SHARED:
        meaning = meanings(choices[chosen])[own]
        assert meaning
        description = KEYS[f"{key}.{own}"].description
        assert meaning in description
        assert chosen in description


def test_keys_that_may_be_auto_are_of_the_schema_and_take_it() -> None:
    for key in may_be_auto():
        assert section_in(KEYS[key].annotation) is None
    contrast = section_named("ContrastSection")
    assert contrast(bank_size=AUTO).bank_size == AUTO
    with pytest.raises(ValidationError):
        contrast(anchors=AUTO)


def test_a_part_of_ones_own_becomes_a_section() -> None:
    def part(thing: nn.Module, *, size: int = 3, sides: list[float] = [1.0], hook: Any = None) -> None:  # noqa: B006
        """A part.

        Args:
            thing: what it is for.
            size, sides: how large it is,
                in :class:`~u2pl.units.Pixel`.
            hook: called.
        """

    section = section_of(part, leave_out=("sides",))
    assert dict(section()) == {"size": 3}
    assert section.model_fields["size"].description == "how large it is, in u2pl.units.Pixel"
    assert section.__doc__ == "A part."
