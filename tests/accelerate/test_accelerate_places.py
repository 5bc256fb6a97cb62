"""Modules that cannot be replaced are left alone, and calls that one cannot take run the original."""

import copy

import pytest
import torch
from accelerate_cases import close
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate, choose, conv3x3
from diffusion_engine.accelerate.attention import FusedMultiheadAttention
from diffusion_engine.accelerate.compare import compared, difference
from diffusion_engine.accelerate.conv3x3 import FusedConv3x3, fused_conv
from diffusion_engine.accelerate.group_norm import FusedGroupNorm
from diffusion_engine.accelerate.replacement import Replacement
from diffusion_engine.processes import VP


@pytest.mark.parametrize("weakened", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_makes(net, example, weakened):
    weakened(net.block.conv1)
    weakened(net.stem)
    with torch.no_grad():
        done = accelerate(net, *example)
        for name in ("stem", "block.conv1"):
            assert "a hook makes its weight anew" in done.refused[name][1]
        for p in net.parameters():
            p.data.mul_(1.1)
        done.refresh()
        got = net(*example)
        done.restore()
        close(got, net(*example))


@pytest.mark.parametrize("error", [ValueError, RuntimeError, TypeError, ZeroDivisionError])
def test_a_replacement_that_fails_is_left_out(net, example, monkeypatch, error):
    forward = FusedConv3x3.forward

    def fails(self, x):
        if self.name == "block.conv1":
            raise error("not this one")
        return forward(self, x)

    monkeypatch.setattr(FusedConv3x3, "forward", fails)
    done = accelerate(net, *example)
    reason = done.refused["block.conv1"][1]
    assert reason == f"its fused form fails on the example: {error.__name__}: not this one"
    assert {"stem", "block.norm1", "block.conv2"} <= done.errors.keys()


def test_a_format_that_fails_is_left_out(example):
    """Whether a network can be called in channels_last is not its fused forms' fault."""

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x).view(len(x), -1)

    net = Viewing().eval()
    done = accelerate(net, example[0])
    assert done.chosen == "fused" and list(done.dropped) == ["fused, channels_last"]
    assert "view size is not compatible" in str(done)


def test_a_replacement_that_works_in_place():
    """What goes on is the original's result, made once."""

    class Doubled(nn.Module):
        def forward(self, x):
            return x.mul_(2.0)

    class Doubling(Replacement):
        def forward(self, x):
            return x.mul_(2.0)

    module = Doubled()
    replacement = Doubling("", module)
    with compared([replacement]) as found:
        assert torch.equal(module(torch.ones(3)), torch.full((3,), 2.0))
    assert found.objection(replacement) is None


def test_the_worst_call_of_a_replacement_decides():
    class Wrong(Replacement):
        """A quarter too much, at its first call."""

        def forward(self, x):
            x, self.sign = self.sign * x, 1.0
            return x

    module, x = nn.Identity(), torch.ones(3)
    replacement = Wrong("", module)
    for sign, objection in ((1.25, "differs from the original by 2.5e-01"), (1.0, None)):
        replacement.sign = sign
        with compared([replacement]) as found:
            for _ in range(2):
                module(x)
        reason = found.objection(replacement)
        assert reason is None if objection is None else objection in reason


def test_nan_is_a_difference():
    x = torch.tensor([1.0, 2.0])
    nan, inf = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])
    assert difference(nan, x)[0] == difference(x, nan)[0] == difference(x, inf)[0] == float("inf")
    assert difference(nan, nan)[0] == difference(inf, inf)[0] == 0.0


def test_heads_that_are_too_large():
    replacement = FusedMultiheadAttention("attention", nn.MultiheadAttention(300, 1).eval())
    assert replacement.objection() == "its heads have 300 elements, not 8 to 256"


@pytest.mark.parametrize("own", [{}, {"kdim": 16, "vdim": 12}], ids=["alike", "of their own"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_queries_keys_and_values(batch_first, bias, own):
    """Each another tensor or the same, with weights in one or in three."""
    torch.manual_seed(0)
    options = {"batch_first": batch_first, "bias": bias, **own}
    replacement = FusedMultiheadAttention("", nn.MultiheadAttention(16, 2, **options).eval())
    if bias:
        replacement.module.in_proj_bias.normal_()
    q, k, v = (torch.randn(3, 5, width) for width in (16, 16, own.get("vdim", 16)))
    for given in ((q, k, v), (q, q, v)) if own else ((q, k, v), (q, q, v), (q, k, k), (q, q, q)):
        want = replacement.original(*given, need_weights=False)
        close(replacement.forward(*given, need_weights=False), want)


ODD = {
    "empty": torch.zeros(0, 8, 6, 5),
    "one pixel": torch.ones(1, 8, 1, 1),
    "wide": torch.ones(1, 8, 3, 70),
    "unbatched": torch.ones(8, 6, 5),
    "float64": torch.ones(2, 8, 6, 5, dtype=torch.float64),
    "bfloat16": torch.ones(2, 8, 6, 5, dtype=torch.bfloat16),
    "other channels": torch.ones(2, 4, 6, 5),
    "strided": torch.ones(2, 8, 12, 10)[..., ::2, ::2],
    "transposed": torch.ones(2, 5, 8, 6).permute(0, 2, 3, 1),
    "flat": torch.ones(2, 8),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.GroupNorm(2, 8),
        lambda: nn.Conv2d(8, 6, 3, padding=1),
        lambda: nn.Conv2d(8, 6, 5, stride=2),
        lambda: nn.Conv2d(8, 6, 1),
    ],
    ids=["norm", "conv3x3", "conv5x5", "conv1x1"],
)
@torch.no_grad()
def test_calls_unlike_the_example(layer, name):
    """The original's result, or the original's error."""
    torch.manual_seed(0)
    module = layer().eval()
    x = torch.randn_like(ODD[name]) if ODD[name].is_contiguous() else 0.5 * ODD[name]
    replacement = (
        fused_conv("conv", module)
        if isinstance(module, nn.Conv2d)
        else FusedGroupNorm("norm", module)
    )
    assert replacement.objection() is None
    replacement.forward(torch.randn(2, 8, 9, 7))
    try:
        want = replacement.original(x)
    except Exception as error:
        with pytest.raises(type(error)):
            replacement.forward(x)
    else:
        close(replacement.forward(x), want)


@torch.no_grad()
def test_forms_of_a_weight_that_were_not_chosen_are_dropped(monkeypatch):
    def fastest(forms, x):
        for run in forms.values():
            run()
        return 2

    monkeypatch.setattr(conv3x3, "fastest", fastest)
    replacement = fused_conv("conv", nn.Conv2d(64, 8, 3, padding=1).eval())
    replacement.forward(torch.randn(1, 64, 5, 4))
    assert replacement.packed.keys() == {2}


@torch.no_grad()
def test_autocast(net, example):
    """Its casts are torch's own: the original runs, place by place."""
    plain = copy.deepcopy(net)
    accelerate(net, *example)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(*example), plain(*example))


def test_the_example_has_the_batch_that_runs(net, monkeypatch):
    monkeypatch.setattr(choose, "BUDGET", 1e9)
    monkeypatch.setattr(choose, "ROUNDS", 1)
    own = ScoreNetwork(net, VP(), (3, 8, 8))
    for most in (1, 6, 9):
        assert (
            Sampler(own, "ddim", steps=2, accelerate=True, batch_size=most).accelerated.batch
            == most
        )
    monkeypatch.setattr(choose, "BUDGET", 0.0)
    fast = Sampler(own, "ddim", steps=2, accelerate=True, batch_size=9)
    assert fast.accelerated.batch == 1 and "One call of 1: " in str(fast.accelerated)


class Tape:
    """Records a call by keeping it."""

    def __init__(self):
        self.recorded = 0

    def objection(self, device):
        return None

    def warm_up(self, body):
        body()

    def record(self, body):
        self.recorded += 1
        return choose.partial  # only its `replay` is used, which the test sets


def test_replays_are_timed_where_graphs_are(monkeypatch):
    """The times are those of replays, made with the form in place, of which none is put in place again."""
    place, ran = [], []

    class Recorder(Tape):
        def record(self, body):
            now = place[-1]
            super().record(body)
            return type("Recording", (), {"replay": lambda self: ran.append(now)})()

    def prepare(name):
        place.append(name)
        return place.clear

    recorder = Recorder()
    monkeypatch.setattr(choose, "ROUNDS", 2)
    monkeypatch.setattr(choose, "BUDGET", 1e9)
    found = choose.seconds(["a", "b"], prepare, lambda: None, torch.device("cpu"), recorder)
    assert ran == ["a", "b", "a", "b"] and not place and set(found) == {"a", "b"}

    class Refuses(Recorder):
        def record(self, body):
            raise choose.Unrecordable("no")

    calls = []
    found = choose.seconds(
        ["a", "b"], prepare, lambda: calls.append(place[-1]), torch.device("cpu"), Refuses()
    )
    assert calls == ["a", "a", "b", "a", "b"] and not place and set(found) == {"a", "b"}


@pytest.mark.parametrize("took, rounds", [(0.01, choose.ROUNDS), (1.0, 2), (9.0, 1)])
def test_a_choice_ends_with_its_budget(took, rounds, monkeypatch):
    now, calls = [100.0], []

    def call():
        now[0] += took
        calls.append(took)

    monkeypatch.setattr(choose, "BUDGET", 3.0)
    monkeypatch.setattr(choose.time, "perf_counter", lambda: now[0])
    found = choose.seconds(["a", "b"], lambda name: lambda: None, call, torch.device("cpu"))
    assert found == pytest.approx({"a": took, "b": took}) and len(calls) == 2 * rounds


def test_kinds_are_left_out_on_a_gpu(net, example):
    done = accelerate(net, *example)
    cpu, cuda = (
        choose.candidates(done.replacements, torch.device(name)) for name in ("cpu", "cuda")
    )
    assert set(cpu) == {"fused", "fused, channels_last"}
    without = "without winograd conv2d"
    assert {without, f"{without}, channels_last"} <= cuda.keys() - cpu.keys()
    assert not any(one.kind == "winograd conv2d" for one in cuda[without][0])
    alone = [one for one in done.replacements if one.kind == "winograd conv2d"]
    assert set(choose.candidates(alone, torch.device("cuda"))) == {"fused", "fused, channels_last"}
