"""The code that a stage depends on: every module of this package that it imports, directly or not."""

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_WITH_DOCSTRING = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_of(module: str) -> dict[str, str]:
    """For `module` and all it imports from us3l, 12 hexadecimal digits of the SHA-256 of what the source says.

    That is its syntax tree without comments, docstrings and layout.
    """
    return {name: _hash(_file(name)) for name in sorted(closure(module))}


@cache
def closure(module: str) -> frozenset[str]:
    """The names of `module`, of every us3l module that it imports, inside functions too, and of their packages."""
    found, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in found and _file(name) is not None:
            found.add(name)
            waiting += [_package(name), *_imports(name)]
    return frozenset(found)


def _file(module: str) -> Path | None:
    place = _PACKAGE.joinpath(*module.split(".")[1:])
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if module.split(".")[0] == "us3l" and path.is_file()), None)


def _package(module: str) -> str:
    return module.rpartition(".")[0]


@cache
def _imports(module: str) -> list[str]:
    path, names = _file(module), []
    package = module if path.name == "__init__.py" else _package(module)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return names


@cache
def _hash(path: Path) -> str:
    return hashlib.sha256(_meaning(path).encode()).hexdigest()[:12]


def _meaning(path: Path) -> str:
    """What the source says without docstrings, comments and layout, the same in every version of Python."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node):
            node.body = node.body[1:]
    return repr(_plain(tree))


def _plain(node: Any) -> Any:
    """A syntax tree as tuples. Fields that are empty are left out: newer Pythons have more of them."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return type(node).__name__, fields
    return [_plain(each) for each in node] if isinstance(node, list) else node
