"""Saved Core ML programs, computed without Core ML: real conversions, held against torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from samespace_edge import BundleFormatError, ConfigError, ImageError
from samespace_export._mil import RUNTIME, MilInterpreter, MilProgram, _steps
from samespace_export._quiet import quiet

SIDE = 32
DIM = 24


class Unit(nn.Module):
    """Normalises the pixels in front of a network and its vectors behind it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale, self.shift = torch.full((2, 1, 3, 1, 1), 1 / 60)
        self.shift = self.shift * torch.tensor([-125.0, -117.0, -104.0]).view(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x * self.scale + self.shift)
        return y / y.square().sum(1, keepdim=True).sqrt().clamp_min(1e-4)


class Residual(nn.Module):
    """Stride-2 stem padded as SAME, one inverted residual on ReLU6, as EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, bias=False)
        self.expand = nn.Conv2d(16, 48, 1, bias=False)
        self.depthwise = nn.Conv2d(48, 48, 5, padding=2, groups=48, bias=False)
        self.project = nn.Conv2d(48, 16, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n, eps=1e-3) for n in (16, 48, 48, 16))
        self.head = nn.Linear(16, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norms[0](self.stem(F.pad(x, (0, 1, 0, 1)))))
        y = F.relu6(self.norms[1](self.expand(x)))
        y = F.relu6(self.norms[2](self.depthwise(y)))
        x = x + self.norms[3](self.project(y))
        embedded: Tensor = self.head(x.mean((2, 3)))
        return embedded


class Squeeze(nn.Module):
    """Hard swish, SiLU and squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.down, self.up = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.head = nn.Linear(16, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.stem(x))
        gate = self.up(F.silu(self.down(F.adaptive_avg_pool2d(x, 1))))
        x = x * F.hardsigmoid(gate) + x * torch.sigmoid(gate)
        embedded: Tensor = self.head(F.hardswish(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return embedded


class Shuffle(nn.Module):
    """A ShuffleNet unit: half of the channels pass by, then the two halves are interleaved."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.branch = nn.Sequential(
            nn.Conv2d(8, 8, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        )
        self.head = nn.Linear(16, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        passed, changed = x.chunk(2, 1)
        x = torch.cat([passed, self.branch(changed)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        embedded: Tensor = self.head(x.amax((2, 3)))
        return embedded


class Pools(nn.Module):
    """Every way of pooling: padded, counted with and without padding, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.head = nn.Linear(16 * 4, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        x = F.avg_pool2d(x, 3, 1, 1) - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = F.avg_pool2d(x, 3, 3, 1, ceil_mode=True)
        embedded: Tensor = self.head(F.adaptive_avg_pool2d(x[..., :2, :2], 2).flatten(1))
        return embedded


class Attention(nn.Module):
    """What is left of the table: shapes, slices, softmax, products of matrices, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding="same", dilation=2)
        self.head = nn.Linear(16, DIM)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.stem(x), 4)[:, :, 1:-1, ::2]
        tokens = F.normalize(x.flatten(2).transpose(1, 2), dim=2)
        scores = torch.softmax(tokens @ tokens.transpose(1, 2) * 9, 2)
        x = (scores @ tokens).clamp(-0.5, 0.4) - torch.minimum(tokens, tokens.mean(1, True))
        x = x * torch.rsqrt(x.square().mean(2, True) + 0.1)
        x = torch.cat([x[:, :5], x[:, None, 7].repeat(1, 3, 1)], 1).sum(1)
        embedded: Tensor = self.head(x)
        return embedded


NETS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "squeeze": Squeeze,
    "shuffle": Shuffle,
    "pools": Pools,
    "attention": Attention,
}


class Simple(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def save(
    module: nn.Module,
    path: Path,
    precision: str = "fp32",
    layout: str = "RGB",
    input_name: str = "image",
    target: str = "iOS16",
) -> Path:
    with quiet():
        import coremltools as ct
        import coremltools.optimize.coreml as cto

        example = (torch.zeros(1, 3, SIDE, SIDE),)
        program = torch.export.export(module.eval(), example).run_decompositions({})
        image = ct.ImageType(
            input_name, (1, 3, SIDE, SIDE), color_layout=getattr(ct.colorlayout, layout)
        )
        model = ct.convert(
            program,
            convert_to="mlprogram",
            inputs=[image],
            outputs=[ct.TensorType("embedding", dtype=np.float32)],
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT32 if precision == "fp32" else None,
            skip_model_load=True,
        )
        if precision == "int8":
            config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64)
            model = cto.linear_quantize_weights(model, cto.OptimizationConfig(config))
        model.save(str(path))
    return path


def operations(package: Path) -> list[str]:
    with quiet():
        import coremltools as ct

        main = ct.utils.load_spec(str(package)).mlProgram.functions["main"]
    return [op.type for op in main.block_specializations[main.opset].operations]


@pytest.fixture(scope="module")
def nets() -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {}
    for name, make in NETS.items():
        torch.manual_seed(7)
        made[name] = Unit(make()).eval()
        for module in made[name].modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return made


@pytest.fixture(scope="module")
def packages(
    nets: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    folder = tmp_path_factory.mktemp("packages")
    return {
        (name, precision): save(net, folder / f"{name}-{precision}.mlpackage", precision)
        for name, net in nets.items()
        for precision in ("fp32", "fp16", "int8")
    }


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    noise = np.random.default_rng(3).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    noise[1, :, 9:] = 255
    noise[2] //= 8
    noise[3] = 0
    return noise


def by_torch(module: nn.Module, pictures: NDArray[Any]) -> NDArray[np.float32]:
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        y: NDArray[np.float32] = module(x).numpy()
    return y


@pytest.mark.parametrize(
    ("precision", "max_abs", "min_cosine"),
    [("fp32", 1e-4, 0.999999), ("fp16", 5e-3, 0.9999), ("int8", 0.01, 0.999)],
)
@pytest.mark.parametrize("name", NETS)
def test_vectors_are_those_of_torch(
    name: str,
    precision: str,
    max_abs: float,
    min_cosine: float,
    nets: dict[str, nn.Module],
    packages: dict[tuple[str, str], Path],
    pictures: NDArray[np.uint8],
) -> None:
    expected = by_torch(nets[name], pictures)
    actual = RUNTIME.load(packages[name, precision], 1, ()).run(pictures)
    assert actual.dtype == np.float32
    assert actual.shape == (4, DIM)
    assert np.abs(actual - expected).max() < max_abs
    lengths = np.linalg.norm(actual, axis=1)
    assert np.abs(lengths - 1).max() < 2e-3
    assert ((actual * expected).sum(1) / lengths).min() > min_cosine
    assert np.abs(expected[0] - expected[1]).max() > 0.02  # the net tells pictures apart


def test_the_nets_use_what_they_are_there_for(packages: dict[tuple[str, str], Path]) -> None:
    for name, expected in {
        "residual": {"conv", "batch_norm", "pad", "relu6", "add", "reduce_mean", "linear"},
        "squeeze": {"sigmoid_hard", "thresholded_relu", "silu", "sigmoid", "reshape"},
        "shuffle": {"split", "concat", "relu", "reduce_max"},
        "pools": {"max_pool", "avg_pool", "slice_by_index", "sub"},
        "attention": {"softmax", "matmul", "transpose", "tile", "clip", "minimum", "rsqrt"},
    }.items():
        assert expected <= set(operations(packages[name, "fp32"])), name
    assert operations(packages["residual", "int8"]).count("constexpr_affine_dequantize") == 5
    assert operations(packages["residual", "fp16"]).count("cast") == 2


def test_weights_in_8_bits_are_read_as_ios_18_stores_them_too(
    nets: dict[str, nn.Module],
    packages: dict[tuple[str, str], Path],
    pictures: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    newer = save(nets["residual"], tmp_path / "a.mlpackage", "int8", target="iOS18")
    assert operations(newer).count("constexpr_blockwise_shift_scale") == 5
    expected = MilInterpreter(packages["residual", "int8"], 1, ()).run(pictures)
    assert np.abs(MilInterpreter(newer, 1, ()).run(pictures) - expected).max() < 1e-6


def compute(operation: str, x: Tensor, **arguments: Any) -> list[Tensor]:
    """The results of one operation, put together by coremltools."""
    with quiet():
        from coremltools.converters.mil.mil import Builder, Function

        with Function({"x": Builder.placeholder(shape=x.shape)}) as function:
            getattr(Builder, operation)(x=function.inputs["x"], **arguments)
    (step,) = _steps(function.operations)
    values = {"x": x}
    step.compute(values)
    return [values[result.name] for result in step.results]


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("square", {}, [[[4, 1, 0], [1, 4, 9]]]),
        ("thresholded_relu", {"alpha": 1.0}, [[[0, 0, 0], [1, 2, 3]]]),
        ("sigmoid_hard", {"alpha": 0.25, "beta": 0.5}, [[[0, 0.25, 0.5], [0.75, 1, 1]]]),
        ("squeeze", {"axes": [0]}, [[-2, -1, 0], [1, 2, 3]]),
        ("expand_dims", {"axes": [-1, 0]}, [[[[[-2], [-1], [0]], [[1], [2], [3]]]]]),
        ("split", {"axis": 2, "num_splits": 3}, [[[-2], [1]]]),
        ("pad", {"pad": [1, 0, 0, 2]}, [[[0] * 5, [-2, -1, 0, 0, 0], [1, 2, 3, 0, 0]]]),
        ("reduce_sum", {"keep_dims": False}, 3),
        ("reduce_mean", {"keep_dims": True}, [[[0.5]]]),
        ("reduce_max", {}, 3),
        ("reduce_l2_norm", {"axes": [0, 1]}, [5**0.5, 5**0.5, 3]),
        (
            "slice_by_index",
            {"begin": [0, 0, -2], "end": [1, 2, 3], "squeeze_mask": [True, False, False]},
            [[-1, 0], [2, 3]],
        ),
        (
            "slice_by_index",
            {
                "begin": [7, 1, 7],
                "end": [7, 2, 7],
                "stride": [1, 1, 2],
                "begin_mask": [True, False, True],
                "end_mask": [True, False, True],
            },
            [[[1, 3]]],
        ),
    ],
)
def test_operations_by_hand(operation: str, arguments: dict[str, Any], expected: Any) -> None:
    result = compute(operation, torch.arange(-2.0, 4).view(1, 2, 3), **arguments)[0]
    assert result.tolist() == pytest.approx(np.array(expected))


def test_a_result_of_another_shape_than_the_program_says_is_refused() -> None:
    # torch leaves out a window that would start behind the last pixel, MIL does not.
    window = {"kernel_sizes": [1, 1], "strides": [3, 3], "pad_type": "valid", "ceil_mode": True}
    with pytest.raises(BundleFormatError, match=r"\(1, 1, 2, 2\); the program says \(1, 1, 3, 3\)"):
        compute("max_pool", torch.zeros(1, 1, 5, 5), **window)


def test_results_are_rounded_to_the_type_that_the_program_declares(tmp_path: Path) -> None:
    # 255 * 16 + 1 lies between two fp16 numbers, 255 * 300 beyond the last one.
    module = Simple(lambda x: torch.cat([x[:, :, 0, 0] * 16 + 1, x[:, :, 0, 1] * 300], 1))
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    exact = MilProgram(save(module, tmp_path / "a.mlpackage")).run(white)
    assert exact.tolist() == [[4081.0] * 3 + [76500.0] * 3]
    rounded = MilProgram(save(module, tmp_path / "b.mlpackage", "fp16")).run(white)
    assert rounded.tolist() == [[4080.0] * 3 + [float("inf")] * 3]


def test_a_picture_without_any_feature_is_zero_and_not_nan(tmp_path: Path) -> None:
    def embed(epsilon: float) -> Callable[[Tensor], Tensor]:
        def unit(x: Tensor) -> Tensor:
            y = x.mean((2, 3))
            return y / y.square().sum(1, keepdim=True).sqrt().clamp_min(epsilon)

        return unit

    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    program = MilProgram(save(Simple(embed(1e-4)), tmp_path / "a.mlpackage", "fp16"))
    assert program.run(black).tolist() == [[0.0, 0.0, 0.0]]
    assert np.allclose(program.run(black + np.uint8(9)), 3**-0.5, atol=1e-3)
    # Nor does the interpreter help a program that does divide by zero.
    program = MilProgram(save(Simple(embed(0.0)), tmp_path / "b.mlpackage", "fp16"))
    assert np.isnan(program.run(black)).all()


def test_channels_come_in_the_order_that_the_package_asks_for(
    nets: dict[str, nn.Module],
    packages: dict[tuple[str, str], Path],
    pictures: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    package = save(nets["residual"], tmp_path / "bgr.mlpackage", layout="BGR")
    actual = MilInterpreter(package, 1, ()).run(pictures)
    expected = by_torch(nets["residual"], pictures[..., ::-1])
    assert np.abs(actual - expected).max() < 1e-4
    rgb = MilInterpreter(packages["residual", "fp32"], 1, ()).run(pictures)
    assert np.abs(actual - rgb).max() > 0.01


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: torch.cumsum(x.mean((2, 3)), 1), r"operation cumsum \(cumsum\)"),
        (lambda x: x.mean((2, 3)).topk(2)[0], r"operation topk \(topk\)"),
        (lambda x: F.pad(x, (2, 2, 2, 2), "reflect").mean((2, 3)), r"pad \(.*padding by reflect"),
    ],
)
def test_what_is_not_computed_is_named_when_a_package_is_loaded(
    function: Callable[[Tensor], Tensor], named: str, tmp_path: Path
) -> None:
    package = save(Simple(function), tmp_path / "a.mlpackage")
    with pytest.raises(BundleFormatError, match=named):
        MilProgram(package)


def test_packages_that_are_none_are_refused(
    packages: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleFormatError, match="cannot be read"):
        MilProgram(tmp_path / "none.mlpackage")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleFormatError, match="cannot be read"):
        MilProgram(tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    cut = tmp_path / "cut.mlpackage"
    shutil.copytree(packages["residual", "fp32"], cut)
    weights = cut / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BundleFormatError, match="cannot be read"):
        MilProgram(cut)
    grid = save(Simple(lambda x: x * 2), tmp_path / "grid.mlpackage")
    with pytest.raises(BundleFormatError, match=r"one vector \(1, D\)"):
        MilProgram(grid)


def test_the_runtime_refuses_what_it_cannot_use(
    packages: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    package = packages["residual", "fp32"]
    with pytest.raises(ConfigError, match="no providers; it has CPU_ONLY"):
        RUNTIME.load(package, 1, ["CPU_ONLY"])
    with pytest.raises(ConfigError, match="is a folder"):
        RUNTIME.load(b"", 1, ())
    with pytest.raises(ImageError, match=r"takes uint8 \(32, 32, 3\), not uint8 \(16, 16, 3\)"):
        RUNTIME.load(package, 1, ()).run(np.zeros((1, 16, 16, 3), np.uint8))
    other = save(Simple(lambda x: x.mean((2, 3))), tmp_path / "x.mlpackage", input_name="picture")
    with pytest.raises(BundleFormatError, match="input is called picture"):
        RUNTIME.load(other, 1, ())
