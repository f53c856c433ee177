"""Adapted bundles: a model and an adapter in one graph, certified as any other bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from torch import nn

import samespace_edge
import samespace_export._adapted
from samespace import Certificate, Dataset, Gallery, verify
from samespace.adapters import AdapterFit, embed_pairs, embed_train_pictures, fit_adapter
from samespace.verification import write_certificates
from samespace_edge import (
    Adapter,
    AdapterLayers,
    Bundle,
    BundleFormatError,
    ConfigError,
    Embedder,
    Fingerprint,
    check_bundle,
)
from samespace_export import Calibration, adapt_bundle, export_bundle
from tests.export.conftest import net_spec


def layers(width: int, dim: int, rank: int = 0, hidden: int = 0, seed: int = 0) -> AdapterLayers:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    linear = (numbers(width, rank), numbers(rank, dim)) if rank else (numbers(width, dim),)
    two = ((numbers(width, hidden), numbers(hidden)), (numbers(hidden, dim), numbers(dim)))
    return AdapterLayers(numbers(width), linear, numbers(dim), two if hidden else ())


def adapter_for(bundle: Bundle, made_of: AdapterLayers, **more: Any) -> Adapter:
    m = bundle.manifest
    known = {"preprocessing": m.preprocessing, "architecture": m.architecture}
    target = Fingerprint("b" * 64)
    return Adapter("affine", made_of, m.fingerprint, target, target, **{**known, **more})


@pytest.fixture(scope="module")
def stranger_fit(bundles: dict[str, Path], shop: Dataset) -> AdapterFit:
    """From the space of `stranger` to that of `cloud`, fitted to the train pictures."""
    stranger, cloud = Bundle.open(bundles["stranger"]), Bundle.open(bundles["cloud"])
    return fit_adapter(*embed_pairs(stranger, cloud, shop), source=stranger, target=cloud)


def test_an_adapted_stranger_is_verified_admitted_and_found(
    bundles: dict[str, Path], shop: Dataset, stranger_fit: AdapterFit, tmp_path: Path
) -> None:
    adapter, out = stranger_fit.adapter, tmp_path / "lifted.bundle"
    made = adapt_bundle(bundles["stranger"], adapter, out)
    assert made.bundle.manifest.role == "edge"
    assert made.bundle.manifest.space == Bundle.open(bundles["cloud"]).manifest.fingerprint
    plain = verify([bundles["stranger"]], [bundles["cloud"]], shop)
    assert not plain.criteria
    report = verify([out], [bundles["cloud"]], shop, baseline=bundles["poor"])
    assert report.passed
    found = {(c.query, c.gallery): c.estimates["recall_at_1"].value for c in report.matrix}
    assert found["stranger+affine", "cloud"] > 0.9
    before = {(c.query, c.gallery): c.estimates["recall_at_1"].value for c in plain.matrix}
    assert before["stranger", "cloud"] < 0.5

    # The gallery of the old model moves into the new space without its pictures.
    write_certificates(report, tmp_path)
    (certificate,) = tmp_path.glob("*.certificate.json")
    lifted = Embedder(made.bundle)
    old = Embedder(bundles["stranger"]).embed([shop.read(i) for i in shop.gallery])
    with Gallery.create(tmp_path / "shop", bundles["cloud"]) as gallery:
        gallery.admit(certificate)
        ids = [i.path for i in shop.gallery]
        labels = [{"label": i.label} for i in shop.gallery]
        gallery.add(ids, vectors=adapter.apply(old), model=lifted, payloads=labels)
        cloud = Embedder(bundles["cloud"])
        queries = [shop.read(i) for i in shop.queries]
        hits = gallery.search(images=queries, model=cloud, k=1)
        right = [h[0].payload["label"] == i.label for h, i in zip(hits, shop.queries, strict=True)]
        assert np.mean(right) > 0.9
    identity = adapter.identity(Embedder(bundles["stranger"]).identity)
    assert identity.fingerprint == lifted.identity.fingerprint
    assert (identity.space, identity.dim) == (lifted.identity.space, lifted.identity.dim)


def test_what_the_manifest_says(
    bundles: dict[str, Path], stranger_fit: AdapterFit, tmp_path: Path
) -> None:
    adapter = stranger_fit.adapter
    adapter.write(tmp_path / "a.adapter")
    source = Bundle.open(bundles["stranger"]).manifest
    out = tmp_path / "x.bundle"
    made = adapt_bundle(bundles["stranger"], tmp_path / "a.adapter", out, name="x", role="cloud")
    m = made.bundle.manifest
    schemas = Path(samespace_edge.__file__).parent / "schemas"
    schema = json.loads((schemas / "bundle.schema.json").read_text())
    jsonschema.validate(json.loads((out / "manifest.json").read_text()), schema)
    assert (m.name, m.role, m.dim) == ("x", "cloud", 24)
    assert m.fingerprint == m.computed_fingerprint() == adapter.fingerprint != source.fingerprint
    assert (m.resize, m.mean, m.std) == (source.resize, source.mean, source.std)
    assert m.macs == source.macs + 24 * 24
    assert m.parameters == source.parameters + 24 * 24 + 24 + 24
    assert m.architecture == "stranger + affine adapter"
    assert m.card["adapter"].startswith("affine, 48 pairs")
    assert check_bundle(out).ok
    assert len(check_bundle(out).results) == 3 * 4
    assert made.left_out == ()
    assert [p.name for p in tmp_path.glob("*.bundle")] == ["x.bundle"]


@pytest.fixture(scope="module")
def onnx_bundle(
    net: nn.Module, photographs: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A convolutional net in every ONNX precision, beside a file that is not ONNX."""
    out = tmp_path_factory.mktemp("onnx") / "small.bundle"
    targets = ("onnx-fp32", "onnx-fp16", "onnx-int8")
    export_bundle(net, net_spec(), out, targets=targets, calibration=Calibration(photographs[:16]))
    value = json.loads((out / "manifest.json").read_text())
    (out / "model.tflite").write_bytes(b"another format")
    sha256 = "a778b247c38eb9f873f227a3bee8d50b6b8494c7e975fedbeb6e6269dabd6a8f"
    value["files"]["model.tflite"] = sha256
    other = {"name": "tflite-fp32", "format": "tflite", "precision": "fp32"}
    value["variants"].append({**other, "file": "model.tflite", "sha256": sha256, "bytes": 14})
    (out / "manifest.json").write_text(json.dumps(value))
    return Bundle.open(out)


@pytest.mark.parametrize(
    "shape",
    [{"dim": 24}, {"dim": 40}, {"dim": 12, "rank": 5}, {"dim": 40, "rank": 5, "hidden": 16}],
    ids=str,
)
def test_every_onnx_file_computes_the_adapter(
    shape: dict[str, int],
    onnx_bundle: Bundle,
    photographs: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    adapter = adapter_for(onnx_bundle, layers(24, **shape))
    made = adapt_bundle(onnx_bundle, adapter, tmp_path / "x.bundle")
    names = ["onnx-fp32", "onnx-fp16", "onnx-int8"]
    assert [p.variant for p in made.parity] == names
    assert all(p.max_abs < 1e-5 and p.pictures == 4 for p in made.parity)
    for name in names:
        before, after = Embedder(onnx_bundle, variant=name), Embedder(made.bundle, variant=name)
        expected = adapter.apply(before.embed_pixels(photographs))
        vectors = after.embed_pixels(photographs)
        assert vectors.shape == (128, shape["dim"])
        assert np.abs(vectors - expected).max() < 1e-5
        black = after.embed_pixels(np.zeros((2, 32, 32, 3), np.uint8))
        assert np.isfinite(black).all()
    (left,) = made.left_out
    assert left.startswith("tflite-fp32: an adapter goes behind ONNX graphs only")
    assert "checkpoint" in left
    assert set(json.loads(made.bundle.read("quantization.json"))) == {"onnx-int8"}
    assert check_bundle(made.bundle.path).ok


def test_an_adapted_bundle_can_be_adapted_again(
    onnx_bundle: Bundle, photographs: NDArray[np.uint8], tmp_path: Path
) -> None:
    """As model follows model: the second adapter knows nothing of the first."""
    first = adapter_for(onnx_bundle, layers(24, 40, hidden=8))
    once = adapt_bundle(onnx_bundle, first, tmp_path / "1.bundle").bundle
    second = adapter_for(once, layers(40, 16, rank=4, seed=1))
    twice = adapt_bundle(once, second, tmp_path / "2.bundle").bundle
    vectors = Embedder(onnx_bundle).embed_pixels(photographs)
    expected = second.apply(first.apply(vectors))
    assert np.abs(Embedder(twice).embed_pixels(photographs) - expected).max() < 1e-5
    assert twice.manifest.name == "small+affine+affine"
    assert twice.manifest.macs == onnx_bundle.manifest.macs + first.layers.macs + 4 * (40 + 16)
    graph = onnx.load_from_string(twice.read("model.onnx")).graph
    assert [o.name for o in graph.output] == ["embedding"]
    assert graph.output[0].type.tensor_type.shape.dim[1].dim_value == 16
    assert len({n.name for n in graph.node}) == len(graph.node)


def test_what_does_not_go_together_is_refused(
    bundles: dict[str, Path],
    onnx_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "x.bundle"
    edge = Bundle.open(bundles["edge"])
    plain = layers(24, 24)
    for adapter, message in (
        (adapter_for(onnx_bundle, plain), "fitted for vectors of model .* bundle 'edge' is model"),
        (adapter_for(edge, layers(30, 24), side_dim=6), r"side information \(N, 6\).* name the b"),
        (adapter_for(edge, plain, preprocessing={}), "fit it again with the bundle 'edge'"),
        (adapter_for(edge, plain, architecture=""), "fit it again with the bundle 'edge'"),
    ):
        with pytest.raises(ConfigError, match=message):
            adapt_bundle(edge, adapter, out)
    with monkeypatch.context() as patch:  # a graph that computes something else
        other = replace(plain, bias=plain.bias + np.float32(1e-3))
        append = samespace_export._adapted.append_adapter
        patch.setattr(
            samespace_export._adapted, "append_adapter", lambda graph, _: append(graph, other)
        )
        with pytest.raises(ConfigError, match=r"onnx-fp32 of edge\+affine departs from Adapter"):
            adapt_bundle(edge, adapter_for(edge, plain), out)
    assert list(tmp_path.iterdir()) == []

    shutil.copytree(onnx_bundle.path, tmp_path / "tflite.bundle")
    value = json.loads((tmp_path / "tflite.bundle" / "manifest.json").read_text())
    value["variants"] = value["variants"][-1:]
    (tmp_path / "tflite.bundle" / "manifest.json").write_text(json.dumps(value))
    rest = Bundle.open(tmp_path / "tflite.bundle")
    with pytest.raises(ConfigError, match=r"'small' has no ONNX file .* it has: tflite-fp32"):
        adapt_bundle(rest, adapter_for(rest, plain), out)


def test_side_information_comes_from_a_second_network_in_the_same_graph(
    bundles: dict[str, Path], shop: Dataset, tmp_path: Path
) -> None:
    """Old vectors and side information that a gallery kept become what the bundle makes."""
    old, new, side = (Bundle.open(bundles[n]) for n in ("poor", "cloud", "stranger"))
    models = {"source": old, "target": new, "side": side}
    pairs = embed_train_pictures(models, shop)
    assert all(v.shape == (48, 24) for v in pairs.values())
    named = {"source": old, "target": new, "side": pairs["side"], "side_model": side}
    adapter = fit_adapter(pairs["source"], pairs["target"], **named).adapter
    assert adapter.side == side.manifest.fingerprint
    adapter.write(tmp_path / "a.adapter")
    assert Adapter.read(tmp_path / "a.adapter").side == adapter.side
    schemas = Path(samespace_edge.__file__).parent / "schemas"
    schema = json.loads((schemas / "adapter.schema.json").read_text())
    jsonschema.validate(adapter.header(), schema)

    made = adapt_bundle(old, adapter, tmp_path / "lifted.bundle", side=side)
    m = made.bundle.manifest
    assert m.fingerprint == m.computed_fingerprint() == adapter.fingerprint
    assert m.macs == old.manifest.macs + side.manifest.macs + adapter.layers.macs
    assert m.card["side information"].startswith("stranger ")
    assert check_bundle(made.bundle.path).ok
    lifted = Embedder(made.bundle)
    pictures = [shop.read(i) for i in shop.gallery]
    before, beside = Embedder(old).embed(pictures), Embedder(side).embed(pictures)
    assert np.allclose(lifted.embed(pictures), adapter.apply(before, beside), atol=1e-5)

    report = verify([new], [made.bundle, new], shop)
    found = {(c.query, c.gallery): c.estimates["recall_at_1"].value for c in report.matrix}
    assert found["cloud", "poor+affine"] > 0.9
    certificate = verify([made.bundle], [new], shop, baseline=old)
    write_certificates(certificate, tmp_path)
    (proof,) = tmp_path.glob("*.certificate.json")
    ids = [i.path for i in shop.gallery]
    with Gallery.create(tmp_path / "shop", old) as gallery:
        gallery.add(ids, vectors=before, model=Embedder(old))
        gallery.keep_side(ids, vectors=beside, model=Embedder(new))
        with pytest.raises(ConfigError, match="keeps side information by cloud"):
            gallery.lift(tmp_path / "x", adapter, anchor=new, certificate=Certificate.read(proof))
    with Gallery.create(tmp_path / "shop2", old) as gallery:
        gallery.add(ids, vectors=before, model=Embedder(old))
        gallery.keep_side(ids, vectors=beside, model=Embedder(side))
        proven = Certificate.read(proof)
        moved = gallery.lift(tmp_path / "y", adapter, anchor=new, certificate=proven)
    with moved:
        hits = moved.search(images=pictures, model=Embedder(new), k=1)
        found = [h[0].id.split("/")[0] for h in hits]
    assert np.mean([f == i.label for f, i in zip(found, shop.gallery, strict=True)]) > 0.9


def test_side_information_of_something_else_is_refused(
    bundles: dict[str, Path], onnx_bundle: Bundle, tmp_path: Path
) -> None:
    old, side = Bundle.open(bundles["edge"]), Bundle.open(bundles["stranger"])
    beside = adapter_for(old, layers(48, 24), side_dim=24, side=side.manifest.fingerprint)
    unknown = replace(beside, side=None)
    small = onnx_bundle.manifest.fingerprint
    other_pixels = adapter_for(old, layers(48, 24), side_dim=24, side=small)
    for adapter, bundle, message in (
        (adapter_for(old, layers(24, 24)), side, "takes no side information; leave 'stranger' out"),
        (unknown, side, r"fit it again with the bundle 'stranger' \(side_model="),
        (beside, old, r"takes side information of model .*bundle 'edge' is model"),
        (other_pixels, onnx_bundle, "one bundle has one"),
    ):
        with pytest.raises(ConfigError, match=message):
            adapt_bundle(old, adapter, tmp_path / "x.bundle", side=bundle)
    with pytest.raises(ConfigError, match="names no model of it"):
        adapter_for(old, layers(24, 24), side=side.manifest.fingerprint)
    assert beside.fingerprint != unknown.fingerprint


def test_an_existing_bundle_is_only_replaced_on_request(
    bundles: dict[str, Path], copied: Path, tmp_path: Path
) -> None:
    edge = Bundle.open(copied)
    adapter = adapter_for(edge, layers(24, 8))
    with pytest.raises(ConfigError, match="already there"):
        adapt_bundle(edge, adapter, copied)
    assert Bundle.open(copied).manifest == edge.manifest
    made = adapt_bundle(edge, adapter, copied, overwrite=True)  # even by itself
    assert made.bundle.manifest.fingerprint == adapter.fingerprint
    assert check_bundle(copied).ok
    precious = tmp_path / "documents"
    precious.mkdir()
    with pytest.raises(BundleFormatError, match="is not a bundle"):
        adapt_bundle(bundles["edge"], adapter, precious, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["documents", "edge.bundle"]


def test_graphs_of_another_age(bundles: dict[str, Path]) -> None:
    from samespace_export._append import append_adapter

    model = onnx.load(bundles["edge"] / "model.onnx")
    model.opset_import[0].version = 12
    with pytest.raises(ConfigError, match="of ONNX opset 12, and an adapter needs 13 or later"):
        append_adapter(model.SerializeToString(), layers(24, 24))
