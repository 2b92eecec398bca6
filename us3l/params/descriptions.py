"""Descriptions of the fields of params classes: the docstrings below them in the source."""

import ast
import inspect
import textwrap


def field_descriptions(model: type) -> dict[str, str]:
    """Return the description of each field of a class, its own and those that it inherits, by name."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__.startswith("us3l."):
            found |= _described(each)
    return found


def _described(model: type) -> dict[str, str]:
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(description))):
                found[name] = inspect.cleandoc(description)
    return found
