"""docs/configuration.md lists every key of the schema, with its default, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from u2pl.build.data import DOMAIN, READERS, read_domains
from u2pl.build.network import NETWORKS
from u2pl.config.schema import Config, may_be_auto

ROWS = re.compile(r"^\| (`\w+\.[^|]*) \|", re.MULTILINE)
PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
DATA = {**READERS, DOMAIN: read_domains}
EVERYWHERE = {  # read by no builder
    "data": {"name", "rare_class_sampling", "rare_class_temperature", "cache", "workers"},
    "network": {"name", "embedding_dim"},
}


def part(title: str) -> str:
    """Text of a section of the page."""
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(section: str) -> dict[str, list[str]]:
    """The other cells of each row of a section's table, by key; a key listed twice is an error."""
    cells = [line.strip("|").split(" | ") for line in part(section).splitlines() if line.startswith("| `")]
    table = {key.strip().strip("`"): [cell.strip() for cell in others] for key, *others in cells}
    assert len(table) == len(cells)
    return table


def defaults(section: str) -> dict[str, Any]:
    value = getattr(Config(), section)
    return value.model_dump() if isinstance(value, BaseModel) else {section: value}


@pytest.mark.parametrize("section", Config.model_fields)
def test_the_page_lists_the_keys_of_the_schema_with_their_defaults(section: str) -> None:
    written = {key: yaml.safe_load(cells[0].strip("`")) for key, cells in rows(section).items()}
    expected = defaults(section)
    assert written == expected
    assert list(written) == list(expected)  # in the order of the schema
    assert {key: type(value) for key, value in written.items()} == {key: type(v) for key, v in expected.items()}


@pytest.mark.parametrize(("section", "builders"), [("data", DATA), ("network", NETWORKS)])
def test_the_page_says_which_keys_belong_to_which_name(section: str, builders: dict[str, Any]) -> None:
    for key, (_, names, *_) in rows(section).items():
        takers = {name for name, builder in builders.items() if key in inspect.signature(builder).parameters}
        if key in EVERYWHERE[section]:
            takers = set(builders)
        known = {"all": set(builders), "all but domain": set(builders) - {DOMAIN}}
        assert known.get(names, set(names.split(", "))) == takers, key


def test_the_page_says_what_is_chosen_for_every_key_that_may_be_auto() -> None:
    told = {key.strip(" `") for keys in ROWS.findall(part("What `auto` chooses and why")) for key in keys.split(",")}
    assert told == set(may_be_auto())


def test_lines_are_short() -> None:
    assert max(map(len, PAGE.read_text(encoding="utf-8").splitlines())) <= 120
