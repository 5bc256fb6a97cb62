"""What a request asks for: guidance, conditions, a callback, images, inpainting, given noise."""

import pytest
import torch
from sampler_cases import SHAPE, classes, conditional, elementwise, sampler

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP


def test_guidance_is_a_combination_and_scale_one_makes_no_extra_call():
    calls = []

    def module(x, label, y):
        calls.append(y.tolist())
        return classes(x, label, y)

    net = ScoreNetwork(module, VP(), SHAPE, null=10, classes=10)
    made = Sampler(net, "ddim", 2, guidance=1.0).sample(2, condition=[3, 4])
    assert calls == [[3, 4]] * 2
    assert made.evaluations == 4
    calls.clear()
    made = Sampler(net, "ddim", 2, guidance=3.0).sample(2, condition=[3, 4])
    assert calls == [[3, 4, 10, 10]] * 2
    assert made.evaluations == 8
    # The module is affine in the class, so guidance is the class 3 y - 2 * 10.
    plain = ScoreNetwork(classes, VP(), SHAPE)
    y = torch.tensor([3.0 * 3 - 20, 3.0 * 4 - 20])
    expected = Sampler(plain, "ddim", 2).sample(2, condition=y)
    assert torch.allclose(
        made.samples, expected.samples, rtol=0, atol=1e-4 * made.samples.abs().max()
    )


def test_each_sample_has_its_own_guidance():
    made = conditional().sample(3, condition=[1, 2, 3], guidance=[1.0, 4.0, 2.0])
    assert made.evaluations == 5 * (1 + 2 + 2)
    for i, scale in enumerate([1.0, 4.0, 2.0]):
        alone = conditional(guidance=scale).sample(seeds=[i], condition=[i + 1])
        assert torch.equal(made.samples[i], alone.samples[0])


def test_guidance_interval_saves_calls():
    full, part = conditional(guidance=2.0), conditional(guidance=2.0, interval=(0.1, 10.0))
    assert full.plan().evaluations == 10
    inside = sum(0.1 < row.call.at.ratio <= 10.0 for row in part.plan().rows[1:])
    assert 0 < inside < 5
    assert part.plan().evaluations == 5 + inside
    made = part.sample(2, condition=[1, 2])
    assert made.evaluations == 2 * (5 + inside)
    mixed = part.sample(2, condition=[1, 2], guidance=[2.0, 1.0])
    assert torch.equal(made.samples[0], mixed.samples[0])


def test_tensor_and_mapping_conditions():
    def module(x, label, *, context, bias):
        return (
            elementwise(x, label)
            + context.mean(dim=(1, 2)).view(-1, 1, 1, 1)
            + bias.view(-1, 1, 1, 1)
        )

    null = {"context": torch.zeros(2, 4), "bias": torch.zeros(())}
    net = ScoreNetwork(module, VP(), SHAPE, null=null)
    condition = {"context": torch.randn(3, 2, 4), "bias": torch.randn(3)}
    made = Sampler(net, steps=3, guidance=2.0).sample(condition=condition)
    one = {name: tensor[1:2] for name, tensor in condition.items()}
    alone = Sampler(net, steps=3, guidance=2.0).sample(seeds=[1], condition=one)
    assert torch.equal(made.samples[1], alone.samples[0])


def test_callback_sees_state_and_denoised():
    seen = []

    def on_step(step):
        seen.append((step.row, step.t, step.x.clone(), step.denoised.clone()))

    made = sampler("heun", 3).sample(2, on_step=on_step)
    assert len(seen) == 3  # rows that hold a partial sum are not shown
    assert torch.equal(seen[-1][2], made.samples)
    assert torch.equal(seen[-1][3], made.samples)  # the last step of Heun is `denoised` itself
    assert seen[0][1] > seen[1][1] > seen[2][1]


def test_image_to_image_starts_at_its_time():
    image = torch.randn(2, *SHAPE)
    made = sampler("ddim", 8).sample(x=image, start=0.2)
    assert made.nfe < 8
    first = sampler("ddim", 8).plan(start=0.2, kind="image").rows[0]
    assert first.state.t == 0.2
    near = sampler("ddim", 8).sample(x=image, start=0.002).samples
    assert (near - image).abs().max() < 0.5


def test_image_to_image_may_start_on_the_grid():
    own = sampler("dpmpp_2m", 6)
    plan = own.plan(start=own.points[2].t, kind="image")
    assert [row.call.at for row in plan.rows[1:]] == list(own.points[2:-1])


def test_given_state_is_taken_as_it_is():
    state = torch.randn(2, *SHAPE)
    a = sampler("ddim").sample(x=state, noised=True, seed=1).samples
    b = sampler("ddim").sample(x=state, noised=True, seed=2).samples
    assert torch.equal(a, b)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "ddpm"])
def test_inpainting_keeps_the_known_region(solver):
    known = torch.randn(1, *SHAPE)
    mask = torch.zeros(1, 1, 5, 7)
    mask[..., :3] = 1.0
    made = sampler(solver).sample(4, mask=mask, known=known).samples
    assert torch.equal(made[..., 3:], known.expand(4, -1, -1, -1)[..., 3:])
    free = sampler(solver).sample(4).samples
    assert torch.equal(made[..., :3], free[..., :3])  # an elementwise network does not look around
    same = sampler(solver, backend="torch").sample(4, mask=mask, known=known).samples
    assert torch.equal(made, same)


def test_every_sample_has_its_own_region_and_image():
    own, net = sampler("ddpm"), ScoreNetwork(elementwise, VP(), SHAPE)
    given = {"mask": torch.rand(5, 1, 5, 7).round(), "known": torch.randn(5, *SHAPE)}
    for more in ({}, {"x": torch.randn(5, *SHAPE), "start": 0.5}):
        made = own.sample(5, **given, **more)
        kept = (given["mask"] == 0.0).expand_as(made.samples)
        assert torch.equal(made.samples[kept], given["known"][kept])
        parts = own.sample(5, **given, **more, batch_size=2)
        assert torch.equal(parts.samples, made.samples) and parts.recipe == made.recipe
        needed = given | {name: value for name, value in more.items() if name == "x"}
        for name in needed:
            left = {key: value for key, value in needed.items() if key != name}
            with pytest.raises(ValueError, match=f"the recipe was made with {name}; give"):
                Sampler.replay(net, made.recipe, **left)
        assert torch.equal(Sampler.replay(net, made.recipe, **needed).samples, made.samples)


def test_noise_from_a_tensor_and_from_a_function():
    own = sampler("ddpm", 3)
    rows = len(own.plan().rows)
    noise = torch.randn(rows, 1, 4, *SHAPE)
    made = own.sample(4, noise=noise, batch_size=3)
    by_function = own.sample(
        4, noise=lambda row, m, seeds: noise[row, m, list(seeds)], batch_size=2
    )
    assert torch.equal(made.samples, by_function.samples)
    assert not torch.equal(made.samples, own.sample(4).samples)


def test_the_normals_of_a_seed_are_others_where_x_is_given():
    """An image or a state that was made with the same seed has used the first ones."""
    kinds = ("prior", "image", "state")
    keys = [{row.key for row in sampler("ddpm", 4).plan(kind=kind).rows} for kind in kinds]
    assert len(set().union(*keys)) == sum(map(len, keys)) == 3 * 5
