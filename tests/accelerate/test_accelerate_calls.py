"""Calls of single places in all their forms: the original's result, fused or not."""

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.accelerate import accelerate
from diffusion_engine.accelerate.check import Compared, compared
from diffusion_engine.accelerate.conv3x3 import Conv3x3Site, conv_site
from diffusion_engine.accelerate.find import Watch
from diffusion_engine.accelerate.functional import FunctionalSite
from diffusion_engine.accelerate.layers import GroupNormSite, MultiheadAttentionSite, SiluSite
from diffusion_engine.accelerate.replacement import Site
from diffusion_engine.ops import launches
from diffusion_engine.ops.library import register
from diffusion_engine.processes import Discrete

choose_fused = cases.choose_fused
register()


def randomised(module):
    torch.manual_seed(0)
    for p in module.parameters():
        p.data = 0.3 * torch.randn_like(p)
    return module.eval()


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
    site = MultiheadAttentionSite("attention", layer)
    assert site.objection() is None
    for name, way in WAYS.items():
        square = given[0].shape[-2] == given[1].shape[-2]
        if name != "alone" and (kind in ("tokens first", "unbatched") or not square):
            continue
        is_close(site.forward(*given, **way), layer(*given, **way))
        is_close(site.forward(*given, **way), type(layer).forward(layer, *given, **way))


def test_attention_that_adds_keys_of_its_own():
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        site = MultiheadAttentionSite("attention", nn.MultiheadAttention(16, 2, **options).eval())
        assert "it adds keys of its own" in site.objection()


# torch's functions

Q, K, V = torch.randn(3, 2, 4, 6, 16).unbind(0)
CAUSAL = torch.ones(6, 6, dtype=torch.bool).tril()
CALLS = {
    "plain": lambda f: f(Q, K, V),
    "scaled": lambda f: f(Q, K, V, scale=0.7),
    "by name": lambda f: f(query=Q, key=K, value=V, scale=0.3),
    "masked": lambda f: f(Q, K, V, CAUSAL),
    "causal": lambda f: f(Q, K, V, is_causal=True),
    "shared keys": lambda f: f(Q, K[:, :2], V[:, :2], enable_gqa=True),
    "other values": lambda f: f(Q, K, V[..., :8]),
    "another batch": lambda f: f(Q, K[:1], V[:1]),
    "three axes": lambda f: f(Q[0], K[0], V[0]),
    "float64": lambda f: f(Q.double(), K.double(), V.double()),
    "few elements": lambda f: f(Q[..., :4], K[..., :4], V[..., :4]),
}  # fmt: skip


class Calls(nn.Module):
    """A module that calls what a test says, in eval mode: in training mode nothing is fused."""

    def __init__(self, call):
        super().__init__()
        self.call = call
        self.eval()

    def forward(self, x):
        return self.call(x)


@pytest.fixture
def ran(monkeypatch):
    """The names of the fused ops that were run."""
    names, run = [], launches.call
    monkeypatch.setattr(launches, "call", lambda op, *given: (names.append(op), run(op, *given))[1])
    return names


@pytest.mark.parametrize("name", CALLS)
@torch.no_grad()
def test_calls_of_functional_attention(name, ran):
    module = Calls(lambda x: CALLS[name](F.scaled_dot_product_attention))
    want = module(Q)
    is_close(FunctionalSite("it", module).forward(Q), want)
    assert ran == ["attention"] * (name in ("plain", "scaled", "by name"))


@torch.no_grad()
def test_dropout_of_functional_attention_stays(ran):
    module = Calls(lambda x: F.scaled_dot_product_attention(Q, K, V, dropout_p=0.5))
    site = FunctionalSite("it", module)
    assert not torch.equal(site.forward(Q), site.forward(Q)) and not ran


@torch.no_grad()
def test_a_place_in_training_mode_runs_as_it_is(ran):
    """A part that was put into training mode on purpose, for its dropout."""
    layer = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)
    site = MultiheadAttentionSite("attention", layer)
    given = {"query": TOKENS, "key": TEXT, "value": TEXT, "need_weights": False}
    assert not torch.equal(site.forward(**given)[0], site.forward(**given)[0]) and not ran
    layer.eval()
    assert torch.equal(site.forward(**given)[0], site.forward(**given)[0]) and len(ran) == 2
    for train in (True, False):
        module = Calls(NORMS["silu"]).train(train)
        ran.clear()
        FunctionalSite("it", module).forward(X)
        assert ran == ["group_norm"] * (not train)


X, WEIGHT, BIAS = torch.randn(2, 8, 5, 3), torch.randn(8), torch.randn(8)
SCALE, SHIFT = torch.randn(2, 2, 8, 1, 1)


def norm(x=X, eps=1e-5):
    return F.group_norm(x, 2, WEIGHT, BIAS, eps)


def twice(x):
    h = norm(x)
    return F.silu(h) + h


def unread(x):
    kept = norm(x)
    return F.silu(norm(2.0 * x)), kept


def written(x):
    h = norm(x)
    h.mul_(2.0)
    return F.silu(h)


def in_place(x):
    h = norm(x)
    F.silu(h, inplace=True)
    return h


def listed(x):
    h = norm(x)
    return torch.cat([h, x], dim=1)


NORMS = {
    "silu": lambda x: F.silu(norm(x)),
    "silu by name": lambda x: F.silu(norm(x), inplace=True),
    "silu in place": lambda x: F.silu(norm(x), True),
    "alone": norm,
    "eps": lambda x: F.silu(norm(1e-3 * x, 0.5)),
    "without weights": lambda x: F.silu(F.group_norm(x, 2)),
    "adaptive": lambda x: F.silu(torch.addcmul(SHIFT, norm(x), SCALE + 1.0)),
    "adaptive alone": lambda x: torch.addcmul(SHIFT, norm(x), SCALE + 1.0),
    "adaptive twice": lambda x: F.silu(torch.addcmul(SHIFT, torch.addcmul(SHIFT, norm(x), SCALE), SCALE)),
    "one shift": lambda x: F.silu(torch.addcmul(torch.ones(1), norm(x), SCALE)),
    "scales of pixels": lambda x: F.silu(torch.addcmul(SHIFT, norm(x), 0.5 * x)),
    "shifts of pixels": lambda x: F.silu(torch.addcmul(x, norm(x), SCALE)),
    "half of it": lambda x: torch.addcmul(SHIFT, norm(x), SCALE, value=0.5),
    "as a factor": lambda x: torch.addcmul(SHIFT, SCALE, norm(x)),
    "as a shift": lambda x: torch.addcmul(norm(x), SCALE, SHIFT),
    "a view": lambda x: F.silu(norm(x)[:, :4]),
    "twice": twice,
    "unread": unread,
    "written": written,
    "read where it is": in_place,
    "in a list": listed,
    "by another function": lambda x: F.gelu(norm(x)),
    "into its input": lambda x: F.silu(norm(x)) + x,
    "of another": lambda x: F.silu(norm(F.silu(norm(x)))),
    "float64": lambda x: F.silu(F.group_norm(x.double(), 2)),
}  # fmt: skip


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", NORMS)
@torch.no_grad()
def test_calls_of_functional_norms(name, last, ran):
    x = X.contiguous(memory_format=torch.channels_last) if last else X
    module = Calls(NORMS[name])
    want = module(x)
    site = FunctionalSite("it", module)
    for _ in range(2):
        is_close(site.forward(x), want)
    assert set(ran) == (set() if name == "float64" else {"group_norm"})


def test_a_place_that_reads_no_tensor_runs_as_it_is():
    module = Calls(lambda n: torch.full((n,), 2.0))
    assert torch.equal(FunctionalSite("it", module).forward(3), torch.full((3,), 2.0))


@torch.no_grad()
def test_a_silu_that_was_applied_is_applied_once():
    """The mark of a result is for the next SiLU alone."""
    norm, silu = nn.GroupNorm(2, 8).eval(), nn.SiLU().eval()
    site = GroupNormSite("norm", norm)
    site.silu = SiluSite("silu", silu)
    once = site.silu.forward(site.forward(X))
    is_close(once, F.silu(norm(X)))
    is_close(site.silu.forward(once), F.silu(F.silu(norm(X))))
    assert torch.equal(site.silu.forward(X), F.silu(X))


@torch.no_grad()
def test_transforms_of_torch_func_without_gradients(ran):
    """Batched tensors have no memory that an op could read."""
    layers = {
        GroupNormSite: nn.GroupNorm(2, 8),
        conv_site: nn.Conv2d(8, 6, 3, padding=1),
        FunctionalSite: Calls(NORMS["without weights"]),
    }
    several = torch.randn(3, 2, 8, 5, 3)
    for make, layer in layers.items():
        site = make("it", layer.eval())
        is_close(torch.func.vmap(site.forward)(several), torch.func.vmap(layer)(several))
    assert not ran


# Convolutions

CONVS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 without padding": {"kernel_size": 3},
    "3x3 apart": {"kernel_size": 3, "padding": 1, "groups": 2},
    "3x3 of every second": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3x3 dilated": {"kernel_size": 3, "padding": 1, "dilation": 2},
    "3x3 wide": {"kernel_size": 3, "padding": 2},
    "1x1": {"kernel_size": 1},
    "3x1": {"kernel_size": (3, 1), "padding": (1, 0)},
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CONVS)
@torch.no_grad()
def test_calls_of_convolutions(kind, bias, last):
    """Alone, and with what is added: a map in any order or dtype, one value a channel, a row."""
    layer = randomised(nn.Conv2d(8, 6, bias=bias, **CONVS[kind]))
    site = conv_site("conv", layer)
    assert isinstance(site, Conv3x3Site) == (kind == "3x3") and site.objection() is None
    x = torch.randn(2, 8, 7, 9)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    want = layer(x)
    is_close(site.forward(x), want)
    maps = [
        torch.randn_like(want),
        torch.randn(want.shape).contiguous(memory_format=torch.channels_last),
        torch.randn(want.shape),
        torch.randn(want.shape, dtype=torch.float64),
        torch.randn(want.shape[::-1]).permute(3, 2, 1, 0),
    ]
    if kind == "3x3":
        rows = (2, 6, 1, 1), (1, 6, 7, 9), (9,)
        maps += [torch.randn(shape) for shape in rows]
    for residual in maps:
        got = site.add(x, residual)
        assert got.dtype == (want + residual).dtype
        is_close(got, want + residual)


@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"},
                {"padding": 1, "padding_mode": "reflect"}],
)  # fmt: skip
def test_paddings_that_onednn_has_not(options):
    site = conv_site("conv", nn.Conv2d(8, 6, 3, **options).eval())
    assert not isinstance(site, Conv3x3Site) and "is none of oneDNN's" in site.objection()


def strided(layer):
    layer.stride = (2, 2)


def doubled(layer):
    layer._conv_forward = lambda x, w, b: 2.0 * F.conv2d(x, w, b, padding=1)


@pytest.mark.parametrize("change", [strided, doubled])
@torch.no_grad()
def test_a_convolution_that_is_changed_after(change):
    """Its geometry, or its call, which is then torch's own again."""
    layer = randomised(nn.Conv2d(8, 6, 3, padding=1))
    site, x = conv_site("conv", layer), torch.randn(2, 8, 6, 5)
    site.forward(x)
    change(layer)
    want = layer(x)
    is_close(site.forward(x), want)
    is_close(site.add(x, torch.ones_like(want)), want + 1.0)


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
def test_hooks_on_what_a_place_covers(kind, place):
    """Of any kind: found before, the two are left apart; put on later, the call says so."""
    net = Small().eval().requires_grad_(False)
    HOOKS[kind](net.body[place])
    done = accelerate(net, X)
    kinds = {site.name: site.kind for site in done.sites}
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


@pytest.mark.usefixtures("choose_fused")
def test_attention_of_fewer_heads_of_keys_is_torchs():
    """Heads of queries that share those of keys are what the op does not know, whatever it was watched at."""

    class Attends(nn.Module):
        def forward(self, x, heads):
            q = x.view(2, 6, 4, 8).transpose(1, 2)
            k = q[:, :heads]
            return F.scaled_dot_product_attention(q, k, k, enable_gqa=heads < 4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Attends()

        def forward(self, x, heads=4):
            return self.inner(x, heads)

    net, x = Net().eval(), torch.randn(2, 6, 32)
    want = net(x, 2)
    accelerate(net, x)
    close(net(x, 2), want)


class Off(Site):
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
def test_how_far_from_the_original_a_place_may_be(dtype, least, most):
    """1e-4 of the largest element, of 16 bits four units of rounding; of several calls the worst counts."""
    x = torch.linspace(-1.0, 1.0, 64).view(1, 4, 4, 4).to(dtype)
    for factors, fits in (
        ((least,), True),
        ((most,), False),
        ((most, 0.0), False),
        ((0.0, most), False),
    ):
        module = nn.Tanh().eval()
        site = Off(module, 1.0)
        with compared([site]) as found:
            for factor in factors:
                site.factor = 1.0 + factor
                module(x)
        assert (found.objection(site) is None) == fits
        assert fits or "differs from the original by" in found.objection(site)


def test_a_network_that_differs_as_a_whole(monkeypatch):
    """Where places agree one by one and their order does not: nothing is left of it."""
    net = Small().eval()
    monkeypatch.setattr(GroupNormSite, "forward", lambda self, x: self.original(x) * 1.5)
    monkeypatch.setattr(Compared, "objection", lambda self, site: None)
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
