"""lerobot's diffusion policy: its checkpoints, and its sampler as a loop in float64 of its own."""

import json
import math
from pathlib import Path

import pytest
import torch
from lerobot_cases import CONDITION, UNET, given, weights
from safetensors.torch import save_file

from diffusion_engine import Sampler
from diffusion_engine.adapters.checkpoint import open_checkpoint
from diffusion_engine.adapters.lerobot import ConditionalUnet1d, from_lerobot, policy_from_lerobot
from diffusion_engine.models import network_of

HORIZON, ACTIONS, STATE, ENVIRONMENT = 8, 2, 3, 2
CONFIG = {
    "type": "diffusion", "n_obs_steps": 2, "horizon": HORIZON, "n_action_steps": 4,
    "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [STATE]},
        "observation.environment_state": {"type": "ENV", "shape": [ENVIRONMENT]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [ACTIONS]}},
    "vision_backbone": "resnet18", "pretrained_backbone_weights": None, "device": "cuda:0",
    "down_dims": [8, 16], "kernel_size": 3, "n_groups": 4, "diffusion_step_embed_dim": 8,
    "use_film_scale_modulation": True, "noise_scheduler_type": "DDPM", "num_train_timesteps": 20,
    "beta_schedule": "squaredcos_cap_v2", "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon",
    "clip_sample": True, "clip_sample_range": 1.0, "num_inference_steps": 10, "optimizer_lr": 1e-4,
}  # fmt: skip
LOW, HIGH = torch.tensor([12.0, -1.0]), torch.tensor([511.0, 3.0])
STATISTICS = {
    "observation.state.min": torch.tensor([0.0, -1.0, 2.0]),
    "observation.state.max": torch.tensor([1.0, 5.0, 2.0]),  # the last never changed
    "observation.environment_state.mean": torch.tensor([1.0, 2.0]),
    "observation.environment_state.std": torch.tensor([3.0, 0.0]),
    "action.min": LOW,
    "action.max": HIGH,
}
BUFFERS = {
    f"{'unnormalize_outputs' if name.startswith('action') else 'normalize_inputs'}.buffer_"
    + name.replace("observation.", "observation_"): tensor
    for name, tensor in STATISTICS.items()
}


def module(condition, scales=True):
    torch.manual_seed(0)
    return ConditionalUnet1d(ACTIONS, condition, (8, 16), 3, 4, 8, scales)


def folder(path, buffers=BUFFERS, compiled="", told=2 * (STATE + ENVIRONMENT), **config):
    """As lerobot saves: the U-Net's names behind the policy's, and in releases up to 0.3 statistics."""
    path.mkdir()
    config = CONFIG | config
    state = module(told, config["use_film_scale_modulation"]).state_dict()
    tensors = {f"diffusion.unet.{compiled}{name}": tensor for name, tensor in state.items()}
    save_file(tensors | buffers, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("scales", [True, False])
def test_outputs_are_those_of_its_own_code(tmp_path, scales):
    """golden/make_lerobot.py recorded the names of its tensors and what they make of the same numbers."""
    golden = Path(__file__).parents[1] / "golden" / "lerobot.json"
    want = json.loads(golden.read_text())[str(scales)]
    state = {"type": "STATE", "shape": [CONDITION]}
    config = CONFIG | UNET | {"n_obs_steps": 1, "use_film_scale_modulation": scales}
    config |= {"input_features": {"observation.state": state}}
    tensors = {f"diffusion.unet.{n}": t for n, t in weights(want["shapes"]).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        (out,) = from_lerobot(tmp_path)(*given())
    exact = torch.tensor(want["out"]).view_as(out)
    assert torch.allclose(out, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def alpha_bars(n):
    def f(t):
        return math.cos((t / n + 0.008) / 1.008 * math.pi / 2) ** 2

    bars, bar = [], 1.0
    for t in range(n):
        bar *= 1.0 - min(1.0 - f(t + 1) / f(t), 0.999)
        bars.append(bar)
    return bars


def loop(net, config, x, condition, noise):
    """DDPM (Ho et al. 2020, eq. 7) and DDIM (Song et al. 2021, eq. 12) at timesteps ..., 2k, k, 0."""
    n, steps = config["num_train_timesteps"], config["num_inference_steps"]
    bars, gap = alpha_bars(n), n // steps
    for i, t in enumerate(range((steps - 1) * gap, -1, -gap)):
        bar, before = bars[t], bars[t - gap] if t >= gap else 1.0
        with torch.no_grad():
            out = net(x, torch.full((len(x),), t), condition)
        x0 = (
            out
            if config["prediction_type"] == "sample"
            else (x - math.sqrt(1 - bar) * out) / math.sqrt(bar)
        )
        eps = (x - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        if config["clip_sample"]:
            x0 = x0.clamp(-1.0, 1.0)
        if config["noise_scheduler_type"] == "DDIM":
            x = math.sqrt(before) * x0 + math.sqrt(1 - before) * eps
            continue
        beta = 1 - bar / before
        mean = math.sqrt(before) * beta * x0 + math.sqrt(1 - beta) * (1 - before) * x
        x = mean / (1 - bar) + math.sqrt((1 - before) / (1 - bar) * beta) * noise[i]
    return x


RUNS = {
    "DDPM": {},
    "DDIM": {"noise_scheduler_type": "DDIM"},
    "DDIM of x0": {
        "noise_scheduler_type": "DDIM",
        "prediction_type": "sample",
        "num_inference_steps": 5,
    },
    "DDPM of x0 without FiLM's scale": {
        "prediction_type": "sample",
        "use_film_scale_modulation": False,
    },
    "DDIM without a clip": {"noise_scheduler_type": "DDIM", "clip_sample": False},
}


@pytest.mark.parametrize("name", RUNS)
def test_actions_are_those_of_its_sampler(tmp_path, name):
    config = CONFIG | RUNS[name]
    policy = policy_from_lerobot(folder(tmp_path / "net", **RUNS[name]))
    numbers = torch.Generator().manual_seed(1)
    x = torch.randn(3, HORIZON, ACTIONS, generator=numbers)
    noise = torch.randn(policy.steps + 1, 3, HORIZON, ACTIONS, generator=numbers)
    state = torch.randn(3, 2, STATE, generator=numbers)
    environment = torch.randn(3, 2, ENVIRONMENT, generator=numbers)
    condition = policy.condition(state, environment)
    made = Sampler(policy.network, policy.solver, policy.steps).sample(
        3, x=x, noised=True, condition=condition, noise=lambda row, m, seeds: noise[row - 1]
    )
    net = module(condition.shape[1], config["use_film_scale_modulation"]).double().eval()
    want = loop(net, config, x.double(), condition.double(), noise)
    assert torch.allclose(made.samples.double(), want, rtol=0, atol=2e-5 * float(want.abs().max()))
    # n_action_steps from the last of n_obs_steps on, in their own units
    actions = (want[:, 1:5] + 1) / 2 * (HIGH - LOW) + LOW
    assert torch.allclose(policy.actions(made.samples).double(), actions, rtol=0, atol=0.02)


def test_observations_are_normalised_and_flattened(tmp_path):
    policy = policy_from_lerobot(folder(tmp_path / "net"))
    state = torch.tensor([[[0.0, 2.0, 2.0], [1.0, 5.0, 2.0]]])
    environment = torch.tensor([[[1.0, 2.0], [4.0, 2.0]]])
    got = policy.condition(state, environment)
    assert got.tolist() == [[-1, 0, -1, 0, 0, 1, 1, -1, 1, 0]]
    for wrong in (
        (state,),
        (state[:, :1], environment),
        (state, environment, state),
        (state, state),
    ):
        with pytest.raises(ValueError, match=r"this policy observes \[n, 2, \d\] of it"):
            policy.condition(*wrong)


def test_images_are_told_as_features_of_its_encoder(tmp_path):
    """Three cameras of four key points each, behind the state, before the environment."""
    features = CONFIG["input_features"] | {
        f"observation.images.{i}": {"type": "VISUAL", "shape": [3, 96, 96]} for i in range(3)
    }
    told = 2 * (STATE + 3 * 8 + ENVIRONMENT)
    path = folder(
        tmp_path / "net", told=told, input_features=features, spatial_softmax_num_keypoints=4
    )
    policy = policy_from_lerobot(path)
    images = torch.randn(1, 2, 24)
    got = policy.condition(torch.zeros(1, 2, STATE), torch.zeros(1, 2, ENVIRONMENT), images)
    assert torch.equal(got.view(1, 2, -1)[..., STATE:-ENVIRONMENT], images)


def preprocessor(path, state_file="policy_preprocessor_step_3_normalizer_processor.safetensors"):
    """What newer releases put beside the weights."""
    steps = [{"registry_name": "to_batch_processor"}, {"registry_name": "normalizer_processor"}]
    steps[1]["state_file"] = state_file
    (path / "policy_preprocessor.json").write_text(json.dumps({"name": "it", "steps": steps}))
    save_file(STATISTICS, path / "policy_preprocessor_step_3_normalizer_processor.safetensors")
    return path


def test_statistics_of_newer_releases(tmp_path):
    made = policy_from_lerobot(preprocessor(folder(tmp_path / "new", {})))
    old = policy_from_lerobot(folder(tmp_path / "old"))
    given = torch.randn(2, 2, STATE), torch.randn(2, 2, ENVIRONMENT)
    assert torch.equal(made.condition(*given), old.condition(*given))
    x = torch.randn(2, HORIZON, ACTIONS)
    assert torch.equal(made.actions(x), old.actions(x))
    with pytest.raises(
        ValueError, match=r"names the file '\.\./it\.safetensors', which is none beside"
    ):
        policy_from_lerobot(preprocessor(folder(tmp_path / "out", {}), "../it.safetensors"))
    bare = folder(tmp_path / "bare", {})
    assert open_checkpoint(bare).shape == (HORIZON, ACTIONS)  # the network needs none
    with pytest.raises(
        ValueError, match=r"no min and max of observation\.state, .* newer releases keep"
    ):
        policy_from_lerobot(bare)


def test_a_compiled_policy_and_the_command_lines_word(tmp_path):
    network = network_of(str(folder(tmp_path / "net", compiled="_orig_mod.")))
    assert (network.name, network.shape) == ("net", (HORIZON, ACTIONS))
    with pytest.raises(
        ValueError, match=r"condition=None: the policy is told its observations, \[n, 10\]"
    ):
        Sampler(network, "ddim", 2).sample(1)


def test_a_tensor_more_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"has 1 tensors that are none of such a policy's: critic\.w"
    ):
        policy_from_lerobot(folder(tmp_path / "net", BUFFERS | {"critic.w": torch.ones(1)}))


CHANGES = {
    "another width": ({"down_dims": [16, 32]}, "tensors of another shape: "),
    "more levels": ({"down_dims": [8, 16, 32]}, "lacks "),
    "a horizon that is odd": ({"horizon": 7}, "horizon=7 cannot be halved 1 times"),
    "too many actions": ({"n_action_steps": 8}, "n_action_steps=8: of horizon=8 steps 1 lie in the past"),
    "groups": ({"n_groups": 3}, "multiples of n_groups=3"),
    "prediction": ({"prediction_type": "v_prediction"}, "prediction_type='v_prediction': choose epsilon"),
    "scheduler": ({"noise_scheduler_type": "PNDM"}, "noise_scheduler_type='PNDM': choose DDPM, DDIM"),
    "schedule": ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid': choose squaredcos"),
    "too many steps": ({"num_inference_steps": 21}, "num_inference_steps=21: give a whole"),
    "no state": ({"input_features": {"observation.x": {"type": "STATE", "shape": [2]}}}, "has the features"),
    "code": ({"vision_backbone": "torchvision.models:resnet18"}, "names code"),
    "another policy": ({"type": "act"}, "is of the format None"),
    "a mode": ({"normalization_mapping": {"STATE": "LOG"}}, "STATE='LOG': choose IDENTITY"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_does_not_go_together_is_refused(tmp_path, name):
    change, said = CHANGES[name]
    with pytest.raises(ValueError, match=said):
        policy_from_lerobot(folder(tmp_path / "net", **change))
