"""log_prob under other weights than those that were sampled, and its gradient."""

import pytest
import torch
from rollout_cases import ALL
from rollout_networks import policy

from diffusion_engine.rollouts import log_prob

# One call a step, a history of two, two calls, one normal in two slots, one in three, churn, a learned
# variance, and [x, v] with one normal a row or two.
SOLVERS = {
    "flow_sde": {},
    "cps": {},
    "dpmpp_2m_sde": {},
    "dpmpp_3m_sde": {},
    "dpmpp_sde": {},
    "dpmpp_singlestep": {"eta": 1.0, "max_order": 3, "variant": "heun"},
    "heun": {"s_churn": 1.0},
    "ddpm": {"variance": "learned_range"},
    "cld_em": {},
    "sscs": {},
    "sscs2": {"merged": False},
}
EACH = pytest.mark.parametrize("name", SOLVERS)
SEEDS = (4, 5, 6)
REQUEST = {"seeds": SEEDS, "condition": [0, 2, 1], "guidance": [1.0, 2.0, 1.5]}


def changed(sampler, seed=1):
    """Moves all weights a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in sampler.network.module.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def read_next(plan, row):
    """The slots that the first call after a row reads."""
    return next((later.call.read for later in plan.rows[row + 1 :] if later.call), ())


def normals_to(sampler, rollout):
    """The normals that lead a sampler through the recorded states, row by row from its own draws."""
    noise = rollout.noise.clone()

    def state(row, slot):
        made = sampler.sample(**REQUEST, noise=noise, record="trajectory").rollout.trajectory
        return made[:, row].chunk(len(rollout.slots), dim=1)[slot]

    for row in rollout.rows:
        update, read = rollout.plans[0].rows[row].new, read_next(rollout.plans[0], row)
        slots = sorted(update, key=lambda k: (k not in read, k))
        for m in range(noise.shape[1]):
            # Normal m is found by the first slot that has it: of z0, or of z1 once z0 is known.
            slot = next((k for k in slots if update[k][f"z{m}"] and (not m or k)), None)
            if slot is None:
                continue
            wanted = rollout.trajectory[:, row].chunk(len(rollout.slots), dim=1)[slot]
            ends = []
            for value in (0.0, 1.0):
                noise[row, m] = value
                ends.append(state(row, slot))
            noise[row, m] = ((wanted - ends[0]) / (ends[1] - ends[0])).float()
    return noise


@EACH
def test_under_other_weights(name):
    """As likely as the run that takes the same way under them, which has other normals."""
    sampler = policy(name, **SOLVERS[name])
    rollout = sampler.sample(**REQUEST, record=ALL).rollout
    changed(sampler)
    found = log_prob(rollout, sampler.network)
    # Given normals are float32: each is off by half a unit, and so is the state that it leads to.
    again = sampler.sample(
        **REQUEST, noise=normals_to(sampler, rollout), record=("log_prob", "trajectory")
    ).rollout
    for place, row in enumerate(rollout.rows):
        for slot in read_next(rollout.plans[0], row):
            x, same = (
                run.after[:, place].chunk(len(run.slots), dim=1)[run.slots.index(slot)]
                for run in (rollout, again)
            )
            assert (same - x).abs().max() <= 1e-5 * x.abs().max()
    assert (found - rollout.log_prob).abs().max() > 1e-3
    assert found.tolist() == [
        pytest.approx(row.tolist(), rel=1e-4, abs=1e-4) for row in again.log_prob
    ]


@EACH
def test_gradient(name):
    """Of every weight, against central differences."""
    sampler = policy(name, **SOLVERS[name])
    rollout = sampler.sample(**REQUEST, record=ALL).rollout
    changed(sampler)
    weights = list(sampler.network.module.parameters())
    scale = torch.linspace(-1.0, 2.0, rollout.log_prob.numel(), dtype=torch.float64)

    def value():
        return (scale * log_prob(rollout, sampler.network).flatten()).sum()

    found = torch.autograd.grad(value(), weights)
    assert all(g.abs().max() > 1e-3 for g in found)
    step = 1e-6
    for weight, gradient in zip(weights, found, strict=True):
        for i in range(weight.numel()):
            ends = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    weight.view(-1)[i] += sign * step
                    ends.append(float(value()))
                    weight.view(-1)[i] -= sign * step
            wanted = (ends[0] - ends[1]) / (2.0 * step)
            size = 1.0 + float(gradient.abs().max())
            assert float(gradient.view(-1)[i]) == pytest.approx(wanted, abs=1e-6 * size)


@EACH
def test_chosen_rows(name):
    """The same numbers of some rows, in the order asked for."""
    sampler = policy(name, **SOLVERS[name])
    rollout = sampler.sample(**REQUEST, record=ALL).rollout
    whole = log_prob(rollout, sampler.network)
    for chosen in [(rollout.rows[-1],), (rollout.rows[1], rollout.rows[0])]:
        places = [rollout.rows.index(row) for row in chosen]
        assert torch.equal(log_prob(rollout, sampler.network, rows=chosen), whole[:, places])


@pytest.mark.parametrize(
    "name, calls", [("flow_sde", 1), ("dpmpp_2m_sde", 2), ("dpmpp_3m_sde", 3), ("dpmpp_sde", 2)]
)
def test_a_row_calls_what_its_density_needs(name, calls):
    """One batched call of all samples and branches for the row itself, and one for each row of its past."""
    sampler = policy(name, 6)
    rollout = sampler.sample(seeds=SEEDS, condition=1, guidance=2.0, record=ALL).rollout
    module = sampler.network.module
    module.calls.clear()
    log_prob(rollout, sampler.network, rows=[rollout.rows[-1]])
    assert module.calls == [2 * len(SEEDS)] * calls


def test_of_float32():
    """Recorded and again, from states that were rounded: as exact as float32 tells the draw."""
    sampler = policy("flow_sde", 8, dtype=torch.float32)
    rollout = sampler.sample(**REQUEST, record=ALL).rollout
    assert rollout.trajectory.dtype == torch.float32 and rollout.log_prob.dtype == torch.float64
    found = log_prob(rollout, sampler.network)
    # A state is off by a rounding unit, and a normal by that over the std.
    unit = torch.finfo(torch.float32).eps * rollout.trajectory.abs().amax() / rollout.std.min()
    bound = 4.0 * unit * rollout.trajectory[0, 0].numel() * rollout.noise.abs().max()
    assert (found - rollout.log_prob).abs().max() <= bound
    found.sum().backward()
    assert sampler.network.module.weight.grad.isfinite().all()


def test_a_module_in_training_mode_is_run_as_it_was_sampled():
    sampler = policy()
    module = sampler.network.module.train()
    seen = []
    module.register_forward_hook(lambda *_: seen.append(module.training))
    rollout = sampler.sample(2, condition=1, record=ALL).rollout
    log_prob(rollout, sampler.network)
    assert seen and not any(seen) and module.training


def test_samples_of_inference_mode_are_trained_on():
    sampler = policy()
    with torch.inference_mode():
        rollout = sampler.sample(2, condition=1, record=ALL).rollout
    log_prob(rollout, sampler.network).sum().backward()
    assert sampler.network.module.weight.grad.abs().max() > 0.0


def test_clipped_estimates():
    """Where the estimate is at its bound the network has no part in it."""
    sampler = policy("flow_sde", clip=(-0.05, 0.05))
    rollout = sampler.sample(**REQUEST, record=ALL).rollout
    found = log_prob(rollout, sampler.network)
    assert (found - rollout.log_prob).abs().max() <= 1e-10 * (1.0 + rollout.log_prob.abs().max())
    free = policy("flow_sde", clip=None).sample(**REQUEST, record=ALL).rollout
    assert not torch.equal(free.trajectory, rollout.trajectory)


def test_misuse():
    sampler = policy()
    bare = sampler.sample(2, condition=1, record="log_prob").rollout
    with pytest.raises(ValueError, match="no trajectory was recorded"):
        log_prob(bare, sampler.network)
    rollout = sampler.sample(2, condition=1, record=ALL).rollout
    with pytest.raises(ValueError, match=r"rows=\[0, 99\]: \[0, 99\] draw nothing"):
        log_prob(rollout, sampler.network, rows=[0, 99])
    assert log_prob(rollout, sampler.network, rows=[]).shape == (2, 0)
