"""Group-relative policy optimisation of a flow model whose law is known: a mixture learns to lie higher.

    python examples/grpo.py

A sample is one number, drawn from a mixture of Gaussians by 8 steps of Flow-SDE (Flow-GRPO, Liu et al. 2025);
its reward is its own value. What is trained is a small correction of the exact network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_engine import Sampler
from diffusion_engine.processes import FlowMatching
from diffusion_engine.rollouts import log_prob
from diffusion_engine.testing import Mixture

GROUP = 96  # samples of one prompt
CLIP = 0.1  # of the ratio of likelihoods
ROUNDS, UPDATES = 24, 2


class Corrected(nn.Module):
    """A network, and a correction of its estimate that is 0 at first."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.correction = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
        nn.init.zeros_(self.correction[-1].weight)
        nn.init.zeros_(self.correction[-1].bias)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        told = torch.stack([x[:, 0], label.to(x.dtype)], dim=1)
        return self.base(x, label) + self.correction(told)


def advantages(rewards: Tensor) -> Tensor:
    """How much better each sample is than its group (GRPO, Shao et al. 2024)."""
    return (rewards - rewards.mean()) / (rewards.std() + 1e-6)


def train() -> list[float]:
    """The mean reward of each round's samples."""
    torch.manual_seed(0)
    network = Mixture().network(FlowMatching(), shape=(1,))
    network = network.with_module(Corrected(network.module))
    sampler = Sampler(network, "flow_sde", steps=8, batch_size=GROUP)
    optimizer = torch.optim.Adam(network.module.correction.parameters(), lr=3e-3)
    means = []
    for i in range(ROUNDS):
        result = sampler.sample(GROUP, seed=i * GROUP, record=("log_prob", "trajectory"))
        rollout, rewards = result.rollout, result.samples[:, 0].double()
        means.append(float(rewards.mean()))
        advantage = advantages(rewards)[:, None]
        for _ in range(UPDATES):
            ratio = (log_prob(rollout, network) - rollout.log_prob).exp()
            kept = ratio.clamp(1.0 - CLIP, 1.0 + CLIP)
            loss = -torch.minimum(ratio * advantage, kept * advantage).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return means


def main() -> None:
    means = train()
    for i in range(0, ROUNDS, 4):
        print(f"round {i:2d}: mean {means[i]:+.2f}")
    print(f"the mean went from {means[0]:+.2f} to {means[-1]:+.2f}")


if __name__ == "__main__":
    main()
