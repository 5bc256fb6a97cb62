"""The fields of a scheduler's configuration: taken, or refused by name where one asks for what is not taken.

INERT is what nothing reads without a field that is refused.
"""

from __future__ import annotations

from typing import Any

from .classes import CLASSES, REFUSED
from .levels import Fields, asked

INERT = (
    "dynamic_thresholding_ratio", "sample_max_value", "time_shift_type", "base_shift", "max_shift",
    "base_image_seq_len", "max_image_seq_len", "noise_sampler_seed",
)  # fmt: skip
# Fields that only these values of are taken.
ONLY: dict[str, tuple[Any, ...]] = {
    "interpolation_type": ("linear", "log_linear"),
    "timestep_type": ("discrete", "continuous"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
    "time_shift_type": ("exponential", "linear"),
    "sigma_schedule": ("karras", "exponential"),
    "solver_p": (None,),
}
# Their "sigma_min" is that of the table, whatever else the levels are.
TABLES_END = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler")
KNOWN = {*INERT, *(field for kind in CLASSES.values() for field in kind.fields)}


def understood(name: str, config: Fields) -> Fields:
    """The fields that a class takes, with its defaults, once none asks for more."""
    if name not in CLASSES:
        said = f"of the class {name}" if name else "without a _class_name"
        why = f": {REFUSED[name]}" if name in REFUSED else ", and the class decides the times"
        raise ValueError(
            f"a scheduler configuration {said} is not understood{why}; give a scheduler, or a saved "
            f"configuration, of {', '.join(CLASSES)}, or make the ScoreNetwork yourself"
        )
    given = {k: v for k, v in config.items() if not k.startswith("_")}
    made = {field: given.get(field, usual) for field, usual in CLASSES[name].fields.items()}
    # Most classes read the ends of Karras levels without having such fields.
    if "use_karras_sigmas" in made:
        made |= {f: given[f] for f in ("sigma_min", "sigma_max") if given.get(f) is not None}
    if "shift" in made and given.get("set_shift") is not None:
        made["set_shift"] = given["set_shift"]
    if made.get("thresholding") and made["sample_max_value"] != 1.0:
        raise ValueError(
            f"thresholding with sample_max_value={made['sample_max_value']!r} of the scheduler finds a "
            "threshold for every sample, and no table does; at 1 it is a clip to -1 and 1, which is taken"
        )
    if name == "TCDScheduler":  # which has the fields of a clip and does not read them
        made |= {"clip_sample": False, "thresholding": False}
    for field, value in given.items():
        if not _fine(field, value, made):
            raise ValueError(
                f"the scheduler's configuration asks for {field}={value!r}, which is not taken over: give a "
                "configuration without it, and the levels as the sampler's sigmas="
            )
    _check_agreement(name, made)
    return made


def _fine(field: str, value: Any, made: Fields) -> bool:
    if field in made:
        return value in ONLY.get(field, (value,))
    return field in KNOWN or value is None or value is False


def _check_agreement(name: str, made: Fields) -> None:
    """Raises ValueError where fields contradict each other."""
    flags = asked(made)
    both = ["use_karras_sigmas", "use_flow_sigmas"]
    if len(flags) > 1 and not (flags == both and name == "UniPCMultistepScheduler"):
        raise ValueError(
            f"{flags[0]} and {flags[1]} of the scheduler are both set: set one of them"
        )
    flow = made.get("use_flow_sigmas")
    if name in TABLES_END and flow and made["final_sigmas_type"] != "zero":
        raise ValueError(
            "the scheduler's configuration asks for final_sigmas_type='sigma_min' with use_flow_sigmas, "
            "which would end straight paths on a level of the table: give 'zero'"
        )
    if "use_flow_sigmas" in made and not flow and made["prediction_type"] == "flow_prediction":
        raise ValueError(
            "prediction_type='flow_prediction' of the scheduler is of straight paths: set use_flow_sigmas"
        )
    if flow and made["prediction_type"] == "v_prediction":
        raise ValueError(
            "prediction_type='v_prediction' of the scheduler is of a variance-preserving table, and "
            "use_flow_sigmas of straight paths: set one of them"
        )
    if made.get("shift_terminal") is not None and flow is False:
        raise ValueError("shift_terminal of the scheduler goes with use_flow_sigmas: set both")
