"""What executors do about a network: changed, moved, compiled, in inference mode, or not to be captured."""

import gc
import weakref

import pytest
import tape
import torch
from executor_cases import (
    PLAIN,
    SHAPE,
    Convolution,
    pair,
    same,
)
from tape import taping
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, linearized, with_classifier
from diffusion_engine.adapters.diffusers.networks import Model
from diffusion_engine.executors import Eager, GraphError, graph
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.testing import cld_mixture, labelled_mixture

launches_are_recorded = tape.launches_are_recorded


def test_weights_change_in_place_without_a_capture():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    eager, captured = pair(network)
    captured.sample(2)
    recorded = captured.executor._recorder.recorded
    with pytest.raises(ValueError, match=r"'conv\.bias'.*do not fit|do not fit.*'conv\.bias'"):
        captured.update_weights({"conv.weight": torch.zeros(3, 3, 3, 3)})
    captured.update_weights(Convolution().state_dict())
    assert same(eager.sample(2), captured.sample(2))
    assert captured.executor._recorder.recorded == recorded


@pytest.mark.parametrize("whole_run", [False, True])
def test_a_changed_module_is_captured_again(whole_run):
    module = Convolution().eval()
    eager, captured = pair(ScoreNetwork(module, VP(), SHAPE))
    captured.executor.whole_run = whole_run
    recorder = captured.executor._recorder
    first = captured.sample(2).samples
    hook = module.conv.register_forward_hook(lambda conv, args, out: 0.5 * out)
    assert same(eager.sample(2), captured.sample(2))
    assert not torch.equal(first, captured.sample(2).samples)
    hook.remove()
    assert same(eager.sample(2), captured.sample(2))
    recorded = recorder.recorded
    module.conv.scale = float("0.5")
    captured.sample(2)
    assert recorder.recorded > recorded
    recorded = recorder.recorded
    module.conv.scale = float("0.5")
    captured.sample(2)
    assert recorder.recorded == recorded
    for scale in (1, 1.0, True):  # of other types, with which the module may compute something else
        module.conv.scale = scale
        captured.sample(2)
        assert recorder.recorded > recorded
        recorded = recorder.recorded


def test_outdated_graphs_are_freed_before_there_are_others(monkeypatch):
    module = Convolution().eval()
    _, captured = pair(ScoreNetwork(module, VP(), SHAPE))
    captured.sample(2)
    kept, make, alive = captured.executor._kept, graph.Batch, []
    (old,) = [weakref.ref(kept.get(key)) for key in kept]

    def watched(*given, **how):
        gc.collect()
        alive.append(old() is not None)
        return make(*given, **how)

    monkeypatch.setattr(graph, "Batch", watched)
    module.conv.scale = 2.0
    captured.sample(2)
    assert alive == [False]


def test_moved_weights_are_refused_until_recaptured():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    eager, captured = pair(network)
    captured.sample(2)
    network.module.conv.weight = nn.Parameter(torch.randn(3, 3, 3, 3))
    for _ in range(2):
        with pytest.raises(GraphError, match=r"moved or replaced.*recapture\(\).*update_weights"):
            captured.sample(2)
    captured.recapture()
    assert same(eager.sample(2), captured.sample(2))


def reads_back(x, label):
    return x * float(x.mean())


def branches_on_data(x, label):
    return x * 0.5 if bool((x.mean() > 0).any()) else x


def keeps_a_count(x, label):
    keeps_a_count.calls += 1  # Python does not run again
    return x * (1.0 + keeps_a_count.calls)


keeps_a_count.calls = 0


outside = []


def computes_on_the_host(x, label):
    outside.append(torch.from_numpy(0.5 * x.numpy()))  # no operation that is recorded
    return x + outside[-1]


@pytest.mark.parametrize(
    "module, reason",
    [
        (reads_back, "cannot be captured.*wait for the device"),
        (branches_on_data, "cannot be captured.*branch on values"),
        (keeps_a_count, "differs from an eager call.*keeps state"),
        (computes_on_the_host, "differs from an eager call"),
        (lambda x, label: nn.functional.dropout(x, 0.5), "differs from an eager call.*dropout"),
    ],
)
def test_networks_that_cannot_be_captured(module, reason):
    captured = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3, executor=taping())
    for _ in range(2):  # not the second time either
        with pytest.raises(GraphError, match=f"(?s){reason}.*executor='eager'"):
            captured.sample(2)


@pytest.mark.parametrize("kind", [lambda: Eager(), taping])
def test_inference_mode_leaves_buffers_usable(kind):
    made = Sampler(PLAIN, steps=3, executor=kind())
    with torch.inference_mode():
        inside = made.sample(2, x=torch.randn(2, *SHAPE), start=0.5)
    assert inside.samples.shape == (2, *SHAPE) and not inside.samples.is_inference()
    assert same(Sampler(PLAIN, steps=3).sample(2), made.sample(2))


def test_training_mode_after_the_capture():
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    captured = Sampler(network, steps=3, executor=taping())
    first = captured.sample(2)
    network.module.train()
    assert same(first, captured.sample(2))  # it runs in eval mode all the same
    network.module.training = False
    with pytest.raises(GraphError, match="training mode changed"):
        captured.sample(2)


class Returning(Convolution):
    """Called as diffusers' networks are."""

    def forward(self, x, label, return_dict=True):
        return (self.conv(x),)


def test_training_mode_of_a_module_within_another():
    module = Model(Returning(), "class_labels", {}).eval()
    captured = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3, executor=taping())
    first = captured.sample(2)
    module.train()
    assert same(first, captured.sample(2))
    assert module.training and module.module.training


def test_compiled_networks(monkeypatch):
    """The same samples, flags of torch as they were, and a sentence at the limit of batch sizes."""
    from torch._dynamo import config

    before = config.recompile_limit, config.fail_on_recompile_limit_hit
    real, given = torch.compile, []
    torch.compiler.reset()

    def by_eager(module, dynamic, options):
        given.append((dynamic, options))
        return real(module, dynamic=dynamic, backend="eager")

    monkeypatch.setattr(torch, "compile", by_eager)
    monkeypatch.setattr("diffusion_engine.networks.compiled.KINDS", 3)
    network = ScoreNetwork(Convolution().eval(), VP(), SHAPE)
    made = Sampler(network, steps=3, compile=True)
    assert given == [(False, None)]
    for n in (1, 2, 2, 3):
        assert same(Sampler(network, steps=3).sample(n), made.sample(n))
    with pytest.raises(ValueError, match=r"kernels for 3 kinds of calls.*compile=False"):
        made.sample(5)
    assert same(Sampler(network, steps=3).sample(2), made.sample(2))
    assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == before
    made.update_weights(Convolution().state_dict())  # its names are the module's own
    assert same(Sampler(network, steps=3).sample(2), made.sample(2))
    assert Sampler(made.network, steps=3, compile=True).network is made.network


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_network_may_run_in_inference_mode(backend):
    seen = []

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((1, 2, 1), 0.3))

        def forward(self, x, t):
            seen.append(torch.is_inference_mode_enabled())
            return self.weight * x

    made, shown = [], []
    for inference in (False, True):
        network = ScoreNetwork(Module(), VP(), (2, 3), inference=inference)
        sampler = Sampler(network, "dpmpp_2m", 4, backend=backend)
        result = sampler.sample(3, on_step=lambda p: shown.append(p.denoised.is_inference()))
        assert seen == [inference] * 4 and not any(shown)
        assert not result.samples.is_inference()
        result.samples.requires_grad_().sum().backward()
        made.append(result.samples.detach())
        seen.clear()
    assert torch.equal(*made)


def test_what_differentiates_stays_out_of_inference_mode():
    plain = labelled_mixture(shape=(2,), inference=True)
    assert not exact_derivative(plain).inference
    guided = with_classifier(plain, plain.module.classifier)
    assert not guided.inference
    assert Sampler(guided, "ddim", 3).sample(2, condition=[0, 1]).finite == [True, True]
    assert not linearized(cld_mixture(shape=(2,), inference=True)).inference
