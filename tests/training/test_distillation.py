"""Distillation against closed forms of Gaussian data: what is exact has no loss, and a wrong sign has one."""

import math

import pytest
import torch
from torch import nn

from diffusion_engine import ScoreNetwork, zoo
from diffusion_engine.processes import VP, Discrete, FlowMatching
from diffusion_engine.training import Trainer, read
from diffusion_engine.training.data import Batch
from diffusion_engine.training.objectives.base import Given
from diffusion_engine.training.objectives.consistency import Consistency, huber
from diffusion_engine.training.objectives.flow_map import MeanFlow, Shortcut, total_derivative
from diffusion_engine.training.objectives.progressive import Progressive
from diffusion_engine.training.objectives.student import Guided, Student

MEAN, STD = 0.3, 0.5
FLOW = FlowMatching(t_min=0.0)
TINY = {"name": "unet", "channels": [8, 8, 32], "emb": 16, "fastest": 100.0}


class Exact(nn.Module):
    """A function of (x, t, ...) as a module, with times as columns."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, x, *told, **named):
        return self.rule(x, *(one[:, None] for one in told), **named)


def velocity(x, t, *_, sign=1.0):
    """E[eps - x0 | x]."""
    a = 1.0 - t
    residual = (x - a * MEAN) / (a * a * STD**2 + t * t)
    return sign * (t * residual - MEAN - a * STD**2 * residual)


def moved(x, t, r):
    """The ODE from t to r."""
    a, b = 1.0 - t, 1.0 - r
    shrink = (b * b * STD**2 + r * r) / (a * a * STD**2 + t * t)
    return b * MEAN + (x - a * MEAN) * shrink.sqrt()


def consistency(x, t):
    return torch.where(t == 0.0, 0.0, (x - moved(x, t, 0.0 * t)) / t.clamp(min=1e-9))


def average(x, t, r, sign=1.0):
    still = t == r
    jump = (x - moved(x, t, r)) / torch.where(still, 1.0, t - r)
    return torch.where(still, velocity(x, t), sign * jump)


def network(rule, process=FLOW, prediction="flow", **options):
    return ScoreNetwork(
        Exact(rule), process, (3,), prediction, label_dtype=torch.float64, **options
    )


def given(student, teacher=None, **changes):
    recipe = read("flow", teacher=None if teacher is None else "flow", **changes)
    made = Given(recipe, student.module, torch.device("cpu"))
    vars(made).update(network=student, teacher=teacher)
    return made


def batch(n=256, mean=MEAN, std=STD):
    x0 = mean + std * torch.randn(n, 3, dtype=torch.float64, generator=seeded(1))
    return Batch(x0, torch.zeros(n, dtype=torch.int64))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loss(objective, drawn=None):
    objective.before(0, objective.given.module)
    return float(objective.loss(drawn or batch(), seeded()))


def test_the_exact_consistency_function_has_no_loss_but_that_of_the_steps():
    def of(calls, **signs):
        teacher = network(lambda x, t: velocity(x, t, **signs))
        made = given(network(consistency), teacher)
        return loss(Consistency(made, points=4, calls=calls, metric="l2"))

    assert of(64) < 1e-5
    assert of(16) / of(64) == pytest.approx(16.0, rel=0.2)  # the square of a first-order error
    assert of(16, sign=-1.0) > 0.1


def test_consistency_training_takes_the_same_noise_at_both_times():
    """f(x, t) = x moves by (s - t) (eps - x0)."""
    same = given(network(lambda x, t: torch.zeros_like(x)))
    found = loss(Consistency(same, points=5, metric="l2"), batch(20000))
    assert found == pytest.approx((1.0 + MEAN**2 + STD**2) / 25.0, rel=0.02)
    point = given(network(lambda x, t: torch.where(t == 0.0, 0.0, (x - 0.7) / t)))
    assert loss(Consistency(point, metric="huber"), batch(std=0.0, mean=0.7)) < 1e-9


def test_the_metric_of_consistency_is_between_l1_and_l2():
    error = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    c = 0.00054 * math.sqrt(2.0)
    assert float(huber(error)) == pytest.approx(math.hypot(5.0, c) - c)


def test_the_grid_of_consistency_grows():
    made = given(network(consistency), steps=90)
    objective = Consistency(made, points=[4, 8, 16])
    counts = []
    for step in (0, 29, 30, 60, 89):
        objective.before(step, made.module)
        counts.append(objective.count)
    assert counts == [4, 4, 8, 16, 16]


@pytest.mark.parametrize("process, prediction", [(FLOW, "flow"), (VP(), "eps")])
def test_a_student_whose_step_is_two_of_its_teacher_has_no_loss(process, prediction):
    """In x / alpha and g every step of DDIM is Euler's: the student's eps is the mean over both steps."""

    def teacher(x, t):
        return velocity(x, t) if prediction == "flow" else torch.tanh(x) * t

    def levels(t):
        if prediction == "flow":
            return 1.0 - t, t
        alpha = (-0.25 * t * t * 19.9 - 0.05 * t).exp()
        return alpha, (1.0 - alpha * alpha).sqrt()

    def student(x, s, sign=1.0):
        m, e = (s - k * process.t_max / 8 for k in (1, 2))
        if prediction == "flow":
            middle = x - (s - m) * teacher(x, s)
            return sign * 0.5 * (teacher(x, s) + teacher(middle, m))
        (a, b), (c, d), (f, g) = levels(s), levels(m), levels(e)
        first = teacher(x, s)
        middle = c * (x / a + (d / c - b / a) * first)
        end = x / a + (d / c - b / a) * first + (g / f - d / c) * teacher(middle, m)
        return sign * (end - x / a) / (g / f - b / a)

    for sign in (1.0, -1.0):
        own = network(lambda x, t, sign=sign: student(x, t, sign), process, prediction)
        made = given(own, network(teacher, process, prediction))
        for weight in ("output", "truncated_snr"):
            found = loss(Progressive(made, rounds=[4], weight=weight))
            assert found < 1e-16 if sign > 0 else found > 1e-3


def recipe(name, **changes):
    known = read(name)
    card = known.card | {"architecture": known.card["architecture"] | TINY}
    card["architecture"]["name"] = known.card["architecture"]["name"]
    fixed = {"card": card, "start": None, "batch": 2, "steps": 6, "warm_up": 1}
    return read(name, **(fixed | changes))


def test_a_round_begins_with_the_averaged_student(tmp_path):
    path = tmp_path / "tiny.safetensors"
    flow = recipe("flow")
    zoo.save(path, zoo.build(flow.card["architecture"]), flow.card)
    trainer = Trainer(recipe("progressive", teacher=str(path)))
    objective = trainer.objective
    for _ in range(2):
        trainer.advance()
    assert objective.round == 0
    average = {k: v.clone() for k, v in trainer.average.module.state_dict().items()}
    objective.before(2, trainer.average.module)
    assert objective.round == 1
    for module in (objective.kept, trainer.module):
        assert all(torch.equal(v, average[k]) for k, v in module.state_dict().items())
    trainer.advance()
    assert objective.round == 1 and all(
        torch.equal(v, average[k]) for k, v in objective.kept.state_dict().items()
    )


def guided(x, t, y, guidance=None, s=None):
    """Of class 1 the output is x + t; of the null, class 2, x - t."""
    pull = torch.where(y == 2, -t, t) if s is None else t * (2.0 * s - 1.0)
    return x + pull


def test_a_student_learns_what_its_teacher_says_with_guidance():
    options = {"null": 2, "classes": 2}
    teacher = network(guided, **options)
    drawn = Batch(batch().x0, torch.ones(256, dtype=torch.int64))
    for s, wanted in ((3.0, 0.0), (2.5, 1.0 / 3.0)):  # (2 ds)^2 E[t^2]
        own = network(lambda x, t, y, s=s: guided(x, t, y, s=s), **options)
        objective = Student(given(own, teacher), guidance=3.0, drop=0.0)
        assert loss(objective, drawn) == pytest.approx(wanted, abs=2e-3)
    told = network(
        lambda x, t, y, w: guided(x, t, y, s=w[:, None]), **options, scale_input=lambda s: {"w": s}
    )
    objective = Guided(given(told, teacher), guidance=(1.0, 4.0), drop=0.0)
    assert loss(objective, drawn) < 1e-12


def test_the_exact_average_velocity_has_no_loss():
    teacher = network(velocity)
    # The halves of the shortest shortcut are Euler's.
    for kind, options, least in ((MeanFlow, {}, 1e-12), (Shortcut, {"levels": 8}, 1e-4)):
        for sign in (1.0, -1.0):
            own = network(lambda x, t, r, sign=sign: average(x, t, r, sign), end_label="t")
            found = loss(kind(given(own, teacher), same=0.25, power=0.0, **options))
            assert found < least if sign > 0 else found > 0.1


def test_a_shortcut_begins_at_multiples_of_its_length():
    made = given(network(average, end_label="t"), network(velocity))
    t, r = Shortcut(made, levels=3).ends(3000, seeded())
    assert sorted({round(s, 6) for s in (t - r).tolist()}) == [0.25, 0.5, 1.0]
    assert float((t / (t - r)).remainder(1.0).max()) == 0.0
    assert float((t - r == 1.0).float().mean()) == pytest.approx(1.0 / 3.0, abs=0.03)


def test_the_derivative_along_the_path_is_that_of_differences():
    torch.manual_seed(0)
    module = zoo.build(TINY | {"name": "flow_map_unet", "fastest": 1.0})
    for p in module.parameters():
        nn.init.normal_(p, std=0.2)
    module.to(torch.float64, memory_format=torch.channels_last)
    own = ScoreNetwork(
        module,
        FLOW,
        (1, 16, 16),
        "flow",
        label_dtype=torch.float64,
        end_label="t",
        null=10,
        classes=10,
    )
    x, v = torch.randn(2, 2, 1, 16, 16, dtype=torch.float64)
    t, r, y = (
        torch.tensor([0.4, 0.9]).double(),
        torch.tensor([0.1, 0.5]).double(),
        torch.tensor([3, 10]),
    )
    with torch.no_grad():
        h, found = 1e-3, total_derivative(own, x, t, r, y, v)
        (up,), (down,) = (own(x + d * v, t + d, y, end_label=r) for d in (h, -h))
    torch.testing.assert_close(
        found, (up - down) / (2.0 * h), rtol=1e-3, atol=1e-3
    )  # of the times' sines in float32


def test_what_is_told_more_begins_as_the_network_itself():
    plain, x, t = zoo.build(TINY), torch.randn(2, 1, 16, 16), torch.tensor([0.4, 0.9])
    y = torch.tensor([3, 10])
    nn.init.normal_(plain.head.weight)
    for name, told in (("flow_map_unet", (t, 0.5 * t, y)), ("guided_unet", (t, y, 3.0 * t))):
        module = zoo.build(TINY | {"name": name})
        module.load_state_dict(plain.state_dict(), strict=False)
        torch.testing.assert_close(module(x, *told), plain(x, t, y), rtol=0, atol=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Consistency(given(network(consistency)), points=0), "points=0"),
        (lambda: Consistency(given(network(consistency)), points=[]), r"points=\[\]"),
        (lambda: Consistency(given(network(consistency)), target_ema=1.0), "target_ema=1.0"),
        (lambda: Consistency(given(network(consistency)), guidance=-1), "guidance=-1"),
        (
            lambda: Student(given(network(velocity), network(velocity, VP(), "eps"))),
            "give both the same process",
        ),
        (
            lambda: Student(given(network(velocity), network(velocity, Discrete.few(4), "eps"))),
            "give both the same process",
        ),
        (
            lambda: Student(given(network(velocity, classes=2), network(velocity, classes=3))),
            "of 3 classes and the shape .* give a teacher of the same",
        ),
        (lambda: Progressive(given(network(velocity), network(velocity)), [8, 3]), "steps that halve"),
        (lambda: Guided(given(network(velocity), network(velocity))), "give it a scale_input"),
        (lambda: MeanFlow(given(network(velocity))), "a flow map is on flow matching"),
        (lambda: MeanFlow(given(network(average, end_label="t")), same=2.0), "same=2.0"),
        (
            lambda: loss(Student(given(network(velocity), network(velocity)), guidance=2.0)),
            "no null condition",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()
