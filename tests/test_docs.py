"""The documentation names keys that exist, links to what is there, and stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from u2pl.config.overrides import load_config
from u2pl.config.reference import EVERYDAY, keys, markdown
from u2pl.config.schema import SourceConfig, TargetConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
#: For people who use the program, without the page of keys, which is made from the schema.
USER_PAGES = [
    page
    for page in PAGES
    if page.parent.name in ("docs", "howto", "explanation", "reference") and page.name != "keys.md"
]
KEY = re.compile(r"(?<![\w./-])((?:data|network|method|train|evaluation)(?:\.[a-z_0-9]+)+)=")
HIDDEN = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def known_keys() -> set[str]:
    found = {key.name for key in keys()}
    found |= {f"data.source.{name}" for name in SourceConfig.model_fields}
    return found | {f"data.target.{name}" for name in TargetConfig.model_fields}


def anchors(page: Path) -> set[str]:
    """What a heading of a page is called in a link to it."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in titles)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def test_the_page_of_keys_is_what_the_schema_says() -> None:
    page = ROOT / "docs" / "reference" / "keys.md"
    assert page.read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_every_key_has_a_meaning_and_a_few_are_everyday() -> None:
    assert [key.name for key in keys() if not key.meaning] == []
    assert {key.name for key in keys()} >= EVERYDAY
    assert 20 <= len(EVERYDAY) <= 30


@EVERY_PAGE
def test_every_key_of_a_page_exists(page: Path) -> None:
    named = set(KEY.findall(page.read_text(encoding="utf-8")))
    assert named - known_keys() == set()


@EVERY_PAGE
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@EVERY_PAGE
def test_every_configuration_of_a_page_is_one(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
        assert isinstance(yaml.safe_load(block), dict)
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        load_config(file)


def test_pages_are_short() -> None:
    words = {page: len(HIDDEN.sub("", page.read_text(encoding="utf-8")).split()) for page in PAGES}
    assert words[ROOT / "README.md"] <= 700
    assert sum(words[page] for page in USER_PAGES) <= 11_500
    assert max(words[page] for page in USER_PAGES if page.parent.name == "howto") <= 500


def test_the_files_to_read_first_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(r"^\d\. \[`[^`]*`\]\((src/[^)]*)\)", text, re.MULTILINE)
    assert len(files) == 5
    assert all((ROOT / file).is_file() for file in files)


def test_the_tests_mirror_the_rooms() -> None:
    rooms = {path.name for path in (ROOT / "src" / "u2pl").iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == rooms | {"golden"}
