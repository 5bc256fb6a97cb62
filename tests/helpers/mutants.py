"""Small changes of meaning, made by rule from the syntax tree, each of which a test should notice.

Texts of errors, annotations, decorators and names of types are left as they are.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

OPERATORS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "is": "is not", "is not": "is",
    "in": "not in", "not in": "in", "and": "or", "or": "and", "+": "-", "-": "+", "*": "/", "/": "*",
    "//": "*", "%": "*", "**": "*", "<<": ">>", ">>": "<<", "|": "&", "&": "|",
    "+=": "-=", "-=": "+=",
}  # fmt: skip
OTHERS = {"min": "max", "max": "min", "any": "all", "all": "any"}
LIKE_SELF = {
    "abs",
    "clone",
    "contiguous",
    "copy",
    "detach",
    "double",
    "flatten",
    "padded",
}  # methods
FIXED = (ast.Starred, ast.Constant, ast.JoinedStr)  # arguments that nobody swaps with the next
TYPE = re.compile(r"[A-Z]|[A-Z]\w*[a-z]\w*")

Edit = tuple[int, int, str]  # characters from, to, and what stands there instead


@dataclass(frozen=True)
class Mutant:
    """An edit of the text of a file."""

    path: str
    text: str
    edit: Edit

    @property
    def line(self) -> int:
        return self.text.count("\n", 0, self.edit[0]) + 1

    @property
    def mutated(self) -> str:
        start, end, new = self.edit
        return self.text[:start] + new + self.text[end:]

    @property
    def change(self) -> tuple[str, str]:
        """The lines before and after, each as one."""
        start, end, new = self.edit
        first, last = self.text.rfind("\n", 0, start) + 1, self.text.find("\n", end)
        was, now = self.text[first:last], self.mutated[first : last + len(new) - (end - start)]
        return " ".join(was.split()), " ".join(now.split())

    @property
    def sound(self) -> bool:
        """Whether it is Python, and another program."""
        try:
            return ast.dump(ast.parse(self.mutated)) != ast.dump(ast.parse(self.text))
        except SyntaxError:
            return False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'  ->  '.join(self.change)}"


def mutants(path: str, text: str) -> list[Mutant]:
    """What the rules make of a file, from its beginning to its end."""
    source = Source(text)
    edits = {edit for node, around in nodes(source.tree) for edit in source.edits(node, around)}
    return [Mutant(path, text, edit) for edit in sorted(edits)]


def nodes(
    node: ast.AST, function: ast.AST | None = None
) -> Iterator[tuple[ast.AST, ast.AST | None]]:
    """What may be mutated at and below a node, with the function around it."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr():
            return
        case ast.keyword(arg="strict"):  # of zip, which asserts
            return
        case (
            ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.FunctionDef(name="__repr__" | "__str__")
        ):
            return
        case ast.Assign(targets=[ast.Name(id=name)]) if name == "__all__" or TYPE.fullmatch(name):
            return
    yield node, function
    inner = node if isinstance(node, ast.FunctionDef) else function
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in (
                "annotation",
                "returns",
                "decorator_list",
            ):
                yield from nodes(child, inner)


class Source:
    """The text of a file, its tree, and where its tokens lie."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, ast.parse(text)
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        skipped = (
            tokenize.COMMENT,
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
        )
        self.tokens = [
            (self.starts[token.start[0] - 1] + token.start[1], token.string)
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in skipped
        ]

    def span(self, node: ast.AST) -> tuple[int, int]:
        def at(line: int, column: int) -> int:  # the tree counts bytes
            return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)  # type: ignore

    def of(self, node: ast.AST) -> str:
        return self.text[slice(*self.span(node))]

    def edits(self, node: ast.AST, function: ast.AST | None) -> Iterator[Edit]:
        """The mutants of a node itself."""
        match node:
            case ast.Compare(left=left, comparators=rest):
                yield from self.other_operators([left, *rest])
            case ast.BoolOp(values=values):
                yield from self.other_operators(values)
            case ast.BinOp(left=left, right=right):
                yield from self.other_operators([left, right])
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                start, _ = self.span(node)
                yield start, next(at for at, _ in self.tokens if at > start), ""
            case ast.Constant(value=bool(value)):
                yield *self.span(node), str(not value)
            case ast.Constant(value=int(value) | float(value)):
                yield *self.span(node), repr(value + 1)
                yield *self.span(node), f"({value - 1!r})" if value < 1 else repr(value - 1)
            case ast.If(test=test, body=[ast.Raise()]):
                yield *self.span(test), "False"
            case ast.If(test=test) | ast.IfExp(test=test):
                yield *self.span(test), "False"
                yield *self.span(test), "True"
            case ast.comprehension(ifs=tests):
                yield from ((*self.span(test), "True") for test in tests)
            case ast.Call(func=ast.Name(id=name) as func) if name in OTHERS:
                yield *self.span(func), OTHERS[name]
            case ast.Call(func=ast.Name(id="isinstance" | "getattr")):
                pass  # other arguments would be no arguments
            case ast.Call(func=ast.Attribute(value=value, attr=name), args=[]) if name in LIKE_SELF:
                yield *self.span(node), self.of(value)
            case ast.Call():
                yield from self.other_arguments(node)
            case ast.AugAssign(target=target, value=value):
                yield from self.other_operators([target, value])
                yield *self.span(node), "pass"
            case ast.Expr(value=ast.Call()) | ast.Continue() | ast.Break():
                yield *self.span(node), "pass"
            case ast.Assign(targets=[target]) if function and rebinds(target, function):
                yield *self.span(node), "pass"
            case ast.Return(value=ast.Name(id=name) as value) if function:
                others = sorted(known(function).keys() - {name, "self", "cls"})
                yield from ((*self.span(value), other) for other in others[:1])

    def other_operators(self, operands: list[ast.expr]) -> Iterator[Edit]:
        for left, right in pairwise(operands):
            low, high = self.span(left)[1], self.span(right)[0]
            found = [
                (at, name) for at, name in self.tokens if low <= at < high and name not in "()"
            ]
            end = found[-1][0] + len(found[-1][1])
            if new := OPERATORS.get(" ".join(name for _, name in found)):
                yield found[0][0], end, new

    def other_arguments(self, call: ast.Call) -> Iterator[Edit]:
        """Two swapped, and one by name left out."""
        for a, b in pairwise(call.args):
            if not isinstance(a, FIXED) and not isinstance(b, FIXED):
                (low, end), (start, high) = self.span(a), self.span(b)
                yield low, high, self.of(b) + self.text[end:start] + self.of(a)
        for keyword in (keyword for keyword in call.keywords if keyword.arg != "strict"):
            start, end = self.span(keyword)
            after = next(at for at, _ in self.tokens if at >= end)
            if self.text[after] == ",":
                yield start, after + 1, ""
            else:  # the last one, and the comma before it where it is not the only one
                before = max(at for at, name in self.tokens if at < start)
                yield before + (self.text[before] == "("), end, ""


def rebinds(target: ast.expr, function: ast.AST) -> bool:
    """Whether the function still runs without an assignment."""
    if isinstance(target, ast.Name):
        return known(function)[target.id] > 1
    return isinstance(target, ast.Attribute | ast.Subscript)


def known(function: ast.AST) -> Counter[str]:
    """The names of a function's own, and how often each is bound."""
    arguments = [n.arg for n in ast.walk(function) if isinstance(n, ast.arg)]
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name)]
    return Counter([*arguments, *(n.id for n in names if isinstance(n.ctx, ast.Store))])
