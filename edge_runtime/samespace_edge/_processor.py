"""Name the instruction set that figures and verdicts depend on."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# What the kernels of the runtimes and of torch ask for: flags of Linux, and how people call them.
_X86 = (
    (("avx512f",), "AVX-512"),
    (("avx2",), "AVX2"),
    (("avx512_vnni", "avx_vnni"), "VNNI"),
    (("avx512_bf16",), "BF16"),
    (("amx_tile",), "AMX"),
)
_ARM = (
    (("sve",), "SVE"),
    (("asimd",), "NEON"),
    (("asimddp",), "DOTPROD"),
    (("i8mm",), "I8MM"),
    (("bf16",), "BF16"),
)


@cache
def processor_name() -> str:
    """Return the processor's name as the system gives it, such as `AMD EPYC`."""
    lines = _lines("model name")
    if lines:
        return lines[0]
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.stdout.strip():
            return found.stdout.strip()
    return platform.processor() or platform.machine()


@cache
def instruction_set() -> str:
    """Return the instruction set that kernels choose by, such as `x86_64 AVX2 VNNI`.

    Only Linux lists instructions. Elsewhere the machine's architecture stands alone.
    """
    flags = set(" ".join(_lines("flags")[:1] or _lines("Features")[:1]).split())
    table = _ARM if platform.machine() in ("aarch64", "arm64") else _X86
    names = [name for any_of, name in table if flags.intersection(any_of)]
    return " ".join([platform.machine(), *names])


def _lines(key: str) -> list[str]:
    """Return the values of a key of /proc/cpuinfo; none where there is no such file."""
    try:
        text = _CPUINFO.read_text(errors="replace")
    except OSError:
        return []
    rows = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in rows if name.strip() == key]
