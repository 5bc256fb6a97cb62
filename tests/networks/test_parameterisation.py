"""What plans take of a network, apart from its module; other modules in its place, and wrappers around it."""

import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.networks.parameterisation import LABELS, SCALES, Parameterisation
from diffusion_engine.networks.prediction import DPDM, PREDICTIONS, Consistency, Velocity
from diffusion_engine.networks.wrapper import Wrapper, unwrapped
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels

TIMES = torch.tensor([0.2, 0.55, 0.9], dtype=torch.float64)
NAMED = [name for name, rule in PREDICTIONS.items() if not isinstance(rule, Velocity)]
RULES = [
    *({"prediction": name} for name in NAMED),
    *({"label": name} for name in LABELS),
    *({"label": name, "whole_label": True} for name in ("999t", "1000t")),
    *({"scale": name} for name in SCALES),
    *(
        {"prediction": rule, "label": rule.c_noise, "scale": None}
        for rule in (*DPDM.values(), Consistency())
    ),
    {"derivative": "heads"},
    {"derivative": "exact"},
]


@pytest.mark.parametrize("said", RULES, ids=str)
def test_rules_take_numbers_and_tensors(said):
    made = Parameterisation(VP(), (1,), **said)
    at = Levels.of(VP(), TIMES)

    def values(at):
        (p,), q = made.weights(at)
        return (
            p,
            q,
            made.c_in(at),
            made.label_of(at),
            *((made.derivative and made.slope_weights(at)) or ()),
        )

    for value, *numbers in zip(
        values(at), *(values(VP().at(t)) for t in TIMES.tolist()), strict=True
    ):
        assert all(type(number) is float for number in numbers)
        wanted = torch.tensor(numbers, dtype=torch.float64)
        assert torch.allclose(torch.as_tensor(value, dtype=torch.float64), wanted, rtol=1e-12)


def test_it_needs_no_torch():
    """Neither a module nor a device can be in it."""
    code = (
        "import sys; from diffusion_engine.networks.parameterisation import Parameterisation as P; "
        "from diffusion_engine.processes import VP; made = P(VP(), (3, 8, 8), 'v', '999t', scale='F'); "
        "at = VP().at(0.5); made.weights(at), made.c_in(at), made.label_of(at); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_plan_is_made_of_it_alone():
    options = {"prediction": "v", "label": "999t", "name": "v"}
    sampler = Sampler(ScoreNetwork(lambda x, t: x, VP(), (2,), **options), "unipc", 5)
    about = Parameterisation(VP(), (2,), **options)
    assert about == sampler.network.parameterisation and hash(about) == hash(about)
    assert sampler.solver.plan(about, sampler.points) == sampler.plan()


def test_a_network_says_what_it_offers():
    said = {"classes": 10, "latent": 4, "variance": "learned", "clip": (-1, 1), "grid": "karras"}
    network = ScoreNetwork(
        lambda x, t: x,
        VP(),
        [3, 8, 8],
        null=10,
        label_dtype=torch.int64,
        scale_input=lambda s: {},
        **said,
    )
    made = network.parameterisation
    assert {name: getattr(made, name) for name in said} == said | {"clip": (-1.0, 1.0)}
    assert made.unconditional and made.reads_scale and made.whole_label and made.shape == (3, 8, 8)
    plain = ScoreNetwork(lambda x, t: x, VP(), (1,)).parameterisation
    assert not (plain.unconditional or plain.reads_scale or plain.whole_label or plain.guided)


def test_another_module_in_its_place():
    class Broken(nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.weight.data[0, 0] = torch.nan

        def forward(self, x, t):
            return super().forward(x)

    network = ScoreNetwork(nn.Linear(2, 2), VP(), (2,), label="999t", null=3, classes=3)
    other = Broken()
    made = network.with_module(other)  # a copy of the same weights is not looked at again
    assert made.module is other and made.parameterisation is network.parameterisation
    assert made.null == 3 and isinstance(network.module, nn.Linear) and network.module is not other
    with pytest.raises(ValueError, match="weight 'weight' of the network holds NaN"):
        network.with_module(other, name="other")
    said = network.with_module(nn.Identity(), name="other", label_dtype=torch.int64)
    assert (said.name, said.null, said.parameterisation.label) == ("other", 3, "999t")
    assert said.parameterisation.whole_label and not network.parameterisation.whole_label
    for changed in (network, network.parameterisation):
        with pytest.raises(FrozenInstanceError):
            changed.name = "other"


def test_wrappers():
    class Around(Wrapper):
        pass

    class Outer(Wrapper):
        pass

    own = nn.Linear(2, 2)
    wrapped = Outer(Around(Around(own)))
    assert unwrapped(wrapped) is own and unwrapped(own) is own
    assert unwrapped(wrapped, Outer) is wrapped.module and unwrapped(print) is print
    assert all(p is q for p, q in zip(wrapped.parameters(), own.parameters(), strict=True))
