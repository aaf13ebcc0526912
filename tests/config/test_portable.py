"""A configuration without paths."""

from __future__ import annotations

from typing import Any

import pytest

from u2pl.config.fields import A_PATH, Section
from u2pl.config.portable import keys_with_paths, without_paths
from u2pl.config.schema import Config, DataConfig

PLACE = "/home/me/secret"


def filled() -> Config:
    """A configuration in which every key that takes a path has one."""
    keys = [name for name, field in DataConfig.model_fields.items() if takes_path(field)]
    data: dict[str, Any] = dict.fromkeys(keys, f"{PLACE}/{{}}.csv")
    one = {key: value for key, value in data.items() if key not in ("tags", "pseudo_masks")}
    data |= {"name": "domain", "source": {**one, "mapping": PLACE}, "target": dict(one)}
    network = {"weights": PLACE, "start_from": PLACE, "encoder": "resnet18"}
    return Config.model_validate({"data": data, "network": network})


def takes_path(field: Any) -> bool:
    return A_PATH in field.metadata


def test_no_path_stays() -> None:
    config = filled()
    assert config.to_yaml().count(PLACE) > 15
    kept = without_paths(config)
    assert PLACE not in kept.to_yaml()
    assert Config.model_validate(kept.model_dump()) == kept
    removed = list(keys_with_paths(config))
    assert config.with_values(dict.fromkeys(removed)) == kept
    assert {"data.root", "data.source.root", "data.source.mapping", "data.target.val", "network.weights"} <= set(
        removed
    )


def test_every_key_that_takes_a_file_is_known() -> None:
    """A key whose meaning speaks of a file or a folder is marked as a path, so that it is removed."""

    def unmarked(section: type[Section]) -> list[str]:
        return [
            name
            for name, field in section.model_fields.items()
            if "str" in str(field.annotation)
            and any(word in (field.description or "") for word in ("folder of", "csv file", "split file", "local file"))
            and not takes_path(field)
        ]

    sections = [field.annotation for field in Config.model_fields.values()]
    found = [
        name for each in sections if isinstance(each, type) and issubclass(each, Section) for name in unmarked(each)
    ]
    assert found == ["mask_values"]  # which may also be the values themselves


@pytest.mark.parametrize(
    ("values", "stays"),
    [
        ("0:background,255:crack", True),
        ("#804080:road,#000000:ignore", True),
        ("values.csv", False),
        (f"{PLACE}/values.csv", False),
        ("C:\\me\\values.csv", False),
        ("C:/me/values.csv", False),
    ],
)
def test_values_of_masks_stay_and_their_file_does_not(values: str, stays: bool) -> None:
    config = Config.model_validate({"data": {"name": "folder", "mask_values": values}})
    assert without_paths(config).data.mask_values == (values if stays else None)
    assert list(keys_with_paths(config)) == ([] if stays else ["data.mask_values"])


def test_numbers_in_place_of_files_stay() -> None:
    config = Config.model_validate({"data": {"labeled": 20, "val": 0.2}})
    assert without_paths(config) == config
    assert list(keys_with_paths(config)) == []
