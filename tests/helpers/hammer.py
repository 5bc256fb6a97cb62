"""Calls from several threads at once, compared with what each returns alone."""

import random
import sys
import threading

import torch

THREADS, CALLS = 4, 2000
AT_LENGTH = "--at-length" in sys.argv


def same(got, want):
    if isinstance(got, str) or isinstance(want, str):
        return got is want
    if isinstance(got, torch.Tensor):
        return torch.equal(got, want)
    return len(got) == len(want) and all(map(same, got, want))


def together(work):
    """Runs work(i) on every thread, all begun at once."""
    barrier = threading.Barrier(THREADS)

    def run(i):
        torch.set_grad_enabled(False)
        torch.set_num_threads(1 + i % 2)  # of which no bit of ours depends
        barrier.wait()
        work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hammer(jobs, calls=CALLS):
    """Calls jobs, functions without arguments, in random order, and compares with what each returns alone;
    a Refused is a result, too."""
    calls = CALLS if AT_LENGTH else calls
    wants = [outcome(job) for job in jobs]
    wrong, errors = [], []

    def work(i):
        order = random.Random(i)
        for _ in range(calls // THREADS):
            job = order.randrange(len(jobs))
            try:
                if not same(outcome(jobs[job]), wants[job]):
                    wrong.append(job)
            except Exception as error:
                errors.append(said(error))

    together(work)
    return report(calls, wrong, errors)


def report(calls, wrong, errors=()):
    return {"calls": calls, "wrong": len(wrong), "errors": sorted(set(errors))[:3]}


def said(error):
    return f"{type(error).__name__}: {error}"


class Refused(Exception):
    """What a network of these runs raises in the middle of a call."""


def outcome(job):
    try:
        return job()
    except Refused:
        return "refused"
