"""Which tensors of a checkpoint are the network's: its averages, or its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..checkpoint import safe_file

MODEL = (
    "state_dict", "model", "model_state_dict", "net", "network", "module", "params", "score_model", "unet",
)  # fmt: skip
EMA = (
    "ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "ema_params", "params_ema",
    "ema_model_state_dict", "shadow",
)  # fmt: skip
# What wrappers put before every name: DataParallel, torch.compile, lightning's and EMA's modules.
PREFIXES = ("module.", "_orig_mod.")
LIT_EMA = "model_ema."


@dataclass
class Chosen:
    """tensors  by the network's own names
    kept     what they are: "ema" or another key of the checkpoint
    decay    of the average, where the checkpoint says it
    besides  names that averages lack and the weights have, such as buffers
    dropped  keys of the checkpoint that hold something else
    prefix   that all names had
    """

    tensors: dict[str, Tensor]
    kept: str
    decay: float | None = None
    besides: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    prefix: str = ""


def chosen(loaded: Any, ema: str, names: Sequence[str] | None) -> Chosen:
    """The network's tensors.

    loaded  what a checkpoint holds
    ema     "auto": averages where there are some; "none": the weights; or the averages of that decay
    names   of the trained parameters in the network's order, where averages may be a list without names

    Raises ValueError where there are no tensors, averages of that decay are not there, or names disagree.
    """
    loaded = _keyed(loaded)
    apart = any(isinstance(loaded.get(key), (Mapping, list)) for key in (*MODEL, *EMA))
    own = None if apart else _tensors(loaded)
    if own is not None and not _has_averages(own):
        _check_plain(ema)
        return _named(Chosen(own, "tensors"))
    model_key, model = _first(loaded, MODEL)
    ema_key, averages = ("", None) if ema == "none" else _first(loaded, EMA, _is_average)
    both = _first({"tensors": own, **loaded}, ("tensors", *MODEL, *EMA), None, _has_averages)
    if both[1] is not None:
        made = _of_one(*both, ema)
    elif averages is None:
        _check_plain(ema)
        if model is None:
            raise ValueError(f"no tensors of a network are found under {_keys(loaded)}; {ADVICE}")
        made = Chosen(model, model_key)
    else:
        made = _averaged(ema_key, averages, model, names)
    if made.decay is None:
        made.decay = _decay_of(loaded.get("ema_decay", loaded.get("ema_rate")))
    if ema not in ("auto", "none"):
        _check_decay(ema, made.decay)
    if own is None:
        made.dropped = sorted(_shown(key) for key in loaded if key != made.kept)
    return _named(made)


ADVICE = (
    "with the repository's own code write torch.save(network.state_dict(), FILE), and convert that"
)


def _keyed(loaded: Any) -> Mapping[str, Any]:
    if isinstance(loaded, list) and len(loaded) == 5 and _tensors(loaded[4]):
        # ermongroup/ddim: model, optimizer, epoch, step, averages
        return dict(zip(("model", "optimizer", "epoch", "step", "ema"), loaded, strict=True))
    if not isinstance(loaded, Mapping):
        raise ValueError(f"it holds a {type(loaded).__name__}, no tensors by name; {ADVICE}")
    return loaded


def _tensors(value: Any) -> dict[str, Tensor] | None:
    """Tensors by name, where a mapping holds nothing else; names of inner ones follow a slash."""
    if not isinstance(value, Mapping) or not value:
        return None
    made: dict[str, Tensor] = {}
    for name, each in value.items():
        if isinstance(each, Tensor):
            made[str(name)] = each
        elif (inner := _tensors(each)) is not None and "/" not in str(name):
            made |= {f"{name}/{rest}": tensor for rest, tensor in inner.items()}
        else:
            return None
        if len(made) > safe_file.TENSORS:  # one mapping may stand in many places
            raise ValueError(f"it holds more than {safe_file.TENSORS} tensors; {ADVICE}")
    return made


def _first(
    loaded: Mapping[str, Any], keys: Sequence[str], taken: Any = None, wanted: Any = None
) -> tuple[str, Any]:
    """The first of the keys under which there are tensors by name, or something that `taken` takes."""
    for key in keys:
        value = loaded.get(key)
        if taken is not None and taken(value):
            return key, value
        found = _tensors(value)
        if found is not None and (wanted is None or wanted(found)):
            return key, found
    return "", None


def _is_average(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("shadow_params"), list)


def _averaged(
    key: str, averages: Any, model: dict[str, Tensor] | None, names: Sequence[str] | None
) -> Chosen:
    """Averages beside weights: by name, or score_sde's list in the order of the parameters."""
    decay = None
    if _is_average(averages):
        decay = _decay_of(averages.get("decay"))
        averages = _listed(averages["shadow_params"], names)
    averages, prefix = _bare(averages)
    weights, _ = _bare(model or {})
    besides = sorted(weights.keys() - averages) if averages.keys() <= weights.keys() else []
    tensors = averages | {name: weights[name] for name in besides}
    for name in averages.keys() & weights:
        if averages[name].shape != weights[name].shape:
            raise ValueError(
                f"the average of {name} is {list(averages[name].shape)} and its weight "
                f"{list(weights[name].shape)}: is --config that of this network?"
            )
    return Chosen(tensors, key, decay, besides, prefix=prefix)


def _listed(tensors: list[Any], names: Sequence[str] | None) -> dict[str, Tensor]:
    if names is None:
        raise ValueError(
            f"its averages are a list of {len(tensors)} tensors without names: say by --format and --config "
            "of which network, which tells their order; or take the weights by --ema none"
        )
    if len(names) != len(tensors) or not all(isinstance(t, Tensor) for t in tensors):
        raise ValueError(
            f"its averages are a list of {len(tensors)}, and the network of --config has {len(names)} "
            "trained parameters: is --config that of this network?"
        )
    return dict(zip(names, tensors, strict=True))


def _has_averages(flat: Mapping[str, Tensor]) -> bool:
    """Whether one state_dict holds weights and averages, as lightning's and lucidrains' do."""
    return any(name.startswith((LIT_EMA, "ema_model.")) for name in flat)


def _of_one(key: str, flat: dict[str, Tensor], ema: str) -> Chosen:
    """Weights and averages of one state_dict."""
    average, weight = ("ema_model.", "online_model.")
    if any(name.startswith(LIT_EMA) for name in flat):  # the names of averages have no dots
        average, weight = LIT_EMA, "model."
    weights = {n.removeprefix(weight): t for n, t in flat.items() if n.startswith(weight)}
    if ema == "none":
        return Chosen(weights, key, dropped=sorted(flat.keys() - {weight + n for n in weights}))
    if average == LIT_EMA:
        short = {name: average + name.replace(".", "") for name in weights}
        made = {name: flat[short[name]] for name in weights if short[name] in flat}
        besides = sorted(weights.keys() - made)
        made |= {name: weights[name] for name in besides}
    else:
        made, besides = (
            {n.removeprefix(average): t for n, t in flat.items() if n.startswith(average)},
            [],
        )
    if not made:
        raise ValueError(f"its averages have names that are none of its weights'; {ADVICE}")
    decay = flat.get(LIT_EMA + "decay")
    return Chosen(made, key, _decay_of(decay), besides)


def _decay_of(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = round(value.item(), 7)  # of float32
    return float(value) if isinstance(value, (int, float)) else None


def _check_plain(ema: str) -> None:
    if ema not in ("auto", "none"):
        raise ValueError(
            f"--ema {ema}: the file holds no averages beside its weights. Where a file is an average itself, "
            "as ema_0.9999_*.pt of guided-diffusion is, leave --ema out"
        )


def _check_decay(ema: str, decay: float | None) -> None:
    try:
        asked = float(ema)
    except ValueError:
        raise ValueError(f"--ema {ema}: give auto, none, or a decay such as 0.9999") from None
    if decay != asked:
        found = "says no decay" if decay is None else f"has averages of {decay:g}"
        raise ValueError(f"--ema {ema}: the checkpoint {found}; take them by --ema auto")


def _named(made: Chosen) -> Chosen:
    """The names without what a wrapper put before all of them."""
    made.tensors, prefix = _bare(made.tensors)
    made.prefix = made.prefix or prefix
    return made


def _bare(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    bare, dropped = dict(tensors), ""
    while bare and (
        prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in bare)), "")
    ):
        bare, dropped = {n.removeprefix(prefix): t for n, t in bare.items()}, dropped + prefix
    return bare, dropped


def _keys(loaded: Mapping[str, Any]) -> str:
    keys = [_shown(key) for key, _ in zip(loaded, range(8), strict=False)]
    return ", ".join(keys) + (", ..." if len(loaded) > 8 else "") or "no name at all"


def _shown(key: Any) -> str:
    """A key of a checkpoint as it may go to a terminal."""
    text = str(key)[:40]
    return text if text.isprintable() else ascii(text)
