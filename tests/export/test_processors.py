"""An int8 file gives the same vectors on every processor.

Emulated on any machine; and with the real kernels for AVX2 where this processor has no more, or can
be made to look so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from samespace_edge import Bundle, ConfigError, Embedder
from samespace_edge._runtimes import load_runtime
from samespace_export import Calibration, Exported, export_bundle
from samespace_export._deployed import Deployed
from samespace_export._exact import exact
from samespace_export._onnx import Scales, onnx_ranges, onnx_scales, to_int8, to_onnx
from samespace_export._scales import LEVELS, PAIR, grid_scales, same_sign_sums, weight_scales
from samespace_export._sensitivity import mean_error
from tests import older_processor, saturating
from tests.export.conftest import SIZE, net_spec


def naive(scales: Scales, fp32: bytes) -> Scales:
    """The usual scales: a channel's largest weight over 127."""
    import onnx
    from onnx import numpy_helper

    stored = {i.name: i for i in onnx.load_from_string(fp32).graph.initializer}
    found = {}
    for name, (_, axis) in scales.items():
        weight = np.abs(numpy_helper.to_array(stored[name]))
        found[name] = (weight.max(tuple(i for i in range(weight.ndim) if i != axis)) / 127, axis)
    return found


@pytest.fixture(scope="module")
def fp32(net: nn.Module) -> bytes:
    return to_onnx(Deployed(net, (0.5,) * 3, (0.5,) * 3), SIZE, SIZE)


@pytest.fixture(scope="module")
def files(fp32: bytes, photographs: NDArray[np.uint8]) -> dict[str, bytes]:
    """int8 files of one net, with our scales and with the usual ones."""
    ranges = onnx_ranges(fp32, Calibration(photographs, percentile=100))[100]
    scales = onnx_scales(fp32)
    return {
        "ours": to_int8(fp32, ranges, scales),
        "naive": to_int8(fp32, ranges, naive(scales, fp32)),
    }


@pytest.mark.parametrize("shape", [(64, 32), (16, 27), (3, 1), (5, 2), (8, 1152)])
@pytest.mark.parametrize("seed", range(3))
def test_no_two_neighbours_of_one_sign_pass_128(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal(shape).astype(np.float32) * 10.0 ** rng.integers(-4, 3)
    weights[0] = np.abs(weights[0]).max()  # all alike, the worst case
    levels = np.rint(weights / weight_scales(weights, paired=True)[:, None])
    assert np.abs(levels).max() <= LEVELS
    assert same_sign_sums(levels).max() <= PAIR
    alone = np.rint(weights / weight_scales(weights, paired=False)[:, None])
    if shape[1] >= 16:  # fewer weights may happen to lie on a coarser grid
        assert (np.abs(alone).max(1) == LEVELS)[1:].all()


def test_opposite_signs_cost_nothing() -> None:
    weights = np.tile(np.array([1.0, -1.0], np.float32), (2, 8))
    weights[:, 2] = np.pi / 10  # without it, the row lies on a grid of one level
    assert np.allclose(weight_scales(weights, paired=True), 1 / LEVELS)
    assert np.allclose(weight_scales(np.abs(weights), paired=True), 2 / LEVELS)


def test_weights_on_a_grid_keep_it() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-60, 61, (40, 96)).astype(np.float64)
    levels[:, 0] = 61  # 60 and 61 are the two largest, so the grid cannot be a coarser one
    levels[:, 1] = -60
    steps = rng.uniform(1e-4, 1e-1, 40).astype(np.float32)
    weights = (levels * steps[:, None]).astype(np.float32)
    assert np.allclose(grid_scales(weights), steps, rtol=1e-5)
    for paired in (True, False):
        scales = weight_scales(weights, paired)
        assert (np.rint(weights / scales[:, None]) == levels).all()
    assert not grid_scales(rng.standard_normal((40, 96))).any()
    # A grid whose neighbours are too large for 16 bits is left.
    full = np.tile(np.array([127.0, 126.0, 1.0]), (2, 4)).astype(np.float32)
    assert same_sign_sums(np.rint(full / weight_scales(full, paired=True)[:, None])).max() <= PAIR
    assert np.allclose(weight_scales(full, paired=False), 1.0)
    assert not grid_scales(np.zeros((2, 3))).any()


def test_saturating_sums_change_nothing(
    files: dict[str, bytes], photographs: NDArray[np.uint8]
) -> None:
    shown = photographs[::16]
    expected = exact("onnx", files["ours"])(shown)
    plain = saturating.vectors(files["ours"], shown, saturates=False)
    assert mean_error(plain, expected) < 1e-5  # the emulation is right where nothing saturates
    ours = saturating.vectors(files["ours"], shown, saturates=True)
    assert np.abs(ours - plain).max() == 0
    # The test of the test: usual scales saturate.
    naive = saturating.vectors(files["naive"], shown, saturates=True)
    assert mean_error(naive, exact("onnx", files["naive"])(shown)) > 1e-3


_RUN = """
import sys
import numpy as np
from pathlib import Path
from samespace_edge._runtimes import load_runtime
folder = Path(sys.argv[1])
pixels = np.load(folder / "pixels.npy")
for file in folder.glob("*.onnx"):
    runtime = load_runtime("onnxruntime", file.read_bytes(), 1, ())
    np.save(file.with_suffix(".npy"), runtime.run(pixels))
"""


def test_real_kernels_for_avx2_give_the_same_vectors(
    files: dict[str, bytes], photographs: NDArray[np.uint8], tmp_path: Path
) -> None:
    variables = older_processor.environment()
    if isinstance(variables, str):
        pytest.skip(variables)
    np.save(tmp_path / "pixels.npy", photographs[::8])
    for name, content in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    older_processor.run(["-c", _RUN, str(tmp_path)], variables)
    older = {name: np.load(tmp_path / f"{name}.npy") for name in files}
    here = load_runtime("onnxruntime", files["ours"], 1, ()).run(photographs[::8])
    assert mean_error(older["ours"], here) < 1e-6
    # The kernels do saturate, as the emulation says.
    emulated = saturating.vectors(files["naive"], photographs[::32], saturates=True)
    assert mean_error(older["naive"][::4], emulated) < 1e-4
    assert mean_error(older["naive"], exact("onnx", files["naive"])(photographs[::8])) > 1e-3


def test_golden_vectors_come_from_exact_arithmetic(
    every_bundle: Bundle, photographs: NDArray[np.uint8]
) -> None:
    from samespace_edge._golden import png_pixels, read_golden

    golden = read_golden(every_bundle)
    pixels = np.stack(
        [png_pixels(every_bundle.read(f"golden/{e['resized']}")) for e in golden["images"]]
    )
    for variant in every_bundle.manifest.variants:
        run = exact(variant.format, every_bundle.graph(variant))
        expected = np.array([e["embedded"][variant.name] for e in golden["images"]], np.float32)
        assert np.abs(run(pixels) - expected).max() < 1e-6, variant.name


def test_a_file_that_lost_too_much_is_refused_with_its_layers(
    net: nn.Module, photographs: NDArray[np.uint8], tmp_path: Path, everything: Exported
) -> None:
    (found,) = [q for q in everything.quantizations if q.variant == "onnx-int8"]
    strict = Calibration(photographs, largest_error=found.error / 2)
    with pytest.raises(ConfigError, match=r"onnx-int8 departs .* block\.\d") as caught:
        export_bundle(net, net_spec(), tmp_path / "x", targets=("onnx-int8",), calibration=strict)
    assert "Calibration.largest_error" in str(caught.value)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="largest_error 0 is outside"):
        Calibration(photographs, largest_error=0)


_EVERY = """
import sys
import numpy as np
from samespace_edge import Bundle, Embedder
pixels = np.load(sys.argv[2])
for variant in Bundle.open(sys.argv[1]).manifest.variants:
    if variant.format != "coreml":
        embedder = Embedder(sys.argv[1], variant=variant.name)
        np.save(f"{sys.argv[3]}/{variant.name}.npy", embedder.embed_pixels(pixels))
"""


def test_every_file_gives_the_same_vectors_with_kernels_for_avx2(
    every_bundle: Bundle, photographs: NDArray[np.uint8], tmp_path: Path
) -> None:
    """LiteRT widens before it adds, so its files need no scales of their own."""
    variables = older_processor.environment()
    if isinstance(variables, str):
        pytest.skip(variables)
    shown = photographs[::4]
    np.save(tmp_path / "pixels.npy", shown)
    arguments = [str(every_bundle.path), str(tmp_path / "pixels.npy"), str(tmp_path)]
    older_processor.run(["-c", _EVERY, *arguments], variables)
    for variant in every_bundle.manifest.variants:
        if variant.format == "coreml":
            continue
        here = Embedder(every_bundle, variant=variant.name).embed_pixels(shown)
        older = np.load(tmp_path / f"{variant.name}.npy")
        assert np.abs(older - here).max() < 1e-5, variant.name
