"""A diffusion policy that serves eight robots, each of which plans 16 actions of 7 numbers at a time.

    python examples/robot_policy.py

The network is diffusers' 1-D U-Net made from its configuration, untrained. Each robot is a thread that asks,
acts on the first half of its plan and asks again from where it is: the plan's first action is given and the
rest is free, as in Diffuser (Janner et al. 2022). A robot in a hurry asks for few steps and a deadline.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffusion_engine import Engine, ScoreNetwork, from_diffusers

HORIZON, ACTION = 16, 7
STEPS = (4, 5, 6, 8, 10, 12, 16, 20)  # of the robots
PLANS = 3


def policy() -> ScoreNetwork:
    from diffusers import DDPMScheduler, UNet1DModel

    torch.manual_seed(0)
    unet = UNet1DModel(
        sample_size=HORIZON, in_channels=ACTION, out_channels=ACTION, layers_per_block=1,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock", block_out_channels=(32, 64), act_fn="mish",
        time_embedding_type="positional", use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=True)
    return from_diffusers(unet.eval(), scheduler, shape=(ACTION, HORIZON))


@dataclass
class Robot:
    """Asks for a plan, acts on half of it, and asks for the next.

    steps  of the solver, the price of a plan
    """

    name: int
    steps: int
    plans: list[Tensor] = field(default_factory=list)

    def live(self, engine: Engine) -> None:
        free, known = torch.ones(ACTION, HORIZON), torch.zeros(ACTION, HORIZON)
        free[:, 0] = 0.0
        for i in range(PLANS):
            handle = engine.submit(
                {"solver": "ddim", "steps": self.steps}, seeds=[100 * self.name + i], mask=free, known=known,
                key=f"robot {self.name}", deadline=60.0,
            )  # fmt: skip
            plan = handle.result().samples[0]
            self.plans.append(plan)
            known[:, 0] = plan[:, HORIZON // 2]


def main() -> list[Robot]:
    robots = [Robot(name, steps) for name, steps in enumerate(STEPS)]
    with Engine(policy(), capacity=len(robots)) as engine:
        lives = [threading.Thread(target=robot.live, args=(engine,)) for robot in robots]
        for life in lives:
            life.start()
        for life in lives:
            life.join()
        said = engine.snapshot()
    shared = said["seat_rows"] / said["rows"]
    print(f"{said['done']} plans in {said['rows']} rows, {shared:.1f} robots in each")
    return robots


if __name__ == "__main__":
    main()
