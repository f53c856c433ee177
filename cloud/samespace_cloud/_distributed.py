"""One training in several processes, as torch's own launcher `torchrun` starts them.

Every process holds everything and goes through the same batches; of each it embeds its share, and
the embeddings are put together again, so that losses see the whole batch, the ones that compare its
pictures among them. Batch norm takes its statistics from the whole batch too. What comes out is
therefore what one process would make of the same settings, but for rounding.

Outside `torchrun` nothing of this does anything.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

_T = TypeVar("_T")


def world() -> int:
    """How many processes train together."""
    launched = "MASTER_ADDR" in os.environ and "RANK" in os.environ
    return int(os.environ.get("WORLD_SIZE", "1")) if launched else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def leads() -> bool:
    """Whether this is the one that writes files and says how far it is."""
    return rank() == 0


def join() -> None:
    """Meet the other processes, once; on GPUs each takes its own."""
    if world() == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(dist.destroy_process_group)


def own(batch: Tensor) -> Tensor:
    """This process's share of a batch (N, ...): a run of rows, the same every time."""
    return batch if world() == 1 else batch.tensor_split(world())[rank()]


def gathered(share: Tensor, count: int) -> Tensor:
    """The whole batch (count, D), in order, from every process's share of it.

    The gradient of every share is `world()` times what it is in one process, so that the mean over
    the processes, `average_gradients`, is right for all parameters: those behind the shares, of
    which every process sees a part, and those of the losses, of which every process sees all.
    """
    if world() == 1:
        return share
    whole: Tensor = _Gather.apply(share, count)  # type: ignore[no-untyped-call]
    return whole


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by the mean over the processes."""
    if world() == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world()
    start = 0
    for grad in grads:
        grad.copy_(flat[start : start + grad.numel()].view_as(grad))
        start += grad.numel()


def any_of(flag: bool) -> bool:
    """Whether it is so in any of the processes; all of them have to ask."""
    if world() == 1:
        return flag
    found = torch.tensor([float(flag)])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found.item())


def from_first(make: Callable[[], _T]) -> _T:
    """What the first process makes, for all of them; all of them have to ask."""
    if world() == 1:
        return make()
    held: list[Any] = [make() if leads() else None]
    dist.broadcast_object_list(held)
    value: _T = held[0]
    return value


def share(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    for tensor in module.state_dict().values() if world() > 1 else ():
        dist.broadcast(tensor, 0)


def synchronise(module: nn.Module) -> None:
    """Make every batch norm take its statistics from the whole batch."""
    for part in module.modules() if world() > 1 else ():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = _WholeBatchNorm


class _WholeBatchNorm(nn.BatchNorm2d):
    """As `nn.BatchNorm2d`; torch's `SyncBatchNorm` is for CUDA alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            sums = torch.cat([wide.sum((0, 2, 3)), wide.new_tensor([wide.numel() / wide.shape[1]])])
            sums = _added(sums)
            count = sums[-1].detach()
            mean = (sums[:-1] / count)[:, None, None]
            var = _added((wide - mean).square().sum((0, 2, 3))) / count
            self._follow(mean.detach().flatten(), var.detach(), float(count))
            scale = self.weight * torch.rsqrt(var + self.eps)
            y = (wide - mean) * scale[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        if rate is None:
            rate = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(var * count / max(1.0, count - 1), rate)


def _added(x: Tensor) -> Tensor:
    total: Tensor = _Add.apply(x)  # type: ignore[no-untyped-call]
    return total


class _Add(torch.autograd.Function):
    """The sum over the processes; so is its gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """See `gathered`."""

    @staticmethod
    def forward(context: Any, share: Tensor, count: int) -> Tensor:
        sizes = [len(part) for part in torch.arange(count).tensor_split(world())]
        start = sum(sizes[: rank()])
        context.rows = slice(start, start + len(share))
        filled = share.new_zeros((max(sizes), *share.shape[1:]))
        filled[: len(share)] = share
        parts = [torch.empty_like(filled) for _ in sizes]
        dist.all_gather(parts, filled)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[context.rows] * world(), None
