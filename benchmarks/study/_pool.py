"""Trainings side by side, each in one of several processes, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing import get_context

import torch


class NotTrainedError(Exception):
    """Something is wanted that was never trained."""


def run_jobs(
    jobs: Sequence[Callable[[], None]], processes: int, until: float, threads: int = 1
) -> None:
    """Do jobs, `processes` at a time, in their order.

    What fails is said and left out; what is not done by `until`, of `time.monotonic`, is stopped.
    """
    if not jobs or time.monotonic() > until:
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (threads,))
    futures: dict[Future[None], object] = {pool.submit(_done, job): job for job in jobs}
    _, late = wait(futures, max(0.0, until - time.monotonic()))
    for future, job in futures.items():
        if future not in late and (error := future.exception()) is not None:
            print(f"{job}: {error!r}", flush=True)
    if late:
        print(f"{len(late)} jobs were not done in time", flush=True)
        workers = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()
    else:
        pool.shutdown()


def _done(job: Callable[[], None]) -> None:
    job()
