"""Statistics that features are normalised by, from where each release of lerobot keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..checkpoint import safe_file
from ..checkpoint.folder import check_link, config_of

PREPROCESSOR, STEP = "policy_preprocessor.json", "normalizer_processor"
# Buffers of releases up to 0.3, each with an underscore for every dot of the feature's name.
BUFFERS = ("normalize_inputs.buffer_", "unnormalize_outputs.buffer_")


def statistics_of(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Statistics by feature and name, such as observation.state and min; none where there are none."""
    beside = path / PREPROCESSOR
    named = _of_file(beside) if path.is_dir() and beside.is_file() else _of_buffers(tensors)
    made: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        feature, _, kind = name.rpartition(".")
        made.setdefault(feature, {})[kind] = tensor
    return made


def _of_buffers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for name, tensor in tensors.items():
        for start in BUFFERS:
            if name.startswith(start):
                feature, _, kind = name.removeprefix(start).rpartition(".")
                made[f"{_dotted(feature)}.{kind}"] = tensor
    return made


def _dotted(feature: str) -> str:
    """observation.environment_state of observation_environment_state: its first underscore was a dot."""
    return feature.replace("observation_", "observation.", 1)


def _of_file(file: Path) -> dict[str, Tensor]:
    """Those of the file that policy_preprocessor.json names. Raises ValueError where it leads elsewhere."""
    check_link(file)
    steps = config_of(file).get("steps")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and step.get("registry_name") == STEP and "state_file" in step:
            name = step["state_file"]
            if (
                not isinstance(name, str)
                or Path(name).name != name
                or not name.endswith(".safetensors")
            ):
                raise ValueError(f"{file} names the file {name!r}, which is none beside it")
            check_link(file.parent / name)
            return safe_file.load(file.parent / name)
    return {}
