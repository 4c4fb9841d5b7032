"""Imports between the package's folders run one way, as docs/design.md says."""

from __future__ import annotations

import ast
import typing as t
from pathlib import Path

import pytest

import flask_mmolove

PACKAGE = Path(flask_mmolove.__file__).parent

#: The folders and the modules at the root. Each may import those below it.
ORDER = [
    # what a site imports
    "__init__",
    "testing",
    # what puts an app together, and what its owner sees and does
    "extension",
    "wiring",
    "admin",
    "sandbox",
    # the steps, from the visitor to the reward: a request captures, registers and
    # records; a worker delivers what is in the outbox and grants rewards
    "rewards",
    "registration",
    "capture",
    "state",
    "recording",
    "delivery",
    "outbox",
    # what they share
    "callbacks",
    "signals",
    "settings",
    "identity",
    "orm",
    "protocol",
    "clock",
    "log",
    "text",
    "errors",
]

#: What may be imported by the parts that work without the rest of the package.
ALONE = {
    "protocol": {"log", "text", "errors"},
    "sandbox": {"protocol", "text", "errors"},
}

#: What protocol/ must not need.
FOREIGN = {"flask", "werkzeug", "sqlite3", "sqlalchemy", "celery"}


class Import(t.NamedTuple):
    """``path:line`` imports a module, as a dotted name."""

    place: str
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.place} imports {self.target}"


def unit_of(name: str) -> str:
    """The folder, or the module at the root, that a name of the package is in."""
    return name.split(".")[1] if "." in name else "__init__"


def imports(node: ast.AST) -> t.Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module, those inside functions too, but not those for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from imports(child)


def targets(node: ast.Import | ast.ImportFrom, package: list[str]) -> list[str]:
    """The dotted names that an import in a package loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = package[: len(package) - node.level + 1] if node.level else []
    module = ".".join([*base, *filter(None, [node.module])])
    if module == "flask_mmolove":  # from . import signals
        return [f"{module}.{alias.name}" for alias in node.names]
    return [module]


def read() -> t.Iterator[Import]:
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE.parent)
        source = ".".join(path.with_suffix("").parts)
        for node in imports(ast.parse(file.read_text(encoding="utf-8"))):
            for target in targets(node, list(path.parent.parts)):
                yield Import(f"{path.as_posix()}:{node.lineno}", source, target)


IMPORTS = list(read())

#: Those that leave their folder for another of the package.
EDGES = [
    each
    for each in IMPORTS
    if each.target.split(".")[0] == "flask_mmolove"
    and unit_of(each.source) != unit_of(each.target)
]


def test_every_folder_has_its_place() -> None:
    units = {unit_of(name) for each in EDGES for name in (each.source, each.target)}
    assert units - set(ORDER) == set()
    assert len(EDGES) > 100  # or this test would read nothing


def test_imports_run_one_way() -> None:
    upwards = [
        str(each)
        for each in EDGES
        if ORDER.index(unit_of(each.source)) > ORDER.index(unit_of(each.target))
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("unit", ALONE)
def test_the_protocol_and_the_sandbox_work_alone(unit: str) -> None:
    edges = [each for each in EDGES if unit_of(each.source) == unit]
    wrong = [str(each) for each in edges if unit_of(each.target) not in ALONE[unit]]
    assert not wrong, "\n".join(wrong)


def test_the_protocol_needs_neither_flask_nor_a_store() -> None:
    wrong = [
        str(each)
        for each in IMPORTS
        if unit_of(each.source) == "protocol" and each.target.split(".")[0] in FOREIGN
    ]
    assert not wrong, "\n".join(wrong)


def test_an_import_inside_a_function_counts_and_one_for_types_does_not() -> None:
    module = ast.parse(
        "if t.TYPE_CHECKING:\n    from .a import A\n"
        "def f():\n    from ..b import B\n    from . import c\n"
    )
    found = [targets(node, ["flask_mmolove", "x"]) for node in imports(module)]
    assert found == [["flask_mmolove.b"], ["flask_mmolove.x"]]
    [alias] = imports(ast.parse("from .. import signals"))
    assert targets(alias, ["flask_mmolove", "x"]) == ["flask_mmolove.signals"]
