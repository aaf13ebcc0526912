"""YAML as a configuration needs it: sections, keys that are names, plain values. Everything else is an error.

A key that comes twice, an alias, a tag, or a date is a mistake in a configuration, or an attack. PyYAML takes the
second of two keys without a word, expands aliases without a limit, and raises many kinds of errors.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from u2pl.errors import quoted

_DEEPEST = 30  # levels of sections and lists
_SCALARS = ("null", "bool", "int", "float", "str")


class StrictYamlError(ValueError):
    """Text that is no YAML of a configuration. The message is one line, with the line number."""


def load(text: str) -> Any:
    """The value of a YAML text: None, bool, int, float, str, and lists and dicts of them with text as keys.

    Dates stay text, and so do numbers that Python cannot read (``0b_``, thousands of digits) or that other programs
    read otherwise (``010``, ``12:30``). Raises StrictYamlError for everything that a configuration cannot hold.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = ", ".join(part for part in (error.context, error.problem) if part)
        raise StrictYamlError(f"line {mark.line + 1}: {why}" if mark else why) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise StrictYamlError(f"line {line}: a control character is not allowed") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise StrictYamlError(" ".join(str(error).split()) or type(error).__name__) from error
    except RecursionError as error:
        raise StrictYamlError("it is nested too deeply") from error


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases, tags, dates, merge keys and repeated keys."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {}
    yaml_implicit_resolvers: dict[Any, Any] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _problem("anchors (&name) and aliases (*name) are not allowed; write the value out", event)
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _problem(f"it is nested more than {_DEEPEST} levels deep", event)
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _problem("here should be keys with values", node)
        found: dict[Hashable, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, str):
                written = key_node.value if isinstance(key_node, yaml.ScalarNode) else key
                raise _problem(f"the key {written} is not a name; quote it, or correct it", key_node)
            line = key_node.start_mark.line + 1
            if key in found:
                raise _problem(f"the key {quoted(key)} comes again, first in line {lines[key]}; keep one", key_node)
            lines[key] = line
            found[key] = self.construct_object(value_node, deep=deep)  # type: ignore[no-untyped-call]
        return found

    def value_or_text(self, node: Any) -> Any:
        """A bool, an int or a float, or the text of one that Python cannot read."""
        text = self.construct_scalar(node)
        digits = text.lstrip("+-")
        if ":" in text or (len(digits) > 1 and digits[0] == "0" and digits[1:2].isdigit() and "." not in text):
            return text
        read = yaml.SafeLoader.yaml_constructors[node.tag]
        try:
            return read(self, node)
        except (ValueError, LookupError):
            return text


def _problem(what: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, what, place.start_mark)


def _refused(loader: Any, node: Any) -> Any:
    raise _problem(f"the tag {quoted(node.tag)} is not allowed; write a plain value", node)


for _first, _resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
    _Loader.yaml_implicit_resolvers[_first] = [
        (tag, pattern) for tag, pattern in _resolvers if tag.rpartition(":")[2] in _SCALARS
    ]
for _name in (*_SCALARS, "seq", "map"):
    _tag = f"tag:yaml.org,2002:{_name}"
    _Loader.yaml_constructors[_tag] = yaml.SafeLoader.yaml_constructors[_tag]
for _name in ("bool", "int", "float"):
    _Loader.yaml_constructors[f"tag:yaml.org,2002:{_name}"] = _Loader.value_or_text
_Loader.yaml_constructors[None] = _refused
