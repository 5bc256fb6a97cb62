"""Elementwise expressions as code of the operation `Map`, each value in a register while it is needed.

    e = Expression()
    x, scale, shift = e.load(0), e.load(1), e.load(2)
    e.store(0, e.apply("add", e.apply("multiply", x, e.apply("add", scale, 1.0)), shift))
    params = filled(_cpu.MapParams(), e.code(), shape, inputs, outputs)

`e.of(("add", ("multiply", ("input", 0), ("input", 1)), ("constant", 1.0)))` makes a value of a nested term.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

REGISTERS = 16
FEW = 8  # registers that are taken in turn: what the next block has in common may still be there
DIMS = 5

# Operands and constants of each function; csrc/cpu/native/map.h says what they do.
FUNCTIONS = {
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), (2, 0)),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), (2, 0)),
    **dict.fromkeys(
        ("negate", "abs", "square", "sqrt", "rsqrt", "reciprocal", "floor", "round"), (1, 0)
    ),
    **dict.fromkeys(("exp", "log", "sin", "cos", "tanh", "erf", "sigmoid", "silu"), (1, 0)),
    **dict.fromkeys(("gelu", "gelu_tanh", "relu", "softplus", "mish", "hardswish"), (1, 0)),
    "pow": (1, 1),
    "where": (3, 0),
}


class TooManyRegisters(ValueError):
    """More values are alive at once than there are registers: the expression is to be cut in two."""


@dataclass(frozen=True)
class Instruction:
    """`function` of registers. `to` is a register, or the output of a store; a load's operand is an input."""

    function: str
    to: int
    operands: tuple[int, ...] = ()
    x: float = 0.0


@dataclass(frozen=True)
class Value:
    """One of an expression: its place among the values."""

    index: int


@dataclass(frozen=True)
class _Node:
    function: str
    operands: tuple[int, ...] = ()
    x: float = 0.0


@dataclass
class Expression:
    """Values in the order in which they were made, equal ones once, and what is stored."""

    _nodes: list[_Node] = field(default_factory=list)
    _needs: list[int] = field(
        default_factory=list
    )  # registers that a value needs, were nothing shared
    _found: dict[tuple[object, ...], int] = field(default_factory=dict)
    _stores: list[tuple[int, int]] = field(default_factory=list)  # (output, value)

    def load(self, place: int) -> Value:
        """The input of this number."""
        return self._value(_Node("load", (place,)))

    def constant(self, x: float) -> Value:
        return self._value(_Node("constant", (), float(x)))

    def apply(
        self, function: str, *operands: Value | float, constants: Sequence[float] = ()
    ) -> Value:
        """`function`, one of FUNCTIONS, of values or numbers."""
        if function not in FUNCTIONS:
            raise ValueError(
                f"map has no function {function!r}; it has {', '.join(sorted(FUNCTIONS))}"
            )
        if (len(operands), len(constants)) != FUNCTIONS[function]:
            wanted, numbers = FUNCTIONS[function]
            raise ValueError(
                f"map's {function} takes {wanted} operands and {numbers} constants, "
                f"not {len(operands)} and {len(constants)}"
            )
        if function == "pow" and (simple := self._power(operands[0], constants[0])):
            return simple
        given = tuple(self._operand(operand) for operand in operands)
        return self._value(_Node(function, given, *map(float, constants)))

    def store(self, output: int, value: Value | float) -> None:
        self._stores.append((output, self._operand(value)))

    def code(self) -> list[Instruction]:
        """Instructions for what is stored; raises TooManyRegisters.

        Nothing is stored before all is read, so that an output may take an input's memory. The value that is
        made last is stored first: it need not pass through a register.
        """
        order = self._order()
        stores = sorted(self._stores, key=lambda store: -order.index(store[1]))
        last = {operand: i for i, node in enumerate(order) for operand in self._registers_of(node)}
        last |= {value: len(order) for _, value in stores}
        free, code = list(range(REGISTERS)), []
        at: dict[int, int] = {}
        for i, value in enumerate(order):
            node = self._nodes[value]
            registers = self._registers_of(value)
            operands = node.operands if node.function == "load" else tuple(at[v] for v in registers)
            free += sorted({at[v] for v in registers if last[v] == i})
            if not free:
                raise TooManyRegisters(
                    f"{len(at)} values of this expression are made before the {REGISTERS + 1}th that is "
                    f"alive; there are {REGISTERS} registers: cut the expression in two"
                )
            at[value] = next((r for r in free if r < FEW), min(free))
            free.remove(at[value])
            code.append(Instruction(node.function, at[value], operands, node.x))
        return code + [Instruction("store", output, (at[value],)) for output, value in stores]

    def of(self, term: tuple[Any, ...]) -> Value:
        """The value of ("input", i), ("constant", x) or (function, term, ..., constant terms)."""
        name, *parts = term
        if name == "input":
            return self.load(parts[0])
        if name == "constant":
            return self.constant(parts[0])
        operands, _ = FUNCTIONS.get(name, (len(parts), 0))
        numbers: list[float] = []
        for part in parts[operands:]:
            if part[0] != "constant":
                raise ValueError(
                    f"map's {name} takes numbers after {operands} operands, not {part[0]!r}"
                )
            numbers.append(part[1])
        return self.apply(name, *map(self.of, parts[:operands]), constants=numbers)

    def _value(self, node: _Node) -> Value:
        key = (node.function, node.operands, node.x.hex())  # -0.0 is not 0.0
        if key not in self._found:
            self._found[key] = len(self._nodes)
            self._nodes.append(node)
            # Sethi and Ullman 1970.
            operands = set(self._registers_of(self._found[key]))
            needs = sorted((self._needs[v] for v in operands), reverse=True)
            self._needs.append(max((need + i for i, need in enumerate(needs)), default=1))
        return Value(self._found[key])

    def _operand(self, operand: Value | float) -> int:
        return operand.index if isinstance(operand, Value) else self.constant(operand).index

    def _power(self, base: Value | float, exponent: float) -> Value | None:
        """The powers that need no logarithm, as torch makes them."""
        names = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
        if exponent in names:
            return self.apply(names[exponent], base)
        if exponent == 3.0:
            return self.apply("multiply", self.apply("square", base), base)
        if exponent == -2.0:
            return self.apply("reciprocal", self.apply("square", base))
        return None

    def _registers_of(self, value: int) -> tuple[int, ...]:
        node = self._nodes[value]
        return () if node.function == "load" else node.operands

    def _order(self) -> list[int]:
        """What the stored values need, each after its operands and as late as that allows."""
        order: list[int] = []
        done: set[int] = set()
        stack = [(value, False) for _, value in reversed(self._stores)]
        while stack:
            value, ready = stack.pop()
            if value in done:
                continue
            if ready:
                done.add(value)
                order.append(value)
                continue
            stack.append((value, True))
            # The operand that needs the most registers is made first: it comes off the stack first.
            stack += [
                (v, False) for v in sorted(self._registers_of(value), key=self._needs.__getitem__)
            ]
        return order


def filled(
    params: Any,
    code: Sequence[Instruction],
    shape: Sequence[int],
    inputs: Sequence[tuple[int, Sequence[int], str]],
    outputs: Sequence[tuple[int, Sequence[int]]],
) -> Any:
    """A new MapParams with code for elements of a shape. An input is (address, strides, dtype), an output
    (address, strides), of as many axes as the shape; a dtype is float32, float64, int64, int32 or bool."""
    params.size = padded(shape, 1)
    for address, strides, dtype in inputs:
        params.input(address, padded(strides, 0), dtype)
    for address, strides in outputs:
        params.output(address, padded(strides, 0))
    for line in code:
        params.add(line.function, line.to, line.operands, line.x)
    return params


def padded(numbers: Sequence[int], fill: int) -> list[int]:
    """As many as Map has axes, the last ones being these."""
    if len(numbers) > DIMS:
        raise ValueError(
            f"map takes {DIMS} axes at most, not {len(numbers)}: merge those that lie together"
        )
    return [fill] * (DIMS - len(numbers)) + list(numbers)
