"""The command blocks of documentation pages: how tests find, parse and shorten them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from u2pl.cli.app import app
from u2pl.config.overrides import load_config
from u2pl.config.preset_files import preset_names
from u2pl.experiments.arguments import parse_axes, parse_list, parse_seeds, parse_variants

ROOT = Path(__file__).parents[1]
_MARKED = r"(?:<!-- not run: (?P<reason>[^>\n]+) -->\s*\n)?"
_FENCE = re.compile(_MARKED + r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:u2pl|pip|python|export|tensorboard|make|docker) ", re.MULTILINE)
#: What makes a training of a moment out of any configuration; it comes last, so it counts.
SHORT = ("train.steps=4", "train.batch_size=2", "train.crop_size=64", "train.eval_every=2", "data.workers=0")
_ENDINGS = {
    **dict.fromkeys(("train", "distill"), SHORT),
    "assess": (*SHORT, "--folds", "2"),
    **dict.fromkeys(("compare", "ablate"), ("--dry-run",)),
    "demo": ("--steps", "4"),
}
#: Words that a reader fills in, on the pages of research.
_FILLED_IN = {"METHOD": "u2pl", "SEED": "0", "COMMIT": "HEAD"}
_EXAMPLES = {"EARLIER": "examples/voc_animals.yaml", "...": "one: method.name=u2pl"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  #: of its fence, from 1
    language: str
    text: str
    reason: str | None  #: why it is not run, as the mark above it says

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def is_untold_command(self) -> bool:
        """Whether a reader types it, but its language does not say so."""
        return self.language == "" and _COMMAND.search(self.text) is not None

    def commands(self) -> Iterator[list[str]]:
        """The words of each command, as a shell reads them."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("language")].count("\n") + 1, *found.group("language", "text", "reason"))
        for found in _FENCE.finditer(text)
    ]


def shortened(words: Sequence[str]) -> list[str]:
    """A command of u2pl that ends in a moment."""
    return [*words, *_ENDINGS.get(words[1], ())]


def filled_in(words: Sequence[str]) -> list[str]:
    """A command without the words that a reader replaces."""
    kept = [_EXAMPLES.get(word, word) for word in words if word != "KEYS"]
    return [re.sub("|".join(_FILLED_IN), lambda found: _FILLED_IN[found[0]], word) for word in kept]


def parse(words: Sequence[str]) -> None:
    """Check a command without running it: its name, its options and its keys. Raises what does not fit."""
    program, *arguments = filled_in(words)
    if program == "u2pl":
        _parse_u2pl(arguments)
    elif program == "python":
        _parse_script(arguments)
    elif program == "pip":
        _parse_pip(arguments)
    elif program == "export":
        assert arguments, words
        assert all(re.fullmatch(r"[A-Z_]+=\S+", each) for each in arguments), words
    else:
        raise AssertionError(f"{shlex.join(words)}: {program} is a program that tests do not know")


def _parse_u2pl(arguments: Sequence[str]) -> None:
    command: Any = get_command(app)
    names = list(arguments)
    while hasattr(command, "commands"):
        name = names.pop(0)
        assert name in command.commands, f"u2pl has no command {name}"
        command = command.commands[name]
    given = command.make_context(name, names).params
    keys = list(given.get("overrides") or ())
    keys += [each for each in given.get("inputs") or () if re.match(r"[a-z]+\.[a-z_.]+=", each)]
    config = given.get("config") or "folder"
    load_config(config, keys)
    for each in parse_list("--methods", given.get("methods")):
        load_config(config, [*keys, f"method.name={each}"])
    for variant in parse_variants(given.get("variant") or ()).values():
        load_config(config, [*keys, *variant])
    for key, values in parse_axes(given.get("axis") or ()).items():
        for value in values:
            load_config(config, [*keys, f"{key}={value}"])
    if isinstance(given.get("seeds"), str):
        parse_seeds(given["seeds"])
    if name == "presets" and given["name"] is not None:
        assert given["name"] in preset_names()


def _parse_script(arguments: Sequence[str]) -> None:
    """A script of the repository, and options that it names."""
    script = ROOT / arguments[0]
    assert script.is_file(), f"{arguments[0]} is missing"
    told = script.read_text(encoding="utf-8")
    for option in arguments[1:]:
        assert not option.startswith("--") or f'"{option.partition("=")[0]}"' in told, f"{arguments[0]} has no {option}"


def _parse_pip(arguments: Sequence[str]) -> None:
    """An installation from this folder, with extras that it has."""
    assert arguments[0] == "install"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for what in arguments[1:]:
        found = re.fullmatch(r"(?:\.|u2pl)(?:\[([a-z,]+)\])?", what)
        assert found is not None, f"pip install {what}: not of this project"
        for extra in (found[1] or "").split(",") if found[1] else ():
            assert re.search(rf"^{extra} = \[$", project, re.MULTILINE), f"there is no extra {extra}"
