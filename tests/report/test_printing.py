"""Names are printed as they are, and nothing but one module prints."""

from __future__ import annotations

import ast
import io
import re
import sys
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console

import u2pl
from u2pl.printable import printable
from u2pl.report.printing import Styled, TextTable, accept_all_text, complain, progress_bar, say, show, track

SOURCE = Path(u2pl.__file__).parent
PRINTER = "report/printing.py"
#: Output that is no line of text: a JSON object, the documentation page, the file of a preset or of a conversion. The
#: last one is a line without names, from a thread that ends the process.
RAW = {
    ("cli/app.py", "evaluate", "sys.stdout"),
    ("cli/reference.py", "keys", "sys.stdout"),
    ("cli/reference.py", "presets", "sys.stdout"),
    ("cli/reference.py", "convert_config", "sys.stdout"),
    ("engine/launching.py", "run", "sys.stderr"),
}
STYLES = "bold|b|italic|i|dim|underline|strike|reverse|blink|red|green|yellow|blue|magenta|cyan|white|black|link"
MARKUP = re.compile(rf"\[/?({STYLES})\b[^\]]*\]|\[/\]")
RICH = {"rich.console", "rich"}  # of these, only the console may be imported

NAMES = {
    "[void] [/x] road [paved]": "[void] [/x] road [paved]",
    ":car: {0} %s $a$ _b_ \\": ":car: {0} %s $a$ _b_ \\",
    "\x1b[31mred\x07\r\n\t\x7f\x9b": r"\x1b[31mred\x07\r\n\t\x7f\x9b",
    "\udcff\ud800\u2028": r"\xff\ud800\u2028",
    "\u202eabc\u200f\ufeff": r"\u202eabc\u200f\ufeff",
    "Straße 道路 🚗 👨\u200d👩": "Straße 道路 🚗 👨\u200d👩",
    "two  spaces": "two  spaces",
    "l" * 2000: "l" * 2000,
}


def violations(code: str, file: str) -> list[str]:
    """Places outside of the printing module that print, build what rich prints, or use markup."""
    found = []

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        what = ""
        if isinstance(node, ast.Name) and node.id in ("print", "pprint"):
            what = node.id
        elif isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in ("print", "print_json", "echo", "secho") or (
                of == "sys" and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__")
            ):
                what = f"{of}.{node.attr}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            modules = names if isinstance(node, ast.Import) else [node.module or ""]
            if any(module.split(".")[0] == "rich" for module in modules) and not (
                modules == ["rich.console"] and names == ["Console"]
            ):
                what = ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MARKUP.search(node.value):
            what = repr(node.value)
        if what and (file, function, what) not in RAW:
            found.append(f"{file}:{getattr(node, 'lineno', 0)} {what}")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(code), "")
    return found


def test_one_module_prints() -> None:
    files = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
    assert PRINTER in files
    found = [v for file, path in files.items() if file != PRINTER for v in violations(path.read_text("utf-8"), file)]
    assert found == [], "print with u2pl.report.printing"


@pytest.mark.parametrize(
    "code",
    [
        "console.print(name)",
        "self.console.print(f'{name}')",
        "print(name)",
        "say = print",
        "typer.echo(name)",
        "import sys\nsys.stdout.write(name)",
        "def evaluate():\n    sys.stderr.write(name)",
        "from rich.table import Table",
        "from rich import print",
        "import rich.progress",
        "from rich.console import Console, Group",
        "title = '[bold]title[/bold]'",
        "title = f'[red]{name}[/]'",
    ],
)
def test_printing_elsewhere_is_found(code: str) -> None:
    assert violations(code, "cli/app.py")


def test_what_is_allowed_elsewhere() -> None:
    code = "from rich.console import Console\ndef keys():\n    sys.stdout.write(page)\nsay(console, '[void] a[-X]')"
    assert violations(code, "cli/reference.py") == []
    assert violations(code, "cli/experiments.py") != []  # raw output is allowed by file and function


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_a_name_is_one_line_of_text(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(shown) == shown
    out = io.StringIO()
    say(Console(file=out, width=40), "class ", name, "!")
    assert out.getvalue() == f"class {shown}!\n"


def test_every_character_is_safe() -> None:
    for number in range(sys.maxunicode + 1):
        shown = printable(chr(number))
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown), hex(number)
        shown.encode()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_a_table_shows_names_in_its_title_header_and_cells(name: str, shown: str, terminal: bool) -> None:
    table = TextTable(title=(name, "second line"))
    table.add_column(name)
    table.add_column("number", justify="right")
    table.add_row(name, "1")
    out = io.StringIO()
    console = Console(file=out, width=9000 if terminal else 20, force_terminal=terminal, color_system=None)
    show(console, table, note=f"of {name}")
    text = out.getvalue()
    assert text.count(shown) == 4
    assert "\x1b" not in text
    if not terminal:
        assert [line.split("  ")[0] for line in text.splitlines()] == [
            *(line.split("  ")[0] for line in (shown, "second line", shown, shown, f"of {shown}"))
        ]


def test_styles_reach_a_terminal_only() -> None:
    for terminal in (False, True):
        out = io.StringIO()
        say(
            Console(file=out, force_terminal=terminal, color_system="standard" if terminal else "auto"),
            Styled("[x]", "bold"),
            " y",
            style="red",
        )
        assert ("\x1b[1" in out.getvalue()) is terminal
        assert "[x]" in out.getvalue()


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_a_bar_shows_names(name: str, shown: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=9000, force_terminal=True, color_system=None)
    with progress_bar(console, lambda task: str(task.fields["now"])) as bar:
        bar.add_task(name, total=2, now=name)
    assert out.getvalue().count(shown) >= 2
    assert list(track("abc", name, total=3, console=console)) == ["a", "b", "c"]


def test_an_encoding_without_the_character(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    accept_all_text()
    say(Console(), "Straße 🚗")
    sys.stdout.flush()
    assert raw.getvalue() == b"Stra\\xdfe \\U0001f697\n"


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    complain("u2pl: [/x]\x1b is missing")
    assert capsys.readouterr() == ("", "u2pl: [/x]\\x1b is missing\n")
