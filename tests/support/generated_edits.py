"""Single edits of a module that its syntax tree allows: each changes what one expression or statement does."""

import ast
import hashlib
from collections.abc import Iterator

from edits import PACKAGE, Edit

COMPARISONS: dict[type[ast.cmpop], ast.cmpop] = {
    **{ast.Lt: ast.LtE(), ast.LtE: ast.Lt(), ast.Gt: ast.GtE(), ast.GtE: ast.Gt(), ast.Eq: ast.NotEq()},
    **{ast.NotEq: ast.Eq(), ast.Is: ast.IsNot(), ast.IsNot: ast.Is(), ast.In: ast.NotIn(), ast.NotIn: ast.In()},
}
OPERATORS: dict[type[ast.operator], ast.operator] = {
    **{ast.Add: ast.Sub(), ast.Sub: ast.Add(), ast.Mult: ast.Div(), ast.Div: ast.Mult(), ast.Pow: ast.Mult()},
    **{ast.FloorDiv: ast.Mod(), ast.Mod: ast.FloorDiv(), ast.BitOr: ast.BitAnd(), ast.BitAnd: ast.BitOr()},
    **{ast.LShift: ast.RShift(), ast.RShift: ast.LShift(), ast.BitXor: ast.BitOr(), ast.MatMult: ast.Mult()},
}
LEFT_OUT = ("abs", "list", "reversed", "round", "set", "sorted", "tuple")  # functions whose argument may stand alone


def generated_edits(module: str) -> Iterator[Edit]:
    """Yield all edits of a module, a path in us3l, in an order that depends on their own text alone."""
    text = (PACKAGE / module).read_text()
    edits = sorted(edits_of(text, module), key=lambda edit: hashlib.sha256(repr(edit).encode()).digest())
    yield from (edit for edit in edits if _is_python(text.replace(edit.old, edit.new)))


def edits_of(text: str, module: str) -> set[Edit]:
    """Return all edits of a module's text; some may be no Python."""
    tree = ast.parse(text)
    silent = {id(each) for node in ast.walk(tree) for each in _silent(node)}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.expr | ast.stmt) and id(node) not in silent]
    edits = {_edit(module, text, node, new) for node in nodes for new in _variants(node)}
    edits |= {
        _edit(module, text, node, f"(not {ast.unparse(node)})") for node in _conditions(tree) if id(node) not in silent
    }
    return {edit for edit in edits if edit.old != edit.new}


def _conditions(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test) | ast.comprehension(ifs=[test]):
                yield test


def _silent(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is only said or typed, or guards against faults of the package: messages, annotations, assertions."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert():
            yield from ast.walk(node)
        case ast.If(test=ast.Name(id="TYPE_CHECKING") as test):
            yield test
        case ast.keyword(arg="strict", value=value):
            yield value
        case ast.ClassDef(decorator_list=decorators):
            yield from (each for decorator in decorators for each in ast.walk(decorator))
        case ast.arg(annotation=ast.expr() as typed) | ast.AnnAssign(annotation=typed):
            yield from ast.walk(typed)
        case ast.FunctionDef(returns=ast.expr() as typed):
            yield from ast.walk(typed)


def _variants(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Yield texts that may stand in the place of an expression or a statement."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=rest):
            yield _text(ast.Compare(left, [COMPARISONS[type(op)]], rest))
        case ast.BinOp(left=left, op=op, right=right) if not isinstance(left, ast.JoinedStr):
            yield _text(ast.BinOp(left, OPERATORS[type(op)], right))
        case ast.BoolOp(op=op, values=values):
            yield _text(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
            yield from map(_text, values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield _text(operand)
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() as value):
            yield str(value + 1)
        case ast.Constant(value=float() as value):
            yield str(value * 2 or 1.0)
        case ast.Slice(lower=lower, upper=upper) if lower and upper:
            yield _text(ast.Slice(None, upper))[1:-1]
        case ast.Call():
            yield from _calls(node)
        case ast.GeneratorExp() | ast.ListComp() | ast.SetComp() | ast.DictComp() if node.generators[0].ifs:
            first, *others = node.generators
            everything = ast.comprehension(first.target, first.iter, [], first.is_async)
            yield _text(type(node)(**{**vars(node), "generators": [everything, *others]}))
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Return(value=ast.expr()):
            yield "return None" if isinstance(node, ast.Return) else "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]) | ast.Continue():
            yield "pass"


def _calls(node: ast.Call) -> Iterator[str]:
    function, given, keywords = node.func, node.args, node.keywords
    for keyword in keywords:
        if keyword.arg != "strict":
            yield _text(ast.Call(function, given, [each for each in keywords if each is not keyword]))
    match given:
        case [ast.Starred(), *_] | [_, ast.Starred(), *_]:
            pass
        case [one, other, *rest]:
            yield _text(ast.Call(function, [other, one, *rest], keywords))
        case [only] if isinstance(function, ast.Name) and function.id in LEFT_OUT:
            yield _text(only)
        case [] if isinstance(function, ast.Attribute) and not keywords:
            yield _text(function.value)


def _text(node: ast.AST) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"


def _edit(module: str, text: str, node: ast.expr | ast.stmt, new: str) -> Edit:
    """Return the edit of whole lines, with as many of those before as make their text unique."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    lines = text.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, node.end_lineno
    old = b"".join(lines[first:last])
    edited = lines[first][: node.col_offset] + new.encode() + lines[last - 1][node.end_col_offset :]
    while text.encode().count(old) > 1:
        first -= 1
        old, edited = lines[first] + old, lines[first] + edited
    return Edit(module, old.decode(), edited.decode())


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
