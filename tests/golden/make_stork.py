"""Writes stork.json: what the published STORKScheduler makes of a small flow.

    PYTHONPATH=FOLDER:tests/helpers python tests/golden/make_stork.py

FOLDER holds its STORKScheduler.py, which imports diffusers and scipy.
"""

import json
from pathlib import Path

import torch
from stork_cases import START, TIMES, velocity
from STORKScheduler import STORKScheduler

OUT = Path(__file__).with_name("stork.json")


def main():
    scheduler = STORKScheduler(
        prediction_type="flow_prediction", solver_order=2, derivative_order=2
    )
    scheduler.set_timesteps(len(TIMES) - 1, sigmas=TIMES[:-1])
    x = torch.tensor([START])
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, float(t) / 1000.0), t, x, return_dict=False)[0]
    OUT.write_text(json.dumps(x[0].tolist()) + "\n")


if __name__ == "__main__":
    main()
