"""Which names and symbolic expressions of an uploaded program may reach torch.

torch.fx writes the names of nodes, inputs and attributes into Python source text and runs it, and torch.export reads
symbolic sizes with sympy.sympify, which evaluates its text. Both are held to a grammar here.
"""

from __future__ import annotations

import ast
import keyword
import re

from compressors.archive_json import RESAVE, shorten, words
from compressors.errors import UnsafeArchive

MAX_NAME = 1000
MAX_EXPRESSION = 4000
_MAX_EXPONENT = 16
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*", re.ASCII)
# Few digits on purpose: torch.export counts up to the number of an unbacked symbol in a loop.
_SYMBOL = re.compile(r"[a-z]{1,4}[0-9]{1,6}", re.ASCII)
# Names that generated code uses itself; an input called so would change what the code means.
_RESERVED = frozenset({"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree", "math"})


def identifier(name: str, where: str) -> str:
    """A plain Python identifier, as torch.export gives to every node and input."""
    plain = _IDENTIFIER.fullmatch(name) and len(name) <= MAX_NAME and not name.startswith("__")
    if not plain or keyword.iskeyword(name) or name in _RESERVED:
        raise UnsafeArchive(
            f"{where}: {shorten(name)} is not a name that torch.export writes; names become source text, "
            f"so only letters, digits and _ are read; {RESAVE}"
        )
    return name


def dotted(name: str, where: str) -> str:
    """A module path such as 'layer1.0.conv1.weight'."""
    if not _DOTTED.fullmatch(name) or len(name) > MAX_NAME or any(part.startswith("__") for part in name.split(".")):
        raise UnsafeArchive(
            f"{where}: {shorten(name)} is not a module path; only letters, digits, _, - and dots are read; "
            "rename the module and export again"
        )
    return name


def symbol(name: str, where: str) -> str:
    """The name of a symbolic size, such as 's77' or 'u0'."""
    if not _SYMBOL.fullmatch(name):
        raise UnsafeArchive(f"{where}: {shorten(name)} is not the name of a symbolic size such as 's77'; {RESAVE}")
    return name


_FUNCTIONS = words(
    "Add Mul Pow Max Min Mod FloorDiv CleanDiv CeilDiv PythonMod ModularIndexing Where floor ceiling Abs "
    "FloorToInt CeilToInt RoundToInt TruncToInt TruncToFloat ToFloat IntTrueDiv FloatTrueDiv Identity Equality "
    "Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Eq Ne Lt Le Gt Ge And Or Not"
)
_CONSTANTS = frozenset({"true", "false", "oo", "int_oo"})
_ASSUMPTIONS = frozenset({"positive", "nonnegative", "negative", "integer", "real", "nonzero", "finite", "zero"})
_OPERATORS = (
    ast.Add,
    ast.Sub,
    ast.Mult,
    ast.Div,
    ast.FloorDiv,
    ast.Mod,
    ast.UAdd,
    ast.USub,
    ast.Eq,
    ast.NotEq,
    ast.Lt,
    ast.LtE,
    ast.Gt,
    ast.GtE,
)


def expression(text: str, where: str) -> str:
    """A symbolic size, e.g. "Mul(Integer(8), Symbol('s77', positive=True, integer=True))" or "2*s77 + 1".

    Integers, symbols, + - * / // %, comparisons and known functions; anything else raises UnsafeArchive, because
    sympify would evaluate it as Python.
    """
    if len(text) > MAX_EXPRESSION:
        raise UnsafeArchive(f"{where}: an expression of {len(text)} characters; the limit is {MAX_EXPRESSION}")
    try:
        tree = ast.parse(text, mode="eval")
        allowed = text.isascii() and _is_arithmetic(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        allowed = False
    if not allowed:
        raise UnsafeArchive(
            f"{where}: {shorten(text)} is not a symbolic size; sizes are evaluated when a model is loaded, "
            f"so only arithmetic on symbols is read; {RESAVE}"
        )
    return text


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return _is_number(value)
        case ast.Name(id=name):
            return name in _CONSTANTS or _SYMBOL.fullmatch(name) is not None
        case ast.UnaryOp(op=op, operand=operand):
            return isinstance(op, _OPERATORS) and _is_arithmetic(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return isinstance(op, _OPERATORS) and _is_arithmetic(left) and _is_arithmetic(right)
        case ast.Compare(left=left, ops=ops, comparators=rest):
            return all(isinstance(op, _OPERATORS) for op in ops) and all(map(_is_arithmetic, [left, *rest]))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _is_known_call(name, args, keywords)
        case _:
            return False


def _is_known_call(name: str, args: list[ast.expr], keywords: list[ast.keyword]) -> bool:
    if name == "Symbol":  # Symbol('s77', positive=True, integer=True)
        return (
            len(args) == 1
            and isinstance(args[0], ast.Constant)
            and isinstance(args[0].value, str)
            and _SYMBOL.fullmatch(args[0].value) is not None
            and all(k.arg in _ASSUMPTIONS and _is_boolean(k.value) for k in keywords)
        )
    if name == "Float":  # Float('0.5', precision=53)
        return (
            len(args) == 1
            and isinstance(args[0], ast.Constant)
            and re.fullmatch(r"-?[0-9.]{1,40}(e[+-]?[0-9]{1,3})?", str(args[0].value)) is not None
            and all(k.arg == "precision" and _is_small(k.value, 200) for k in keywords)
        )
    if name in ("Integer", "Rational"):
        return not keywords and 1 <= len(args) <= 2 and all(map(_is_literal_number, args))
    if name in ("Pow", "PowByNatural"):  # a large exponent would keep sympy busy for hours
        return not keywords and len(args) == 2 and _is_arithmetic(args[0]) and _is_exponent(args[1])
    return name in _FUNCTIONS and not keywords and all(map(_is_arithmetic, args))


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float) and abs(value) < 2**64


def _is_boolean(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_small(node: ast.expr, limit: int) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= limit


def _is_literal_number(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) is int and _is_number(node.value)


def _is_exponent(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Integer":
        return len(node.args) == 1 and not node.keywords and _is_exponent(node.args[0])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return _is_small(node, _MAX_EXPONENT)
