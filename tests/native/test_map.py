"""The operation `Map` against torch in float64: its functions, random expressions, strides, and bits."""

import math
import random

import pytest
import torch

from diffusion_engine.native.expression import FUNCTIONS, Expression, TooManyRegisters, filled

_cpu = pytest.importorskip("diffusion_engine._cpu")

REFERENCE = {
    "add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "divide": torch.div,
    "maximum": torch.maximum, "minimum": torch.minimum, "negate": torch.neg, "abs": torch.abs,
    "square": torch.square, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal,
    "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "silu": lambda a: a * torch.sigmoid(a), "erf": torch.erf, "relu": torch.relu,
    "gelu": lambda a: a * 0.5 * torch.special.erfc(-a * math.sqrt(0.5)),
    "gelu_tanh": lambda a: a * torch.sigmoid(math.sqrt(8 / math.pi) * (a + 0.044715 * a**3)),
    "softplus": lambda a: torch.where(a > 20, a, torch.log1p(torch.exp(a))), "pow": torch.pow,
    "mish": lambda a: a * torch.tanh(torch.log1p(torch.exp(a))), "round": torch.round,
    "hardswish": lambda a: a * (a + 3).clamp(0, 6) / 6, "floor": torch.floor,
    "where": lambda a, b, c: torch.where(a != 0, b, c),
    "gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le, "eq": torch.eq, "ne": torch.ne,
}  # fmt: skip
CONSTANTS = {"pow": (1.7,)}


@pytest.fixture(params=_cpu.isas(), autouse=True)
def isa(request):
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


def run(expression, inputs, outputs, threads=1):
    """Inputs are expanded to the shape of the outputs."""
    shape = outputs[0].shape
    wide = [i.expand(shape) for i in inputs]
    params = filled(
        _cpu.MapParams(),
        expression.code(),
        shape,
        [(i.data_ptr(), i.stride(), str(i.dtype).removeprefix("torch.")) for i in wide],
        [(o.data_ptr(), o.stride()) for o in outputs],
    )
    _cpu.map(params, threads)


def of(name, *inputs, constants=()):
    e = Expression()
    e.store(0, e.apply(name, *map(e.load, range(len(inputs))), constants=constants))
    out = torch.full(torch.broadcast_shapes(*(i.shape for i in inputs)), math.nan)
    run(e, inputs, [out])
    return out


def units(got, exact):
    """Errors in units of the last place of float32."""
    exponent = torch.frexp(exact)[1].clamp(min=-125)
    return (got.double() - exact).abs() / torch.ldexp(torch.ones_like(exact), exponent - 24)


def arguments(name):
    """Dense and far ones of a function of one operand."""
    far = {
        "exp": 87,
        "log": 1e30,
        "sin": 1e6,
        "cos": 1e6,
        "sqrt": 1e30,
        "rsqrt": 1e30,
        "pow": 1e6,
    }.get(name, 80)
    if name in ("silu", "sigmoid", "mish", "softplus"):
        far = 40
    if name in ("gelu", "gelu_tanh"):
        far = 9
    torch.manual_seed(0)
    near = torch.linspace(-far, far, 200_003)
    x = torch.cat(
        [near, torch.randn(200_001) * 3, torch.randn(50_000) * 1e-3, torch.randn(999) * 1e-20]
    )
    x = x[x.abs() <= far]
    return x.abs() if name in ("log", "sqrt", "rsqrt", "pow") else x


# The scalar code's multiplications and additions round separately.
LOOSE = {"gelu": 3, "mish": 3.5}


@pytest.mark.parametrize(
    "name", [name for name, (operands, _) in FUNCTIONS.items() if operands == 1]
)
def test_functions_of_one_operand(name, isa):
    x, constants = arguments(name), CONSTANTS.get(name, ())
    constants = tuple(float(torch.tensor(c)) for c in constants)
    exact = REFERENCE[name](x.double(), *constants)
    got = of(name, x, constants=constants)
    error = units(got, exact)
    worst = int(error.argmax())
    print(f"{isa} {name}: {error.max():.2f} units at {x[worst].item()!r}")
    bound = LOOSE.get(name, 2) + (isa == "scalar")
    assert error.max() <= bound, (x[worst].item(), got[worst].item(), exact[worst].item())


def test_functions_of_more(isa):
    torch.manual_seed(1)
    a, b, c = torch.randn(3, 4099)
    a[::3], b[::7] = b[::3], 0.0
    for name, (operands, _) in FUNCTIONS.items():
        if operands == 1:
            continue
        given = [a, b, c][:operands]
        exact = REFERENCE[name](*(g.double() for g in given)).double()
        assert torch.equal(of(name, *given), exact.float()), name


def test_not_finite():
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-42, -1e-42, 3e38, -3e38])
    for name in (name for name, (operands, _) in FUNCTIONS.items() if operands == 1):
        if name in (
            "silu",
            "mish",
        ):  # -infinity where torch has NaN, and a little for the lowest numbers
            x = x[~(x < -1e30)]
        constants = CONSTANTS.get(name, ())
        expected = REFERENCE[name](x, *constants)
        if name == "gelu":
            expected = x * 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
        got = of(name, x, constants=constants)
        torch.testing.assert_close(got, expected, equal_nan=True, rtol=1e-6, atol=1.2e-38, msg=name)
    y = x.flip(0)
    for name in (
        "maximum",
        "minimum",
        "gt",
        "ge",
        "lt",
        "le",
        "eq",
        "ne",
        "add",
        "multiply",
        "divide",
    ):
        assert torch.equal(
            of(name, x, y).nan_to_num(77), REFERENCE[name](x, y).float().nan_to_num(77)
        ), name
    for name in ("maximum", "minimum"):
        assert torch.equal(of(name, y, x).isnan(), x.isnan() | y.isnan())


def test_sin_and_cos_of_what_is_too_large():
    x = torch.cat([torch.linspace(9e5, 4e7, 5001), torch.tensor([1e10, 1e20, 3e38, -3e38])])
    for name in ("sin", "cos"):
        assert units(of(name, x), REFERENCE[name](x.double())).max() <= 2


# What random expressions are made of: functions that keep their values within a range where float32 is near.
CALM = (
    "add",
    "subtract",
    "multiply",
    "maximum",
    "minimum",
    "abs",
    "negate",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
)
CALM += (
    "silu",
    "gelu",
    "gelu_tanh",
    "relu",
    "where",
    "softplus",
    "mish",
    "hardswish",
)


def grown(rng, expression, values, exact, count):
    """Adds `count` functions of what is there, and their values in float64."""
    for _ in range(count):
        name = rng.choice(CALM)
        operands, _ = FUNCTIONS[name]
        chosen = [rng.randrange(len(values)) for _ in range(operands)]
        given, known = [values[i] for i in chosen], [exact[i] for i in chosen]
        if operands == 2 and rng.random() < 0.2:
            number = float(torch.tensor(rng.uniform(-2, 2)))
            given[1], known[1] = number, torch.tensor(number, dtype=torch.float64)
        constants = tuple(float(torch.tensor(c)) for c in CONSTANTS.get(name, ()))
        values.append(expression.apply(name, *given, constants=constants))
        exact.append(REFERENCE[name](*known, *constants).double())


def cast(x):
    return x.float() if x.dtype == torch.float32 else x.double().float()


SHAPES = [
    (1,),
    (7,),
    (3, 5),
    (2, 7, 130),
    (1, 1, 1, 1),
    (2, 3, 4, 5, 6),
    (5, 1, 1029),
    (3, 64, 64),
    (2, 0, 3),
]


def some_inputs(rng, shape):
    """Whole ones, transposed ones, gaps, broadcast axes, and other dtypes."""
    turned = torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))
    wide = torch.randn(*shape[:-1], 2 * shape[-1] + 3)[..., 1 : 2 * shape[-1] + 1 : 2]
    ones = torch.randn([n if rng.random() < 0.5 else 1 for n in shape])
    whole = torch.randint(-3, 3, shape[-1:])
    others = [
        whole,
        whole.int(),
        whole > 0,
        torch.randn(shape).double(),
        torch.randn((*shape[:-1], 1)),
    ]
    return [torch.randn(shape), turned, wide, ones, *others]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_expressions(shape):
    for seed in range(12):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        inputs = some_inputs(rng, shape)
        expression = Expression()
        values = [expression.load(i) for i in range(len(inputs))]
        exact = [cast(i).double() for i in inputs]
        grown(rng, expression, values, exact, 2 + 2 * seed)
        outs = [torch.full(shape, math.nan) for _ in range(3)]
        outs[1] = torch.full((*shape[:-1], 3, shape[-1]), math.nan).select(-2, 1)
        outs[2] = torch.full(shape[::-1], math.nan).permute(*reversed(range(len(shape))))
        kept = list(
            zip(outs, (len(values) - 1, rng.randrange(len(values)), len(values) // 2), strict=True)
        )
        for i, (_, value) in enumerate(kept):
            expression.store(i, values[value])
        try:
            expression.code()
        except TooManyRegisters:
            continue
        run(expression, inputs, outs)
        for out, value in kept:
            torch.testing.assert_close(
                out.double(), exact[value].expand(shape), rtol=2e-4, atol=2e-5
            )
        again = [torch.full_like(out, math.nan) for out in outs]
        run(expression, inputs, again, threads=5)
        assert all(torch.equal(a, b) for a, b in zip(outs, again, strict=True))


def test_bits_depend_on_no_place():
    """An element alone has the bits that it has in a row."""
    torch.manual_seed(2)
    x = torch.randn(1, 1031) * 3
    for name in (name for name, (operands, _) in FUNCTIONS.items() if operands == 1):
        constants = CONSTANTS.get(name, ())
        whole = of(name, x, constants=constants)
        shifted = of(name, x[:, 3:].clone(), constants=constants)
        alone = torch.cat(
            [of(name, x[:, i : i + 1].clone(), constants=constants) for i in range(40)], 1
        )
        assert torch.equal(whole[:, 3:].nan_to_num(77), shifted.nan_to_num(77))
        assert torch.equal(whole[:, :40].nan_to_num(77), alone.nan_to_num(77))


def test_in_place_and_several_outputs():
    """An output may take an input's memory, also where another one is stored before."""
    torch.manual_seed(3)
    x, y = torch.randn(2, 3, 2049)
    a, b = x.clone(), y.clone()
    e = Expression()
    first, second = e.load(0), e.load(1)
    total = e.apply("add", first, second)
    e.store(0, total)
    e.store(1, e.apply("multiply", total, first))
    e.store(2, first)
    last = torch.empty_like(x)
    run(e, [a, b], [a, b, last])
    assert torch.equal(a, x + y) and torch.equal(b, (x + y) * x) and torch.equal(last, x)
    e = Expression()
    e.store(0, e.apply("silu", e.load(0)))
    kept = of("silu", x)
    run(e, [x], [x])
    assert torch.equal(x, kept)


def test_time_embedding():
    """Labels times frequencies, their sines and cosines in the halves of one output."""
    labels, frequencies = torch.arange(0, 1000, 37), torch.exp(torch.linspace(0, -9.2, 64))
    out = torch.full((len(labels), 128), math.nan)
    e = Expression()
    angle = e.apply("multiply", e.load(0), e.load(1))
    e.store(0, e.apply("sin", angle))
    e.store(1, e.apply("cos", angle))
    run(e, [labels[:, None], frequencies], [out[:, :64], out[:, 64:]])
    exact = (labels[:, None].float() * frequencies).double()
    assert units(out, torch.cat([exact.sin(), exact.cos()], 1)).max() <= 2


def test_registers():
    e = Expression()
    loads = [e.load(i) for i in range(20)]
    sines = [e.apply("sin", load) for load in loads]
    total = sines[0]
    for value in sines[1:]:
        total = e.apply("add", total, value)
    e.store(0, total)
    assert max(line.to for line in e.code()) < 8  # each is made when it is added
    for i, value in enumerate(sines):
        e.store(i + 1, value)
    with pytest.raises(TooManyRegisters, match="16 registers"):
        e.code()


def test_terms():
    x, y = torch.randn(2, 9, 33)
    e = Expression()
    term = (
        "add",
        ("multiply", ("input", 0), ("constant", 0.5)),
        ("pow", ("input", 1), ("constant", 2.0)),
    )
    e.store(0, e.of(("softplus", term)))
    out = torch.empty_like(x)
    run(e, [x, y], [out])
    expected = torch.nn.functional.softplus(x * 0.5 + y**2)
    torch.testing.assert_close(out, expected)
    assert [line.function for line in e.code()].count("load") == 2


def test_what_is_refused():
    assert {
        k: v for k, v in _cpu.map_functions().items() if k not in ("load", "store", "constant")
    } == FUNCTIONS
    e = Expression()
    with pytest.raises(ValueError, match="no function 'sinh'"):
        e.apply("sinh", 1.0)
    with pytest.raises(ValueError, match="add takes 2 operands"):
        e.apply("add", 1.0)
    p = _cpu.MapParams()
    p.add("sin", 0, [3], 0)
    with pytest.raises(ValueError, match="register that is empty"):
        _cpu.map(p)
    with pytest.raises(ValueError, match="5 axes"):
        filled(p, [], [1] * 6, [], [])


@pytest.mark.parametrize("columns", [16, 64, 100, 320, 1024, 1040])
def test_rows_that_repeat(columns):
    """A scale and a shift for each sample, and what is made of them, over rows and samples."""
    torch.manual_seed(4)
    x, scale, shift = torch.randn(3, 77, columns), torch.randn(3, 1, columns), torch.randn(columns)
    e = Expression()
    factor = e.apply("add", e.load(1), 1.0)
    e.store(0, e.apply("add", e.apply("multiply", e.load(0), factor), e.apply("negate", e.load(2))))
    for threads in (1, 2, 7):
        out = torch.full_like(x, math.nan)
        run(e, [x, scale, shift], [out], threads)
        assert torch.equal(out, x * (scale + 1) + -shift)
