"""Calibration and the choice of the layers that stay in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from torch import nn

from samespace_edge import DecodeError, Resize
from samespace_edge._runtimes import load_runtime
from samespace_export import Calibration, LayerError
from samespace_export._calibration import measure_ranges
from samespace_export._deployed import Deployed
from samespace_export._onnx import onnx_layers, onnx_ranges, onnx_scales, to_int8, to_onnx
from samespace_export._sensitivity import float_ends, mean_error


def test_ranges_cover_a_percentile_of_all_pictures_values() -> None:
    pictures = [
        {"a": np.arange(101, dtype=np.float32), "b": np.array([-1.0, 0.5], np.float32)},
        {"a": np.arange(-100, 1, dtype=np.float32), "b": np.array([2.0, 2.0], np.float32)},
    ]
    ranges = measure_ranges(pictures, (100.0, 90.0))
    assert ranges[100.0] == {"a": (-100.0, 100.0), "b": (-1.0, 2.0)}
    assert ranges[90.0]["a"] == pytest.approx((-90.0, 90.0), abs=0.5)


def test_100_percent_is_exact_where_values_are_sampled() -> None:
    values = np.zeros(100_000, np.float32)
    values[12_345], values[54_321] = -7, 9
    ranges = measure_ranges([{"a": values}], (100.0, 99.9))
    assert ranges[100.0]["a"] == (-7, 9)
    assert ranges[99.9]["a"] == (0, 0)


def test_every_fourth_picture_is_kept_back() -> None:
    pixels = np.zeros((20, 8, 8, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    calibration = Calibration(pixels)
    assert calibration.for_judging[:, 0, 0, 0].tolist() == [0, 4, 8, 12, 16]
    assert len(calibration.for_ranges) == 15
    assert set(calibration.for_ranges[:, 0, 0, 0]) & {0, 4, 8, 12, 16} == set()


def test_pictures_that_cannot_be_read_are_named() -> None:
    good = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(DecodeError, match="calibration picture 3: "):
        Calibration.of([good, good, good, b"no picture"], Resize(8, 8))


def layers(*values: tuple[int, float]) -> list[LayerError]:
    return [LayerError(f"l{i}", macs, error) for i, (macs, error) in enumerate(values)]


def test_float_layers_grow_from_the_ends_while_they_cost_more_than_their_share() -> None:
    # Shares of arithmetic: 5, 45, 45, 5 %; of error: 50, 20, 20, 10 %.
    assert float_ends(layers((5, 0.5), (45, 0.2), (45, 0.2), (5, 0.1))) == ("l0", "l3")
    # The worst layer is not at an end, so it stays: only the first is freed.
    assert float_ends(layers((5, 0.1), (45, 0.05), (45, 0.8), (5, 0.01))) == ("l0",)
    # No more than a tenth of the arithmetic.
    assert float_ends(layers((11, 0.9), (89, 0.1))) == ()
    # An error everywhere alike frees nothing, and so does none.
    assert float_ends(layers((50, 0.1), (50, 0.1))) == ()
    assert float_ends(layers((50, 0.0), (50, 0.0))) == ()
    assert float_ends([]) == ()


@pytest.fixture(scope="module")
def fp32(net: nn.Module) -> bytes:
    return to_onnx(Deployed(net, (0.5,) * 3, (0.5,) * 3), 32, 32)


def test_fewer_layers_in_int8_are_closer_to_fp32(
    fp32: bytes, photographs: NDArray[np.uint8]
) -> None:
    calibration = Calibration(photographs, percentile=100)
    ranges = onnx_ranges(fp32, calibration)[100]
    reference = load_runtime("onnxruntime", fp32, 1, ()).run(photographs)

    def error(content: bytes) -> float:
        return mean_error(load_runtime("onnxruntime", content, 1, ()).run(photographs), reference)

    names = onnx_layers(fp32)
    assert names == ["stem.0", "block.0", "block.3", "block.6", "embed"]
    scales = onnx_scales(fp32)
    whole = error(to_int8(fp32, ranges, scales))
    alone = [error(to_int8(fp32, ranges, scales, only=name)) for name in names]
    assert 0 < max(alone) < whole < 2e-3
    assert error(to_int8(fp32, ranges, scales, ["stem.0", "embed"])) < whole
    assert error(to_int8(fp32, ranges, scales, names)) < 1e-9


def test_int8_weights_are_per_channel_and_ends_stay_float(
    fp32: bytes, photographs: NDArray[np.uint8]
) -> None:
    ranges = onnx_ranges(fp32, Calibration(photographs, percentile=100))[100]
    graph = onnx.load_from_string(to_int8(fp32, ranges, onnx_scales(fp32), ["embed"])).graph
    stored = {i.name: i for i in graph.initializer}
    (stem,) = [i for name, i in stored.items() if name == "module.stem.0.weight_scale"]
    assert list(stem.dims) == [16]
    assert stored["module.embed.weight"].data_type == onnx.TensorProto.FLOAT
    # Behind the last int8 layer nothing is rounded any more, the pooled features included.
    behind = {n.op_type for n in graph.node if n.op_type in ("ReduceMean", "Gemm", "Div")}
    assert behind == {"ReduceMean", "Gemm", "Div"}
    quantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    for node in graph.node:
        if node.op_type in ("Gemm", "Div"):
            assert not set(node.input) & quantised
