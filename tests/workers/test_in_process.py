"""`InProcess`: a service's requests have the bits of a Sampler alone, and its errors are a service's."""

import asyncio

import numpy as np
import pytest
import torch
import worker_cases as cases

from diffusion_engine import Decoder, Engine, ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.workers.errors import Failed, Full, GivenUp, NotReady, ServiceError, TooLarge
from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.workers.serving import Device, sticks, translated


def served(do, networks=None, **options):
    """What do(service) returns, on a service that is closed whatever happens."""

    async def main():
        service = InProcess(networks or cases.network(), **{"capacity": 4} | options)
        try:
            await service.start()
            return await asyncio.wait_for(do(service), 120)
        finally:
            await service.close(0.0)

    return asyncio.run(main())


async def made(service, asked):
    return await (await service.submit(asked)).result()


X = np.linspace(-1, 1, 2 * 32, dtype=np.float32).reshape(2, 2, 4, 4)
OTHERS = {
    "x at a start": {"start": 0.5, "tensors": {"x": X}},
    "x as it is": {"noised": True, "tensors": {"x": X}},
    "inpainting": {"tensors": {"mask": np.eye(4, dtype=np.float32), "known": X}},
    "compose": {"condition": None, "compose": [([1, 2], 1.5), ([3, 4], -0.5)]},
    "normals": {"tensors": {"noise": np.ones((9, 2, 2, *cases.SHAPE), np.float32)}},
    "a scale a sample": {"guidance": [1.5, 3.0]},
    "a tensor of classes": {"condition": None, "tensors": {"condition": np.array([7, 8])}},
}


def test_requests_that_share_batches_have_the_bits_of_each_alone():
    each = [cases.asked(number) for number in range(24)]

    async def do(service):
        return await asyncio.gather(*(made(service, asked) for asked in each))

    for asked, result in zip(each, served(do), strict=True):
        assert cases.equal(result, asked)
        assert 0.0 <= result.queued <= result.seconds


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_given_beside_a_spec(what):
    asked = cases.asked(1, **OTHERS[what])
    assert cases.equal(served(lambda s: made(s, asked)), asked)


def test_an_encoding_comes_through_the_spec():
    spec = {"solver": "ddim", "steps": 4, "encoding": 0}
    encode = cases.asked(1, spec=spec, tensors={"x": X})
    result = served(lambda s: made(s, encode))
    from diffusion_engine import Sampler

    sampler = Sampler(cases.network(), "ddim", 4)
    want = sampler.encode(torch.from_numpy(X), condition=encode.condition)
    assert np.array_equal(result.samples, want.samples.numpy())


def test_events_previews_and_what_a_decoder_makes_of_them():
    def doubled(z):
        return z.repeat_interleave(2, -1).repeat_interleave(2, -2)

    async def do(service):
        running = await service.submit(cases.asked(1, preview=2))
        told = [told async for told in running.events()]
        return service.models["tiny"], told, await running.result(), running.status

    about, told, result, status = served(do, decoder=Decoder(doubled, scale_factor=2.0))
    assert about.shape == [2, 4, 4] and about.decoded == [2, 8, 8]
    assert [told[0].kind, told[-1].kind, status] == ["queued", "done", "done"]
    previews = [one for one in told if one.kind == "preview"]
    assert previews and all(one.denoised.shape == (2, 8, 8) for one in previews)
    assert result.samples.shape == (2, 2, 8, 8) and result.latents.shape == (2, 2, 4, 4)


def test_a_model_says_what_it_is():
    async def do(service):
        return service.models, service.snapshot(), service.objection()

    models, seen, objection = served(do, {"a": cases.network(), "b": cases.network(name="b")})
    about = models["a"]
    assert list(models) == ["a", "b"] and about.name == "a" and objection is None
    assert (about.classes, about.guided, about.prediction, about.process) == (10, True, "eps", "VP")
    assert about.default == {"solver": "dpmpp_2m", "steps": 20} and about.guidance == 2.0
    assert seen["finished"] == {"done": 2, "failed": 0, "cancelled": 0}


WRONG = {
    "an unknown model": {"model": "other"},
    "an unknown key": {"spec": {"solver": "ddim", "stepz": 3}},
    "an unknown solver": {"spec": {"solver": "ddimm"}},
    "an unknown class": {"condition": [77]},
    "a tensor of another name": {"tensors": {"z": np.ones(3, np.float32)}},
    "an x of another shape": {"start": 0.5, "tensors": {"x": np.ones((3, 3), np.float32)}},
    "an adapter that is not there": {"adapter": "style"},
    "both conditions": {"tensors": {"condition": np.array([1])}},
    "no seeds": {"seeds": []},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_suit_is_a_value_error(what):
    async def do(service):
        with pytest.raises(ValueError) as caught:
            await service.submit(cases.asked(0, **WRONG[what]))
        return str(caught.value)

    assert "\n" not in served(do)


def test_limits():
    async def do(service):
        with pytest.raises(TooLarge, match="at most 30 are taken"):
            await service.submit(cases.asked(0, spec={"solver": "ddim", "steps": 50}))
        assert (await service.check(cases.asked(0))).work == 5
        first = await service.submit(cases.asked(0))
        with pytest.raises(Full) as caught:
            await service.submit(cases.asked(4))
        return await first.result(), caught.value.retry_after

    assert served(do, max_queue=1, max_cost=30, warm=False)[1] > 0


def test_a_request_that_is_given_up():
    async def do(service):
        running = await service.submit(cases.asked(0, spec={"solver": "ddim", "steps": 900}))
        assert running.cancel("nobody waits") and not running.cancel("again")
        with pytest.raises(GivenUp, match="nobody waits"):
            await running.result()
        late = {"spec": {"solver": "ddim", "steps": 900}, "deadline": 0.001}
        with pytest.raises(GivenUp):
            await made(service, cases.asked(0, **late))
        return running.status

    assert served(do) == "cancelled"


def failing(x, label, y):
    if (y == 7).any():
        raise RuntimeError("/secret/place")
    if (y == 8).any():
        return x * torch.nan
    if (y == 9).any():
        raise MemoryError
    return cases.small(x, label, y)


def test_failures_are_sentences_of_the_service(caplog):
    async def do(service):
        said = []
        for label in (7, 8, 9):
            with pytest.raises(Failed) as caught:
                await made(service, cases.asked(0, condition=[label]))
            said.append(str(caught.value))
        fine = cases.asked(0, condition=[1])
        assert cases.equal(await made(service, fine), fine)
        return said

    raised, infinite, memory = served(do, cases.network(failing))
    assert raised == "the network raised RuntimeError" and "/secret/place" in caplog.text
    assert "not finite" in infinite and "memory ran out" in memory


def test_a_model_that_makes_no_samples_is_said_at_the_start():
    def broken(x, label):
        raise RuntimeError

    with pytest.raises(ServiceError, match="'network' makes no samples"):
        served(None, ScoreNetwork(broken, VP(), (1,)))


def test_the_end_drains_and_then_cancels():
    async def main():
        service = InProcess(cases.network(), capacity=4)
        with pytest.raises(NotReady):
            await service.submit(cases.asked(0))
        await service.start()
        short = await service.submit(cases.asked(0))
        await service.close(60.0)
        assert cases.equal(await short.result(), cases.asked(0))
        with pytest.raises(NotReady, match="ends"):
            await service.submit(cases.asked(0))
        service = InProcess(cases.network(), capacity=4)
        await service.start()
        slow = {"spec": {"solver": "ddim", "steps": 1000}, "seeds": [1] * 64, "condition": [3] * 64}
        long = await service.submit(cases.asked(0, **slow))
        await service.close(0.0)
        with pytest.raises(GivenUp):
            await long.result()

    asyncio.run(main())


def test_who_waits_twice_gets_the_same_and_who_leaves_cancels_nothing():
    async def do(service):
        running = await service.submit(cases.asked(1))
        left = asyncio.create_task(running.result())
        await asyncio.sleep(0)
        left.cancel()
        one, two = await asyncio.gather(running.result(), running.result())
        return one is two, running.status

    assert served(do) == (True, "done")


def test_an_error_of_the_device_that_stays_is_known():
    error = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors")
    assert sticks(error) and isinstance(translated(error), Device)
    assert not sticks(torch.OutOfMemoryError("CUDA out of memory")) and not sticks(ValueError("x"))
    if hasattr(torch, "AcceleratorError"):
        assert sticks(torch.AcceleratorError("an error"))


def test_a_request_is_checked_once_and_then_put():
    with Engine(cases.network(), capacity=2) as engine:
        ticket = engine.checked("ddim", seeds=[1], condition=3)
        assert ticket.work == 21 and engine.snapshot()["submitted"] == 0
        assert engine.put(ticket).result().seeds == [1]
