"""Several processes, one a GPU, as torchrun starts them: each takes a slice of the samples."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from .result import Result
from .sampler import Sampler

PATIENCE = timedelta(hours=24)  # for the slowest rank; torchrun ends all when one dies


@dataclass(frozen=True)
class Ranks:
    """This process, the one of number `rank` among `world`; `local` is its number on its machine, and so its
    GPU's."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Ranks:
        """From torchrun's variables; a single process where there are none."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        given = {name: os.environ[name] for name in names if name in os.environ}
        if "WORLD_SIZE" not in given or "RANK" not in given:
            return cls()
        try:
            ranks = cls(*(int(given.get(name, "0")) for name in names))
        except ValueError as error:
            raise ValueError(f"{given} are no whole numbers; start with torchrun") from error
        if not 0 <= ranks.rank < ranks.world:
            raise ValueError(f"RANK={ranks.rank} of WORLD_SIZE={ranks.world}; start with torchrun")
        return ranks

    def part(self, n: int, batch: int, rank: int | None = None) -> range:
        """Of n samples those of this rank, or of another: consecutive whole batches, one more at most.

        The batches are those of a single process: torch picks other algorithms for other batch sizes, and
        so the samples are the same, to the last bit, for any number of ranks. Where threads are measured, or
        torch compiles for a GPU, every process takes what is kept on its machine, or times its own.
        """
        rank = self.rank if rank is None else rank
        size, longer = divmod(-(-n // batch), self.world)
        low = rank * size + min(rank, longer)
        return range(min(n, low * batch), min(n, (low + size + (rank < longer)) * batch))

    def told(self, text: str) -> str:
        """Rank 0's text, on every rank."""
        import torch.distributed as dist

        self._join()
        made = torch.tensor([*text.encode()], dtype=torch.uint8)
        size = torch.tensor([len(made)])
        dist.broadcast(size, 0)
        made = made if self.rank == 0 else torch.zeros(int(size), dtype=torch.uint8)
        dist.broadcast(made, 0)
        return bytes(made.tolist()).decode()

    def _join(self) -> None:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)

    def gather(self, own: Tensor, n: int, batch: int) -> Tensor | None:
        """The rows of all ranks in order, [n, ...] on the CPU, on rank 0; None on the others.

        own  [len(part), ...], this rank's rows
        """
        own = own.detach().cpu().contiguous()
        if self.world == 1:
            return own
        import torch.distributed as dist

        self._join()
        parts = [self.part(n, batch, rank) for rank in range(self.world)]
        room = torch.zeros(max(map(len, parts)), *own.shape[1:], dtype=own.dtype)
        room[: len(own)] = own
        all_rooms = [torch.empty_like(room) for _ in range(self.world)] if self.rank == 0 else None
        dist.gather(room, all_rooms)
        if all_rooms is None:
            return None
        return torch.cat([rows[: len(p)] for rows, p in zip(all_rooms, parts, strict=True)])

    def gathered(self, own: Tensor) -> Tensor:
        """The rows of all ranks in order, on every rank and on the device of its own.

        own  [n, ...], as many on each
        """
        import torch.distributed as dist

        self._join()
        sent = own.detach().cpu() if dist.get_backend() == "gloo" else own.detach()
        rooms = [
            torch.empty_like(sent, memory_format=torch.contiguous_format) for _ in range(self.world)
        ]
        dist.all_gather(rooms, sent.contiguous())
        return torch.cat(rooms).to(own.device)

    def close(self) -> None:
        """Leaves the group, where one was made."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _share_form(ranks: Ranks, sampler: Sampler, samples: int) -> None:
    """All ranks run the form of an accelerated network that rank 0 finds the fastest."""
    if not sampler.accelerates:
        return
    entries = samples * sampler.plan().entries
    if ranks.rank == 0:
        sampler.ready(entries)
    made = sampler.accelerated
    sampler.ready(entries, ranks.told("" if made is None else str(made.form)))


def sample_shared(
    ranks: Ranks,
    sampler: Sampler,
    n: int,
    seeds: list[int] | None,
    condition: list[int] | list[str] | None,
    x: Tensor | None = None,
    **request: Any,
) -> Result | None:
    """The samples of a request, made by all ranks, on rank 0; None on the others. With a driver that deals
    its calls to them, each makes all.

    seeds, condition, x  as in Sampler.sample, of all samples
    request              start, noised, noise, measurement, mask, known, negative and compose as there, the
                         conditions and weights of compose one for all samples
    """
    if ranks.world == 1:
        return sampler.sample(n, seeds=seeds, condition=condition, x=x, **request)
    if sampler.driver is not None and sampler.driver.across:
        try:
            made = sampler.sample(n, seeds=seeds, condition=condition, x=x, **request)
        finally:
            ranks.close()
        return made if ranks.rank == 0 else None
    seeds, batch = seeds or list(range(n)), sampler.batch_size
    negative = request.get("negative")
    if len(seeds) != n:
        raise ValueError(f"n={n} samples and {len(seeds)} seeds; give one seed a sample")
    if ranks.rank == 0 and -(-n // batch) < ranks.world:
        sys.stderr.write(
            f"{n} samples are fewer batches of {batch} than there are processes ({ranks.world}): lower the "
            "batch size to give each one work\n"
        )
    try:
        _share_form(ranks, sampler, min(n, batch))
        part = slice((own := ranks.part(n, batch)).start, own.stop)
        shape = sampler.network.shape
        shape = shape if sampler.decoder is None else sampler.decoder.image_shape(shape)
        samples = torch.zeros(0, *shape, dtype=sampler.state_dtype)
        finite = torch.zeros(0, dtype=torch.uint8)
        if own:
            y, one = request.get("measurement"), sampler.network.measured
            if y is not None and one is not None and y.ndim > len(one):
                request["measurement"] = y[part]
            if negative is not None:
                request["negative"] = negative[part]
            for name in ("mask", "known"):
                each = request.get(name)
                if each is not None and each.ndim > len(sampler.network.shape) and len(each) == n:
                    request[name] = each[part]
            shown = None if ranks.rank == 0 else False
            made = sampler.sample(
                seeds=seeds[part],
                condition=condition and condition[part],
                x=None if x is None else x[part],
                progress=shown,
                **request,
            )
            samples, finite = made.samples, torch.tensor(made.finite, dtype=torch.uint8)
        gathered = [ranks.gather(rows, n, batch) for rows in (samples, finite)]
    finally:
        ranks.close()
    if gathered[0] is None or gathered[1] is None:
        return None
    # Every sample has the same plan here, so that what one cost says what all did.
    evaluations = made.evaluations // len(own) * n
    alike = {k: made.recipe[k][:1] * n for k in ("guidance", "compose") if made.recipe[k]}
    recipe = made.recipe | alike | {"seeds": seeds, "condition": condition}
    if negative is not None:
        recipe["negative"] = negative
    return Result(gathered[0], seeds, made.nfe, evaluations, recipe, gathered[1].bool().tolist())
