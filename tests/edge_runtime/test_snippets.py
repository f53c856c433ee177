"""The resize of the mobile guide, compiled and compared with Python's bit for bit.

The compiling tests are left out where there is no compiler: Kotlin's is Debian's package `kotlin`,
Swift's comes with Xcode.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samespace_edge import Resize, decode
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "edge_runtime" / "snippets"
GUIDE = ROOT / "docs" / "mobile.md"

POLICIES = ("crop", "squash", "pad")
# Source width, height; target width, height: down, up, one direction alone, none, single pixels,
# odd margins.
SIZES = (
    (640, 480, 48, 48),
    (480, 640, 224, 224),
    (37, 23, 16, 12),
    (33, 1, 7, 5),
    (1, 29, 6, 6),
    (1, 1, 8, 8),
    (40, 30, 40, 30),
    (40, 30, 13, 30),
    (5, 4, 17, 19),
    (31, 17, 1, 1),
    (901, 7, 3, 64),
    (36, 23, 17, 17),
    (23, 36, 17, 17),
)
ORIENTATIONS = range(1, 9)
ORIENTATION_TAG = 0x0112

# A line of cases.txt: a name, then `resize POLICY WIDTH HEIGHT TO_WIDTH TO_HEIGHT` or
# `upright KIND WIDTH HEIGHT ORIENTATION BYTES_PER_ROW`.
KOTLIN_MAIN = """
import java.io.File
import java.nio.ByteBuffer

fun main(arguments: Array<String>) {
    val folder = File(arguments[0])
    for (line in File(folder, "cases.txt").readLines()) {
        val words = line.split(" ")
        val (width, height) = words.subList(3, 5).map { it.toInt() }
        val bytes = File(folder, words[0] + ".in").readBytes()
        val made = if (words[1] == "resize") {
            val (toWidth, toHeight) = words.subList(5, 7).map { it.toInt() }
            resize(Pixels(bytes, width, height), toWidth, toHeight, Policy.valueOf(words[2]))
        } else {
            val argb = IntArray(width * height)
            ByteBuffer.wrap(bytes).asIntBuffer().get(argb)
            upright(argb, width, height, words[5].toInt())
        }
        File(folder, words[0] + ".out").writeBytes(made.data)
        File(folder, words[0] + ".size").writeText("${made.width} ${made.height}")
    }
}
"""

SWIFT_MAIN = """
import Foundation

let folder = URL(fileURLWithPath: CommandLine.arguments[1], isDirectory: true)
let cases = try String(contentsOf: folder.appendingPathComponent("cases.txt"), encoding: .utf8)
for line in cases.split(separator: "\\n") {
    let words = line.split(separator: " ").map(String.init)
    let numbers = words[3...].map { Int($0)! }
    let file = folder.appendingPathComponent(words[0])
    let bytes = try [UInt8](Data(contentsOf: file.appendingPathExtension("in")))
    let made: Pixels
    if words[1] == "resize" {
        let source = Pixels(data: bytes, width: numbers[0], height: numbers[1])
        made = resize(
            source, width: numbers[2], height: numbers[3], policy: Policy(rawValue: words[2])!)
    } else {
        made = upright(
            bytes, width: numbers[0], height: numbers[1], bytesPerRow: numbers[3],
            bytesPerPixel: words[2] == "grey" ? 1 : 4, orientation: numbers[2])
    }
    try Data(made.data).write(to: file.appendingPathExtension("out"))
    try "\\(made.width) \\(made.height)".write(
        to: file.appendingPathExtension("size"), atomically: true, encoding: .utf8)
}
"""


@dataclass(frozen=True)
class Case:
    line: str
    given: bytes
    expected: NDArray[np.uint8]


def resize_cases() -> list[Case]:
    rng = np.random.default_rng(0)
    cases = []
    for width, height, to_width, to_height in SIZES:
        for policy in POLICIES:
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            if len(cases) % 3 == 0:
                pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)  # overshoot shows here
            line = f"resize {policy} {width} {height} {to_width} {to_height}"
            expected = Resize(to_width, to_height, policy)(pixels)
            cases.append(Case(line, pixels.tobytes(), expected))
    return cases


def png(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "png", exif=exif)
    return buffer.getvalue()


def argb_cases() -> list[Case]:
    """As Android decodes: ARGB in an int, not premultiplied."""
    rng = np.random.default_rng(1)
    cases = []
    for orientation in ORIENTATIONS:
        rgba = rng.integers(0, 256, (23, 37, 4), dtype=np.uint8)
        rgba[:8, :, 3] = 255
        rgba[8:10, :, 3] = 0
        expected = decode(png(Image.fromarray(rgba), orientation))
        given = rgba[:, :, [3, 0, 1, 2]].tobytes()
        cases.append(Case(f"upright argb 37 23 {orientation} 148", given, expected))
    return cases


def row_cases() -> list[Case]:
    """As Core Graphics decodes: RGBX or grey, with bytes between the rows."""
    rng = np.random.default_rng(2)
    cases = []
    for orientation in ORIENTATIONS:
        for kind, channels in (("rgbx", 4), ("grey", 1)):
            rows = rng.integers(0, 256, (23, 37 * channels + 11), dtype=np.uint8)
            pixels = rows[:, : 37 * channels].reshape(23, 37, channels)
            rgb = Image.fromarray(pixels[:, :, [0, 0, 0] if channels == 1 else [0, 1, 2]])
            expected = decode(png(rgb, orientation))
            line = f"upright {kind} 37 23 {orientation} {rows.shape[1]}"
            cases.append(Case(line, rows.tobytes(), expected))
    return cases


def write_cases(cases: list[Case], folder: Path) -> None:
    for i, case in enumerate(cases):
        (folder / f"{i}.in").write_bytes(case.given)
    lines = [f"{i} {case.line}\n" for i, case in enumerate(cases)]
    (folder / "cases.txt").write_text("".join(lines))


def compare(cases: list[Case], folder: Path) -> None:
    for i, case in enumerate(cases):
        height, width, _ = case.expected.shape
        assert (folder / f"{i}.size").read_text() == f"{width} {height}", case.line
        made = np.frombuffer((folder / f"{i}.out").read_bytes(), np.uint8)
        difference = np.abs(made.astype(int) - case.expected.ravel())
        assert not difference.any(), f"{case.line}: up to {difference.max()} levels"


def run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_kotlin_gives_pythons_pixels(tmp_path: Path) -> None:
    if not shutil.which("kotlinc"):
        pytest.skip("kotlinc is not on PATH; Debian: apt-get install kotlin")
    cases = resize_cases() + argb_cases()
    write_cases(cases, tmp_path)
    main, jar = tmp_path / "Main.kt", tmp_path / "snippet.jar"
    main.write_text(KOTLIN_MAIN)
    run("kotlinc", SNIPPETS / "Resize.kt", main, "-include-runtime", "-d", jar)
    run("java", "-cp", jar, "MainKt", tmp_path)
    compare(cases, tmp_path)


@pytest.mark.slow
def test_swift_gives_pythons_pixels(tmp_path: Path) -> None:
    if not shutil.which("swiftc"):
        pytest.skip("swiftc is not on PATH; it comes with Xcode and with swift.org's toolchains")
    cases = resize_cases() + row_cases()
    write_cases(cases, tmp_path)
    main, program = tmp_path / "main.swift", tmp_path / "snippet"
    main.write_text(SWIFT_MAIN)
    run("swiftc", "-O", SNIPPETS / "Resize.swift", main, "-o", program)
    run(program, tmp_path)
    compare(cases, tmp_path)


def test_what_the_guide_shows_of_a_file_is_in_it() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    marked = re.findall(r"<!-- from: (\S+) -->\n```\w+\n(.*?)```\n", guide, re.DOTALL)
    assert len(marked) == guide.count("<!-- from: ")
    for path, shown in marked:
        lines = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
        for line in shown.splitlines():
            found = any(line == candidate.removesuffix(" {") for candidate in lines)
            assert found, f"docs/mobile.md shows {line!r}, which is not next in {path}"
    for snippet in SNIPPETS.iterdir():
        assert snippet.relative_to(ROOT).as_posix() in dict(marked)
        assert f"](../edge_runtime/snippets/{snippet.name})" in guide
