"""The examples run, and give what they say."""

import importlib.util
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from optional import needs
from PIL import Image

from diffusion_engine import Sampler
from diffusion_engine.zoo import load_network

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client():
    needs("fastapi")
    needs("httpx")
    from fastapi.testclient import TestClient

    with TestClient(example("fastapi_app").app) as made:
        yield made


def test_the_server_answers_with_the_picture_of_the_seed(client):
    body = {"solver": "unipc", "steps": 4}
    answers = [client.post("/samples?digit=3&seed=7", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    pictures = [np.asarray(Image.open(BytesIO(answer.content))) for answer in answers]
    assert pictures[0].shape == (32, 32) and np.array_equal(*pictures)
    alone = Sampler(load_network("digits"), "unipc", 4).sample(seeds=[7], condition=3).samples[0, 0]
    wanted = ((alone.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    assert np.array_equal(pictures[0], wanted)


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("digit=11", {"solver": "unipc"}),
        ("digit=3", {"solver": "eular"}),
        ("digit=3", {"solver": "unipc", "stepz": 4}),
        ("digit=3&seed=-1", {"solver": "unipc"}),
    ],
)
def test_the_server_says_what_is_wrong(client, query, body):
    answer = client.post(f"/samples?{query}", json=body)
    assert answer.status_code == 422 and answer.json()["detail"]
    assert client.post("/samples?digit=3", json={"solver": "ddim", "steps": 1}).status_code == 200


def test_the_handler_of_the_server_is_short():
    text = (EXAMPLES / "fastapi_app.py").read_text()
    handler = text[text.index("@asynccontextmanager") : text.index("def png")]
    assert len([line for line in handler.splitlines() if line.strip()]) <= 20


def test_the_robots_share_calls_and_get_the_plans_of_their_seeds(capsys):
    needs("diffusers")
    module = example("robot_policy")
    robots = module.main()
    assert "24 plans" in capsys.readouterr().out
    network, shape = module.policy(), (module.ACTION, module.HORIZON)
    for robot in robots:
        assert len(robot.plans) == module.PLANS and robot.plans[0].shape == shape
        # The first action of a plan is the one that the robot was at.
        assert torch.equal(robot.plans[1][:, 0], robot.plans[0][:, module.HORIZON // 2])
    free, known = torch.ones(shape), torch.zeros(shape)
    free[:, 0] = 0.0
    for robot in robots:
        sampler = Sampler(network, "ddim", robot.steps)
        alone = sampler.sample(seeds=[100 * robot.name], mask=free, known=known).samples[0]
        # torch's convolutions of other batch sizes round otherwise; another seed's plan is far off.
        assert torch.allclose(alone, robot.plans[0], rtol=0.0, atol=1e-3)
        assert not torch.allclose(alone, robot.plans[1], rtol=0.0, atol=0.1)
