"""The example of a policy gradient, run as it stands."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "grpo.py"


def test_the_example_moves_the_mean(capsys):
    """From the mixture's own mean, -0.06, which a sample of 96 tells to 0.2, by more than its std, 0.6."""
    example = runpy.run_path(str(EXAMPLE))
    means = example["train"]()
    assert abs(means[0] + 0.06) < 0.2
    assert means[-1] > means[0] + 0.6
    assert means[-1] > means[len(means) // 2] > means[0]
