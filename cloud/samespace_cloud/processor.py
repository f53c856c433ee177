"""What the processor does well: which precision pays on it, and how its memory is kept."""

from __future__ import annotations

import ctypes
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

LOG = logging.getLogger("samespace.cloud")
"""Says which precision and which runtime were chosen, at INFO."""

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_DEFAULT_MMAPS, _LARGEST_THRESHOLD, _NEVER = 65536, 32 << 20, -1

_keepers = 0


def is_bf16_fast(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16, so that it is faster there than float32.

    A processor without them still computes in bfloat16, some ten times more slowly. oneDNN is
    asked too, since it may be kept from the instructions (`ONEDNN_MAX_CPU_ISA`). False on Apple's
    GPUs: not all of them have any, and torch does not say which.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    # oneDNN takes every AVX-512 for enough; without the instructions it only converts.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def processor_class(device: torch.device) -> str:
    """The device in two words or three, such as `AVX2 without bf16`, for logs and results."""
    kind = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else device.type
    return f"{kind} {'with' if is_bf16_fast(device) else 'without'} bf16"


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the process keep freed memory, until the outermost of these blocks ends.

    Every step of a training makes and frees the same large tensors. glibc gives each of them back
    to the system and asks for it again, and the system clears every page: a sixth to a third of a
    training's time, measured. Other C libraries are left alone.
    """
    global _keepers
    library = _glibc()
    _keepers += 1
    if library is not None and _keepers == 1:
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        _keepers -= 1
        if library is not None and _keepers == 0:
            # What glibc comes to by itself, once large blocks were freed.
            library.mallopt(_MMAP_MAX, _DEFAULT_MMAPS)
            library.mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
            library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_THRESHOLD)
            library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
