"""The graph executor on a GPU: CUDA graphs against eager runs, bit for bit."""

import pytest
import torch
from analytic import suited
from batches import jobs_of, together

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Executor, Graph, GraphError
from diffusion_engine.executors.packing import bucket
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.testing import GaussianGenerator
from diffusion_engine.zoo import load_network

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(scope="module")
def digits():
    return load_network("digits", "cuda")


@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("solver", suited(VP()))
def test_graph_equals_eager(digits, solver, backend, whole_run):
    graph = Graph(backend, whole_run=whole_run)
    captured = Sampler(digits, solver, 4, executor=graph, guidance=2.0)
    # Eager, and padded to the same bucket of the network: 8 samples, 16 entries.
    eager = Sampler(digits, solver, 4, backend=backend, guidance=2.0)
    for seed in (0, 100):
        want = eager.sample(8, seed=seed, condition=list(range(8)))
        got = captured.sample(8, seed=seed, condition=list(range(8)))
        assert torch.equal(want.samples, got.samples)


@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "dpmpp_sde", "ddpm"])
def test_graph_equals_eager_on_brownian_paths(digits, solver, backend, whole_run):
    captured = Sampler(
        digits, solver, 4, executor=Graph(backend, whole_run=whole_run), guidance=2.0
    )
    eager = Sampler(digits, solver, 4, backend=backend, guidance=2.0)
    for seed in (0, 100):
        want, got = (
            s.sample(8, seed=seed, condition=list(range(8)), noise="brownian").samples
            for s in (eager, captured)
        )
        assert torch.equal(want, got)


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_a_generator_in_a_graph_draws_as_on_the_cpu(backend):
    """Elementwise, so that its bits are those of a CPU, up to its own arithmetic."""
    process = Discrete.few(4)

    def made(device, **how):
        network = ScoreNetwork(
            GaussianGenerator(process).to(device), process, (1, 8, 8), "x0", latent=64,
            label_dtype=torch.int64,
        )  # fmt: skip
        return Sampler(network, "ddgan", 4, device=device, **how).sample(4).samples.cpu()

    captured = made("cuda", executor=Graph(backend))
    assert torch.equal(captured, made("cuda", backend=backend))
    assert torch.allclose(captured, made("cpu"), rtol=0, atol=1e-5)


def test_mixed_batch_is_served_by_one_graph(digits):
    samplers = [
        Sampler(digits, "ddim", 5),
        Sampler(digits, "unipc", 9, guidance=3.0),
        Sampler(digits, "dpmpp_2m_sde", 7, guidance=2.0),
    ]
    which, null = [0, 1, 2, 2, 1, 0], torch.tensor(10, device="cuda")
    jobs = jobs_of(samplers, which, conditions=[(null - 10 + i, null) for i in range(6)])
    graph = Graph()
    made, finite = together(graph, digits, jobs, device="cuda:0")
    assert all(finite)
    (kept,) = [graph._kept.get(key) for key in graph._kept]
    assert set(kept.stages.steps) <= {bucket(n) for n in range(1, 13)}
    eager, _ = together(samplers[0].executor, digits, jobs, device="cuda:0")
    assert torch.allclose(made, eager, rtol=0, atol=1e-3)  # cuDNN picks by batch size


def test_no_host_sync_within_a_run(digits, monkeypatch):
    finish = Executor.finish

    def strict(*given):
        torch.cuda.set_sync_debug_mode("error")
        try:
            finish(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    made = Sampler(digits, "dpmpp_2m_sde", 6, executor="graph", guidance=2.0, interval=(0.1, 10.0))
    made.sample(4, condition=[1, 2, 3, 4])
    monkeypatch.setattr(Executor, "finish", strict)
    made.sample(4, seed=7, condition=[1, 2, 3, 4])


def test_weights_in_place_and_memory_stays(digits):
    made = Sampler(digits, "ddim", 3, executor="graph")
    first = made.sample(4, condition=1).samples
    weights = {name: 0.9 * t for name, t in digits.module.state_dict().items()}
    kept = {name: t.clone() for name, t in digits.module.state_dict().items()}
    made.update_weights(weights)
    changed = made.sample(4, condition=1).samples
    assert not torch.equal(first, changed)
    made.update_weights(kept)
    torch.cuda.synchronize()
    before = torch.cuda.memory_reserved()
    for seed in range(20):
        made.sample(4, seed=seed, condition=1)
    assert torch.cuda.memory_reserved() == before
    assert torch.equal(made.sample(4, condition=1).samples, first)


def test_refusals_leave_the_sampler_usable():
    class ReadsBack(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones((), device="cuda"))
            self.reads = True

        def forward(self, x, label):
            return x * (float(x.mean()) if self.reads else self.scale)

    module = ReadsBack().eval()
    made = Sampler(ScoreNetwork(module, VP(), (3, 8, 8)), "ddim", 3, executor="graph")
    with pytest.raises(GraphError, match="cannot be captured"):
        made.sample(2)
    module.reads = False
    assert torch.isfinite(made.sample(2).samples).all()


def test_compiled_network_in_a_graph(digits):
    plain = Sampler(digits, "ddim", 3).sample(4, condition=[1, 2, 3, 4]).samples
    made = Sampler(digits, "ddim", 3, executor="graph", compile=True)
    got = made.sample(4, condition=[1, 2, 3, 4]).samples
    assert (got - plain).abs().max() < 2e-2 * plain.abs().max()
