"""Calls of single replacements in all their forms: the original's result, fused or not."""

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close, randomised
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate
from diffusion_engine.accelerate.attention import FusedMultiheadAttention
from diffusion_engine.accelerate.compare import Compared, compared
from diffusion_engine.accelerate.conv3x3 import fused_conv
from diffusion_engine.accelerate.find import Watch
from diffusion_engine.accelerate.fused_ops import attention_takes, op
from diffusion_engine.accelerate.group_norm import FusedGroupNorm, FusedSiLU
from diffusion_engine.accelerate.replacement import Replacement
from diffusion_engine.ops import launches
from diffusion_engine.ops.library import register
from diffusion_engine.processes import Discrete

choose_fused = cases.choose_fused
register()


def is_close(got, want):
    """Of one tensor, or of tensors and None in their places."""
    if not isinstance(want, tuple):
        return close(got, want)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert (one is None) == (other is None)
        if other is not None:
            close(one, other)


# torch's attention layer

TOKENS, TEXT, MORE = torch.randn(3, 2, 5, 16).unbind(0)
OTHER, VALUES = torch.randn(2, 4, 12), torch.randn(2, 4, 20)
ATTENTIONS = {
    "plain": ({}, (TOKENS, TOKENS, TOKENS)),
    "cross": ({}, (TOKENS, TEXT, TEXT)),
    "three": ({}, (TOKENS, TEXT, MORE)),
    "values of their own": ({}, (TOKENS, TOKENS, MORE)),
    "no bias": ({"bias": False}, (TOKENS, TEXT, MORE)),
    "other widths": ({"kdim": 12, "vdim": 20}, (TOKENS, OTHER, VALUES)),
    "tokens first": ({"batch_first": False}, (TOKENS, TEXT, MORE)),
    "unbatched": ({}, (TOKENS[0], TEXT[0], MORE[0])),
}
WAYS = {
    "alone": {"need_weights": False},
    "with weights": {"need_weights": True},
    "weights of each head": {"need_weights": True, "average_attn_weights": False},
    "a mask": {"need_weights": False, "attn_mask": torch.full((5, 5), 1.5).triu(1)},
    "causal": {
        "need_weights": False, "is_causal": True, "attn_mask": torch.full((5, 5), -torch.inf).triu(1),
    },
    "padding": {"need_weights": False, "key_padding_mask": torch.tensor([[False] * 3 + [True] * 2] * 2)},
}  # fmt: skip


@pytest.mark.parametrize("kind", ATTENTIONS)
@torch.no_grad()
def test_calls_of_attention(kind):
    options, given = ATTENTIONS[kind]
    layer = randomised(nn.MultiheadAttention(16, 2, **({"batch_first": True} | options)))
    replacement = FusedMultiheadAttention("attention", layer)
    assert replacement.objection() is None
    for name, way in WAYS.items():
        square = given[0].shape[-2] == given[1].shape[-2]
        if name != "alone" and (kind in ("tokens first", "unbatched") or not square):
            continue
        is_close(replacement.forward(*given, **way), layer(*given, **way))
        is_close(replacement.forward(*given, **way), type(layer).forward(layer, *given, **way))


def test_attention_that_adds_keys_of_its_own():
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        replacement = FusedMultiheadAttention(
            "attention", nn.MultiheadAttention(16, 2, **options).eval()
        )
        assert "it adds keys of its own" in replacement.objection()


Q, K, V = torch.randn(3, 2, 4, 6, 16).unbind(0)
TAKEN = {
    "plain": (True, (Q, K, V)),
    "other keys": (True, (Q, K[:, :, :5], V[:, :, :5])),
    "bfloat16": (True, (Q.bfloat16(), K.bfloat16(), V.bfloat16())),
    "shared keys": (False, (Q, K[:, :2], V[:, :2])),
    "other values": (False, (Q, K, V[..., :8])),
    "other heads": (False, (Q, K[..., :8], V[..., :8])),
    "another batch": (False, (Q, K[:1], V[:1])),
    "three axes": (False, (Q[0], K[0], V[0])),
    "float64": (False, (Q.double(), K.double(), V.double())),
    "two dtypes": (False, (Q, K, V.bfloat16())),
    "few elements": (False, (Q[..., :4], K[..., :4], V[..., :4])),
    "no queries": (False, (Q[:, :, :0], K, V)),
    "no keys": (False, (Q, K[:, :, :0], V[:, :, :0])),
}


@pytest.mark.parametrize("name", TAKEN)
def test_queries_keys_and_values_that_the_op_takes(name):
    """Where it takes them it computes attention."""
    taken, given = TAKEN[name]
    assert attention_takes(*given) == taken
    if taken:
        close(op("attention")(*given), F.scaled_dot_product_attention(*given))


@pytest.fixture
def ran(monkeypatch):
    """The names of the fused ops that were run."""
    names, run = [], launches.call
    monkeypatch.setattr(launches, "call", lambda op, *given: (names.append(op), run(op, *given))[1])
    return names


@torch.no_grad()
def test_a_module_in_training_mode_runs_as_it_is(ran):
    """A part that was put into training mode on purpose, for its dropout."""
    layer = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)
    replacement = FusedMultiheadAttention("attention", layer)
    given = {"query": TOKENS, "key": TEXT, "value": TEXT, "need_weights": False}
    assert (
        not torch.equal(replacement.forward(**given)[0], replacement.forward(**given)[0])
        and not ran
    )
    layer.eval()
    assert (
        torch.equal(replacement.forward(**given)[0], replacement.forward(**given)[0])
        and len(ran) == 2
    )
    norm = FusedGroupNorm("norm", nn.GroupNorm(2, 8))
    for train in (True, False):
        norm.module.train(train)
        ran.clear()
        norm.forward(X)
        assert ran == ["group_norm"] * (not train)


X = torch.randn(2, 8, 5, 3)


@torch.no_grad()
def test_a_silu_that_was_applied_is_applied_once():
    """The mark of a result is for the next SiLU alone."""
    norm, silu = nn.GroupNorm(2, 8).eval(), nn.SiLU().eval()
    replacement = FusedGroupNorm("norm", norm)
    replacement.silu = FusedSiLU("silu", silu)
    once = replacement.silu.forward(replacement.forward(X))
    is_close(once, F.silu(norm(X)))
    is_close(replacement.silu.forward(once), F.silu(F.silu(norm(X))))
    assert torch.equal(replacement.silu.forward(X), F.silu(X))


@torch.no_grad()
def test_transforms_of_torch_func_without_gradients(ran):
    """Batched tensors have no memory that an op could read."""
    layers = {FusedGroupNorm: nn.GroupNorm(2, 8), fused_conv: nn.Conv2d(8, 6, 3, padding=1)}
    several = torch.randn(3, 2, 8, 5, 3)
    for make, layer in layers.items():
        replacement = make("it", layer.eval())
        is_close(torch.func.vmap(replacement.forward)(several), torch.func.vmap(layer)(several))
    assert not ran


# Hooks


HOOKS = {
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "before": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "before backward": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.GroupNorm(2, 8), nn.SiLU())

    def forward(self, x):
        return self.body(x)


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("place", [0, 1])
def test_hooks_on_what_a_replacement_covers(kind, place):
    """Of any kind: found before, the two are left apart; put on later, the call says so."""
    net = Small().eval().requires_grad_(False)
    HOOKS[kind](net.body[place])
    done = accelerate(net, X)
    kinds = {one.name: one.kind for one in done.replacements}
    assert kinds == {"body.0": "group_norm", "body.2": "group_norm + SiLU"}
    done.restore()
    net = Small().eval().requires_grad_(False)
    accelerate(net, X)
    handle = HOOKS[kind](net.body[place])
    with pytest.raises(RuntimeError, match=r"a hook was put on a .* of 'body\.0' after accelerate"):
        net(X)
    handle.remove()
    is_close(net(X), Small.forward(net, X))


def test_a_silu_that_others_read_through_stays_a_silu():
    """One that is called again, on another norm's result or on none, applies itself there."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.silu = nn.GroupNorm(2, 8), nn.GroupNorm(4, 8), nn.SiLU()

        def forward(self, x):
            return self.silu(self.one(x)) + self.silu(self.two(x)) + self.silu(x)

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.silu = nn.GroupNorm(2, 8), nn.SiLU()

        def forward(self, x):
            return self.silu(self.silu(self.norm(x)))

    class Sometimes(Again):
        def forward(self, x):
            return self.silu(self.norm(x)) + self.norm(2.0 * x + 1.0)

    class Returned(Again):
        def forward(self, x):
            return self.silu(self.norm(x)), self.norm(2.0 * x)

    for kind in (Shared, Again, Sometimes, Returned):
        net = randomised(kind())
        with torch.no_grad():
            want = net(X)
            accelerate(net, X)
            is_close(net(X), want)


def test_what_a_watched_call_ran():
    """Only what the example reaches is replaced."""

    class Branch(Small):
        def forward(self, x):
            return self.body[1](self.body[0](x))

    done = accelerate(Branch().eval(), X)
    assert done.refused["body.2"] == ("group_norm", "the example does not reach it")
    watch = Watch()
    net = Small().eval()
    with watch.watching(net):
        net(X)
        net(X)
    assert watch.runs[net.body[0]] == 2 and watch.silu_of(net.body[0]) is net.body[1]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Off(Replacement):
    """A fused form that is off by a factor."""

    def __init__(self, module, factor):
        super().__init__("off", module)
        self.factor = factor

    def forward(self, x):
        return self.original(x) * self.factor


@pytest.mark.parametrize(
    "dtype, least, most",
    [(torch.float32, 5e-5, 3e-4), (torch.bfloat16, 8e-3, 0.1), (torch.float16, 1e-3, 1e-2)],
)
@torch.no_grad()
def test_how_far_from_the_original_a_replacement_may_be(dtype, least, most):
    """1e-4 of the largest element, of 16 bits four units of rounding; of several calls the worst counts."""
    x = torch.linspace(-1.0, 1.0, 64).view(1, 4, 4, 4).to(dtype)
    for factors, fits in (
        ((least,), True),
        ((most,), False),
        ((most, 0.0), False),
        ((0.0, most), False),
    ):
        module = nn.Tanh().eval()
        replacement = Off(module, 1.0)
        with compared([replacement]) as found:
            for factor in factors:
                replacement.factor = 1.0 + factor
                module(x)
        assert (found.objection(replacement) is None) == fits
        assert fits or "differs from the original by" in found.objection(replacement)


def test_a_network_that_differs_as_a_whole(monkeypatch):
    """Where replacements agree one by one and their order does not: nothing is left of it."""
    net = Small().eval()
    monkeypatch.setattr(FusedGroupNorm, "forward", lambda self, x: self.original(x) * 1.5)
    monkeypatch.setattr(Compared, "objection", lambda self, replacement: None)
    with pytest.raises(ValueError, match="the fused network differs from the original by"):
        accelerate(net, X)
    assert not any("forward" in vars(m) for m in net.modules())


class WithLatent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.of_z = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.Linear(5, 8),
        )
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x, label, z, y=None):
        h = F.silu(self.norm(self.conv(x))) + self.of_z(z)[..., None, None]
        return self.out(h if y is None else h + y[:, None, None, None])


def test_an_example_has_all_that_a_network_takes():
    """A latent, and a condition behind it."""
    for options, how in (
        ({}, {}),
        ({"null": torch.tensor(0.5)}, {"condition": torch.tensor([0.1, 0.7])}),
    ):
        network = ScoreNetwork(
            randomised(WithLatent()), Discrete.linear(4), (3, 6, 5), "x0", latent=5, **options
        )
        fast, plain = (
            Sampler(network, "ddgan", 4, accelerate=on).sample(2, **how).samples
            for on in (True, False)
        )
        is_close(fast, plain)
