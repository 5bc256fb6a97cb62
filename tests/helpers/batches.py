"""Jobs side by side in one batch."""

import torch

from diffusion_engine.executors import Capacity, Job


def capacity(network, jobs, seats=None, **widths):
    """Room for jobs, so many seats at a time."""
    plans = list({id(job.plan): job.plan for job in jobs}.values())
    return Capacity.of(
        network,
        plans,
        len(jobs) if seats is None else seats,
        device=torch.device(widths.pop("device", "cpu")),
        conditions=jobs[0].conditions,
        given=any(job.noise is not None for job in jobs),
        brownian=any(job.brownian for job in jobs),
        masked=any(job.mask is not None for job in jobs),
        **widths,
    )


def together(executor, network, jobs, **widths):
    """The samples of jobs that begin together, and whether each stayed finite."""
    with executor.batch(network, capacity(network, jobs, **widths)) as batch:
        seats = [batch.admit(job) for job in jobs]
        executor.finish(batch)
        return batch.read(seats), batch.finite(seats)


def jobs_of(samplers, which, **given):
    """Jobs of the samplers of these numbers, with seeds 0, 1, ...; what is given is one value for all, or a
    list of one each."""
    plans, jobs = [sampler.plan() for sampler in samplers], []
    for i, p in enumerate(which):
        own = {name: v[i] if isinstance(v, list) else v for name, v in given.items()}
        jobs.append(Job(plans[p], i, **own))
    return jobs
