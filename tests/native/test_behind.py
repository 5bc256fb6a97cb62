"""The step of a row behind the recorded network, in one call: the same bits as one after the other."""

import pytest
import step_cases
import torch
from batches import capacity, jobs_of, together
from native_cases import SHAPE, small
from step_cases import Case, copied, differences
from torch import nn

from diffusion_engine import Sampler, ScoreNetwork, trace
from diffusion_engine.backends.step import Bound
from diffusion_engine.native import Native
from diffusion_engine.native.program import Program
from diffusion_engine.native.recording import Recording
from diffusion_engine.processes import VP

_cpu = pytest.importorskip("diffusion_engine._cpu")
LARGE = [(4, 96, 128), (3, 200, 200), (2, 70000)]  # of which several threads have a part each


@pytest.mark.parametrize("shapes", [step_cases.SHAPES, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_step_behind_a_program(threads, shapes):
    """Outputs that are not-a-number until the program has made them."""
    pool, bound = _cpu.Pool(threads), 0

    def behind(step, outs):
        nonlocal bound
        kept = [copied(out) for out in outs]
        p = step.behind(kept)
        if p is None:  # they have to be copied
            return step(outs)
        for out in kept:
            out.fill_(torch.nan)
        program = _cpu.Program(pool)
        program.add_call(lambda: [a.copy_(b) for a, b in zip(kept, outs, strict=True)], "network")
        program.run([], [], p)
        bound += 1

    for seed in range(40):
        case = step_cases.make(seed, shapes)
        got, want = step_cases.run("cpp", case, launched=behind), step_cases.run("cpp", case)
        assert not differences(got, want), f"seed {seed}"
    assert bound > 20


def test_a_program_that_fails_leaves_the_step_undone():
    program = _cpu.Program(_cpu.Pool(1))
    program.add_call(lambda: 1 / 0, "network")

    def behind(step, outs):
        with pytest.raises(ZeroDivisionError):
            program.run([], [], step.behind(outs))

    case = step_cases.make(3)
    assert not differences(
        step_cases.run("cpp", case, launched=behind),
        step_cases.run("cpp", Case(case.fields, case.outs), launched=lambda step, outs: None),
    )


class Several(nn.Module):
    """Predictions, and the variances behind them."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(2))

    def forward(self, x, label):
        return torch.cat([self.one(x), torch.tanh(self.other(x))], dim=1)


def learned():
    torch.manual_seed(1)
    return ScoreNetwork(Several(), VP(), SHAPE, variance="learned_range")


TWO = {"condition": [0, 1, 0], "seeds": [5, 6, 7]}
RUNS = {
    "ddim": (small, "ddim", TWO),
    "two calls a step": (small, "heun", TWO),
    "history": (small, "dpmpp_3m", TWO),
    "noise": (small, "euler_ancestral", TWO),
    "a path of noise": (small, "dpmpp_2m_sde", TWO | {"noise": "brownian"}),
    "given noise": (small, "ddpm", TWO | {"noise": lambda row, m, seeds: torch.ones(3, *SHAPE)}),
    "learned variances": (learned, "ddpm", {"seeds": [5, 6], "variance": "learned_range"}),
    "guidance": (small, "ddim", TWO | {"guidance": 2.0}),
    "some guided": (small, "ddim", TWO | {"guidance": [1.0, 2.0, 1.0]}),
    "a known region": (
        small,
        "ddim",
        TWO | {"mask": torch.ones(1, *SHAPE[1:]), "known": torch.zeros(SHAPE)},
    ),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("threads", [1, 2])
def test_samples_are_those_of_one_after_the_other(name, threads, monkeypatch):
    made, solver, given = RUNS[name]
    given, network, seen = dict(given), made(), []
    options = {k: given.pop(k) for k in ("variance",) if k in given}
    sampler = Sampler(network, solver, 4, executor=Native(threads=threads), **options)
    with monkeypatch.context() as patch:
        whole = Program.then
        patch.setattr(Program, "then", lambda *given: seen.append(1) or whole(*given))
        together = sampler.sample(**given).samples
    assert bool(seen) == (given.get("noise") != "brownian")  # which is drawn between
    monkeypatch.setattr(Bound, "behind", lambda *given: None)
    other = Sampler(network, solver, 4, executor=Native(threads=threads), **options)
    apart = other.sample(**given).samples
    assert torch.equal(together, apart) and bool(together.isfinite().all())


def test_one_entry_made_as_two(monkeypatch):
    whole = Recording._recorded
    monkeypatch.setattr(Recording, "_recorded", lambda own, n: None if n == 1 else whole(own, n))
    sampler = Sampler(small(), "dpmpp_2m", 4, executor="native")
    one = sampler.sample(seeds=[6], condition=[1]).samples
    assert torch.equal(one, sampler.sample(**TWO).samples[1:2])


def test_callbacks_see_the_row_that_was_done():
    own = Sampler(small(), "ddim", 4, executor="native")
    plain = Sampler(own.network, "ddim", 4, executor=Native(backend="torch"))
    seen = {who: [] for who in (own, plain)}
    for who, rows in seen.items():
        who.sample(**TWO, on_step=lambda at, rows=rows: rows.append(at.x.clone()))
    assert len(seen[own]) == 4
    assert all(torch.equal(a, b) for a, b in zip(seen[own], seen[plain], strict=True))


def test_who_listens_hears_of_network_and_step():
    """Of a batch that was bound when nobody did, too."""
    sampler = Sampler(small(), "ddim", 4, executor="native")
    before, names = sampler.sample(**TWO).samples, []
    with trace.listening("test", lambda name, payload: names.append(name) or trace._OFF):
        heard = sampler.sample(**TWO).samples
    after = sampler.sample(**TWO).samples
    assert names.count("network") == 4 and names.count("step") == 5
    assert torch.equal(before, heard) and torch.equal(before, after)


def test_weights_that_are_written_to_between_rows():
    own = small()

    def halved(at):
        if at.row == 2:
            with torch.no_grad():
                own.module.last.weight.mul_(0.5)

    made = Sampler(own, "ddim", 4, executor="native").sample(**TWO, on_step=halved).samples
    own = small()
    want = Sampler(own, "ddim", 4, executor=Native(backend="torch")).sample(**TWO, on_step=halved)
    assert torch.equal(made, want.samples)


def test_outputs_of_the_caller():
    own, executor = small(), Native()
    sampler = Sampler(own, "ddim", 4, executor=executor)
    jobs = jobs_of([sampler], [0, 0, 0], conditions=(torch.tensor(1),))
    want, _ = together(executor, sampler.network, jobs)
    with executor.batch(sampler.network, capacity(sampler.network, jobs)) as batch:
        seats = [batch.admit(job) for job in jobs]
        call = executor.calling(sampler.network)
        while batch.live:
            given = batch.inputs()
            batch.step(() if given is None else call(*given))
        assert torch.equal(batch.read(seats), want)
