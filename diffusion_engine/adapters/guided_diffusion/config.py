"""What configs of guided-diffusion, and of what was made of it, say of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..checkpoint import Fields
from .block import GROUPS, Style
from .unet import Form

CLASSES = 1000
# Widths of the levels by the side of an image, where a config has none.
MULTS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4),
}  # fmt: skip
LISTS = ("channel_mult", "attention_resolutions", "classifier_attention_resolutions")
TRAINING = (
    "dropout", "use_checkpoint", "use_fp16", "use_kl", "rescale_learned_sigmas", "weight_schedule",
    "num_heads_downsample",
)  # fmt: skip


def lists(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config with lists in place of "32,16,8"; an empty channel_mult is left out.

    Raises ValueError where a text is no such list.
    """
    made = dict(config)
    for name in LISTS:
        text = made.get(name)
        if not isinstance(text, str):
            continue
        if name == "channel_mult" and not text.strip():
            del made[name]
            continue
        parts = [part.strip() for part in text.split(",")]
        if not all(part.isdecimal() for part in parts):
            raise ValueError(
                f"{where}: {name}={text[:60]!r}: whole numbers with commas between, as '32,16,8'"
            )
        made[name] = [int(part) for part in parts]
    return made


def form_of(
    fields: Fields, side: int, outputs: int, *, channels: int, prefix: str = "", flat: bool = True,
    order: str | None = None, attending: tuple[int, ...] = (16, 8),
) -> Form:  # fmt: skip
    """Sizes and style of a network.

    prefix  of the names of a classifier's fields
    flat, order  as in Style; an order of None is what use_new_attention_order says
    attending  attention_resolutions where a config has none
    """
    classifies = bool(prefix)
    names = ("width", "depth") if classifies else ("num_channels", "num_res_blocks")
    base = fields.whole(prefix + names[0], GROUPS, 1 << 14, 128)
    blocks = fields.whole(prefix + names[1], 1, 64, 2)
    mults = fields.wholes("channel_mult", 1, 64, MULTS.get(side), 12)
    if mults is None:
        raise ValueError(
            f"{fields.where}: images of {side} have no widths of their own; say channel_mult, as '1,2,4'"
        )
    where = fields.wholes(prefix + "attention_resolutions", 1, 1 << 13, attending)
    widths = [int(base * mult) for mult in mults]
    check(fields.where, side, widths)
    style = Style(
        embedded=4 * base,
        film=fields.flag(prefix + "use_scale_shift_norm", True),
        updown=fields.flag(prefix + "resblock_updown", classifies),
        flat=flat,
        **_heads(fields, widths, classifies, order),
    )
    shrunk = frozenset(side // each for each in where)
    return Form(channels, outputs, base, widths, blocks, shrunk, style)


def _heads(
    fields: Fields, widths: list[int], classifies: bool, order: str | None
) -> dict[str, Any]:
    """How attention divides channels."""
    if classifies:
        return {"heads": 1, "heads_up": 1, "head_channels": 64, "order": "n k c"}
    heads = fields.whole("num_heads", 1, 1 << 10, 4)
    up = fields.whole("num_heads_upsample", -1, 1 << 10, -1)
    head = fields.whole("num_head_channels", -1, 1 << 14, -1)
    new = fields.flag("use_new_attention_order", False)
    if 0 in (up, head):
        raise ValueError(
            f"{fields.where}: num_heads_upsample and num_head_channels are -1, or above 0"
        )
    return {
        "heads": heads,
        "heads_up": heads if up == -1 else up,
        "head_channels": None if head == -1 else head,
        "order": order or ("k n c" if new else "n k c"),
    }


def check(where: str, side: int, widths: list[int]) -> None:
    """Raises ValueError where an image cannot be halved as often, or a level's channels make no groups."""
    times = len(widths) - 1
    if side % (1 << times):
        raise ValueError(
            f"{where}: {times + 1} levels of channel_mult halve an image of {side} {times} times, and it is "
            f"no multiple of {1 << times}"
        )
    if odd := [width for width in widths if width % GROUPS]:
        raise ValueError(
            f"{where}: a level has {odd[0]} channels, and norms {GROUPS} groups of them"
        )
