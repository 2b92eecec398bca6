"""Hashes of the code that a stage depends on: every module of this package that it imports, directly or not.

Likewise of the code of a user's own network: every module of the project's folder and of this package.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from us3l.utils.errors import UserError
from us3l.utils.reading import read_plain

MOST_BYTES = 2**22  # of a module

_PACKAGE = Path(__file__).parent.parent


def code_of(*modules: str, project: Path | None = None, ignored: str = "") -> dict[str, str]:
    """Return for each module of a closure 12 hexadecimal digits of the SHA-256 of its code.

    The code is the syntax tree without comments, docstrings and layout.
    """
    return {
        name: _read(_file(name, project))[1] for name in sorted(closure(*modules, project=project, ignored=ignored))
    }


def is_custom(backbone: str) -> bool:
    """Tell whether a backbone is a user's own function, `module:function`."""
    return ":" in backbone


def code_of_network(backbone: str) -> dict[str, str]:
    """Return `code_of` the module of a custom network in the current directory; empty for a built-in one.

    Raises UserError where the module is missing.
    """
    if not is_custom(backbone):
        return {}
    source_file(backbone)
    return code_of(backbone.partition(":")[0], project=Path.cwd())


def files_of_network(backbone: str) -> list[Path]:
    """Return the project's files in `code_of_network`, relative to the current directory."""
    if not is_custom(backbone):
        return []
    files = [_file(name, Path.cwd()) for name in closure(backbone.partition(":")[0], project=Path.cwd())]
    return sorted(path.relative_to(Path.cwd()) for path in files if path and not path.is_relative_to(_PACKAGE))


def source_file(builder: str) -> Path:
    """Return the file of a `module:function` in the current directory. Raises UserError where it is missing."""
    module = builder.partition(":")[0]
    if (file := _file(module, Path.cwd())) is None:
        what = f"there is no module {module}, since {Path.cwd()} has no file {module.replace('.', '/')}.py"
        raise UserError(f"backbone {builder}: {what}; write it, or correct the name")
    return file


@cache
def closure(*modules: str, project: Path | None = None, ignored: str = "") -> frozenset[str]:
    """Return the modules, every module that they import, inside functions too, and the packages of all, by name.

    Modules are those of us3l, and those in the folder `project` where one is given. Imports from the package `ignored`
    are left out.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found and (path := _file(name, project)) is not None:
            found.add(name)
            names = [_package(name), *_imports(name, path)]
            waiting += [each for each in names if not ignored or not f"{each}.".startswith(f"{ignored}.")]
    return frozenset(found)


def _file(module: str, project: Path | None) -> Path | None:
    first, *rest = module.split(".")
    folder = _PACKAGE if first == "us3l" else project and first and project / first
    if not folder:
        return None
    place = folder.joinpath(*rest)
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _package(module: str) -> str:
    return module.rpartition(".")[0]


def _imports(module: str, path: Path) -> list[str]:
    names = []
    package = module if path.name == "__init__.py" else _package(module)
    for node in _read(path)[0]:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        else:
            source = _absolute("." * node.level + (node.module or ""), package, path)
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return names


def _absolute(name: str, package: str, path: Path) -> str:
    try:
        return resolve_name(name, package)
    except ImportError:
        raise UserError(f"{path}: cannot import {name} from outside its package: name the module in full") from None


@cache
def _read(path: Path) -> tuple[list[ast.Import | ast.ImportFrom], str]:
    """Return the imports of a source file and the hash of its code. Raises UserError where it is not Python."""
    try:
        tree = ast.parse(read_plain(path, MOST_BYTES), path.name)
        canonical = _canonical(tree)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not readable as Python: {error}") from None
    except (RecursionError, MemoryError):  # the latter is of the parser's stack
        raise UserError(f"{path}: not readable as Python: nested too deeply") from None
    imports = [each for each in _statements(tree) if isinstance(each, ast.Import | ast.ImportFrom)]
    return imports, hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements in a node, nested ones too."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for each in getattr(node, block, ()):
            yield each
            yield from _statements(each)


def _canonical(value: Any) -> str:
    """Return a syntax tree as text without docstrings, comments and layout, the same in every version of Python.

    Docstrings of attributes are left out, too: any statement that is a string alone. So are empty fields: newer Pythons
    have more of these.
    """
    if isinstance(value, list):
        return f"[{', '.join([_canonical(each) for each in value if not _is_docstring(each)])}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for name in value._fields:
        field = getattr(value, name, None)
        if field is not None and (text := _canonical(field)) != "[]":
            fields.append(f"({name!r}, {text})")
    return f"({type(value).__name__!r}, [{', '.join(fields)}])"


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
