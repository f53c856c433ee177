"""The names of instruction sets, from what Linux lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from samespace_edge import _processor, instruction_set, processor_name

LAPTOP = "model name\t: A Laptop\nflags\t\t: fpu sse4_1 avx avx2 fma\n"
SERVER = "model name\t: A Server\nflags\t\t: avx2 avx512f avx512_vnni avx512_bf16 amx_tile\n"
BOARD = "Features\t: fp asimd asimddp\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    for cached in (instruction_set, processor_name):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("machine", "text", "expected"),
    [
        ("x86_64", LAPTOP, "x86_64 AVX2"),
        ("x86_64", SERVER, "x86_64 AVX-512 AVX2 VNNI BF16 AMX"),
        ("x86_64", LAPTOP.replace("fma", "avx_vnni"), "x86_64 AVX2 VNNI"),
        ("aarch64", BOARD, "aarch64 NEON DOTPROD"),
        ("arm64", None, "arm64"),
    ],
)
def test_it_is_read_from_the_systems_list(
    machine: str,
    text: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(_processor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(_processor.platform, "machine", lambda: machine)
    instruction_set.cache_clear()
    assert instruction_set() == expected


def test_this_machine_has_names() -> None:
    assert processor_name()
    assert instruction_set()
