"""What a training does for its processor: memory is kept, slow gradients are computed otherwise."""

from __future__ import annotations

import copy
import ctypes
import os
import platform
import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud._depthwise import quicken, weight_gradient
from samespace_cloud.processor import is_bf16_fast, kept_memory


@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [
        (3, 3, 5, 1, 2),
        (5, 4, 5, 1, 2),
        (1, 1, 5, 1, 2),
        (2, 2, 7, 1, 3),
        (5, 5, 5, 1, 0),
        (7, 7, 5, 2, 0),
        (3, 3, 5, 2, 2),
        (8, 7, 5, 3, 1),
    ],
)
def test_a_depthwise_weight_gradient_is_torchs(
    height: int, width: int, kernel: int, stride: int, padding: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, height, width, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(4, 1, kernel, kernel, generator=generator, requires_grad=True)
    y = F.conv2d(x, weight, None, stride, padding, 1, 4)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    found = weight_gradient(x, grad, kernel, stride, padding)
    assert torch.allclose(found, weight.grad, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(5, 1, 3), (5, 2, 6), (3, 1, 3), (5, 1, 9)])
def test_a_quickened_network_has_the_same_gradients(kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=8)
    theirs = nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.ReLU())
    ours = copy.deepcopy(theirs)
    quicken(ours)
    assert type(ours[0]) is nn.Conv2d  # no depthwise one
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    made = []
    for module in (theirs, ours):
        x = torch.linspace(-1, 1, 4 * 3 * side * side).view(4, 3, side, side).requires_grad_()
        y: Tensor = module(x)
        (y * y).sum().backward()
        made.append([y, x.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*made, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    # In bfloat16 torch's own way is kept.
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16


def faults(rounds: int) -> int:
    """How many pages the system clears for blocks of 64 MiB, 16,384 pages each."""
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        block = library.malloc(64 << 20)
        ctypes.memset(block, 1, 64 << 20)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_freed_memory_is_kept_and_given_back() -> None:
    assert faults(4) > 60_000
    with kept_memory():
        faults(1)
        with kept_memory():
            assert faults(4) < 1000
        assert faults(4) < 1000  # the outer one still holds
        kept = _resident()
    assert _resident() < kept - (32 << 20)
    assert faults(4) > 60_000


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_bf16_is_not_fast_where_there_is_none() -> None:
    assert not is_bf16_fast(torch.device("mps"))
    assert is_bf16_fast(torch.device("cpu")) in (True, False)


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_commands_that_train_let_waiting_threads_sleep(given: dict[str, str]) -> None:
    code = "import os, samespace_cloud.cli; print(os.environ['OMP_WAIT_POLICY'])"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_WAIT", "GOMP"))}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=plain | given,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert said.strip() == given.get("OMP_WAIT_POLICY", "passive")
