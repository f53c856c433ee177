"""Adapters: what is known is recovered, and what is reported is what they are worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from samespace import Dataset, Gallery, metrics
from samespace.adapters import (
    KINDS,
    Adapter,
    Quality,
    check_names,
    embed_pairs,
    fit_adapter,
    measure,
    model_of,
    read_vectors,
)
from samespace.cli._root import run
from samespace_edge import (
    Bundle,
    ConfigError,
    DimensionError,
    Embedder,
    Fingerprint,
    InvalidVectorError,
)

OLD, NEW = Fingerprint("a" * 64), Fingerprint("b" * 64)
ENDS = {"source": OLD, "target": NEW}
Floats = NDArray[np.float64]


def unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def rotation(n: int, seed: int = 0) -> Floats:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def cloud(count: int, width: int, seed: int = 0) -> Floats:
    """Vectors as models make them: unit, some directions longer than others, around a mean."""
    rng = np.random.default_rng([seed, count, width])
    return unit(rng.standard_normal((count, width)) * np.linspace(2, 0.5, width) + 0.3)


def fitted(x: Any, y: Any, kind: str = "affine", **more: Any) -> Any:
    return fit_adapter(x, y, kind=kind, **{**ENDS, **more})


# what is known is recovered


def test_procrustes_recovers_a_rotation_and_a_shift() -> None:
    """Two circles of latitude: equal but for where their sphere's axis points and which one it
    is, so that unit vectors really are rotated and shifted."""
    around = unit(np.random.default_rng(0).standard_normal((300, 15)))
    height = np.full((300, 1), 0.6)
    turn = rotation(16)
    x = np.concatenate([0.8 * around, height], 1)
    y = np.concatenate([0.8 * around, -height], 1) @ turn
    made = fitted(x, y, "procrustes")
    assert np.abs(made.adapter.apply(x) - y).max() < 1e-6
    assert made.held_out.cosine == pytest.approx(1, abs=1e-6)
    assert made.held_out.recall_at_1 == 1
    assert made.unadapted.recall_at_1 < 0.2
    layers = made.adapter.layers
    assert np.abs(layers.centre - x.mean(0)).max() < 0.1
    # What is common to all has no direction to be recovered: the sign of one axis is free.
    assert np.abs(layers.linear[0][:15] - turn[:15]).max() < 1e-6
    assert np.abs(layers.linear[0] @ layers.linear[0].T - np.eye(16)).max() < 1e-6


@pytest.mark.parametrize(("wide", "narrow"), [(24, 16), (17, 16)])
def test_procrustes_with_other_widths(wide: int, narrow: int) -> None:
    turn = rotation(wide)
    x = cloud(400, narrow)
    y = np.concatenate([x, np.zeros((400, wide - narrow))], 1) @ turn
    up = fitted(x, y, "procrustes")
    assert np.abs(up.adapter.apply(x) - y).max() < 1e-6
    assert up.unadapted is None
    down = fitted(y, x, "procrustes")
    assert np.abs(down.adapter.apply(y) - x).max() < 1e-6
    (matrix,) = down.adapter.layers.linear
    assert matrix.shape == (wide, narrow)
    assert np.abs(matrix.T @ matrix - np.eye(narrow)).max() < 1e-6


def test_affine_beats_procrustes_where_axes_are_stretched() -> None:
    x = cloud(1500, 24)
    y = x @ (rotation(24) * np.geomspace(4, 0.2, 24)) + 0.1
    turned, stretched = fitted(x, y, "procrustes"), fitted(x, y, "affine")
    assert stretched.held_out.cosine > 0.99
    assert turned.held_out.cosine < 0.95
    assert stretched.held_out.recall_at_1 >= turned.held_out.recall_at_1 > 0.9


def test_mlp_beats_affine_where_no_matrix_helps() -> None:
    x = cloud(1200, 12)
    y = 0.3 * x @ rotation(12) + np.abs(x @ rotation(12, 1))
    line = fitted(x, y, "affine")
    net = fitted(x, y, "mlp", hidden=64)
    assert net.adapter.layers.residual[0][0].shape == (12, 64)
    assert net.adapter.fitted["chosen"]["share"] > 0
    assert net.held_out.cosine > line.held_out.cosine + 0.02
    assert net.held_out.recall_at_1 > line.held_out.recall_at_1 + 0.1


def test_a_net_that_brings_nothing_is_left_out() -> None:
    x = cloud(60, 12)
    made = fitted(x, x @ rotation(12), "mlp", hidden=4)
    assert made.adapter.layers.residual == ()
    assert any("The net brought nothing" in note for note in made.notes)


def test_low_rank_keeps_what_varies_most() -> None:
    rng = np.random.default_rng(0)
    x = cloud(1500, 32)
    inner = rng.standard_normal((32, 5)) @ rng.standard_normal((5, 32))
    y = x @ inner + 0.01 * rng.standard_normal((1500, 32))
    low, full = fitted(x, y, rank=5), fitted(x, y)
    assert [m.shape for m in low.adapter.layers.linear] == [(32, 5), (5, 32)]
    assert low.adapter.layers.macs == 2 * 32 * 5
    assert low.held_out.cosine > full.held_out.cosine - 1e-3
    assert fitted(x, y, rank=3).held_out.cosine < low.held_out.cosine - 0.01
    with pytest.raises(ConfigError, match="a low rank from 1 to 31"):
        fitted(x, y, rank=32)


def test_side_information_brings_back_what_the_old_model_lost() -> None:
    whole = cloud(2000, 16)
    old, side = whole[:, :6], whole[:, 6:]
    new = whole @ rotation(16)
    for kind, options in (("affine", {}), ("mlp", {"hidden": 32})):
        without = fitted(old, new, kind, **options)
        beside = fitted(old, new, kind, side=side, **options)
        assert beside.held_out.cosine > without.held_out.cosine + 0.05
        assert beside.held_out.recall_at_1 > 0.95 > 0.8 > without.held_out.recall_at_1
        assert (beside.adapter.source_dim, beside.adapter.side_dim) == (6, 10)
        assert beside.adapter.apply(old, side).shape == (2000, 16)
    with pytest.raises(ConfigError, match="procrustes cannot use side information; affine, mlp"):
        fitted(old, new, "procrustes", side=side)


def test_only_the_direction_of_vectors_counts() -> None:
    x = cloud(200, 8)
    y = x @ rotation(8)
    lengths = np.random.default_rng(0).uniform(0.1, 50, (200, 1))
    plain, scaled = fitted(x, y), fitted(lengths * x, y[:, ::1] * lengths[::-1])
    assert np.abs(plain.adapter.apply(x) - scaled.adapter.apply(7 * x)).max() < 1e-5


# what is reported


def test_quality_by_hand() -> None:
    targets = np.eye(4, dtype=np.float32)
    mapped = targets[[0, 1, 3, 2]]
    assert measure(mapped, targets) == Quality(0.5, 0.5, 4)
    same = np.tile(targets[:1], (4, 1))  # everything alike finds nothing: ties count against it
    assert measure(same, same).recall_at_1 == 0


def test_reported_is_what_pairs_outside_the_fit_show() -> None:
    """The same figure from pictures that came later."""
    rng = np.random.default_rng(1)
    x, later = cloud(3000, 16), cloud(600, 16, seed=5)
    turn = rotation(16)
    noisy = [unit(v @ turn) + 0.08 * rng.standard_normal(v.shape) for v in (x, later)]
    made = fitted(x, noisy[0], held_out=0.2)
    assert made.held_out.pairs == 600
    again = measure(made.adapter.apply(later), unit(noisy[1]).astype(np.float32))
    assert again.cosine == pytest.approx(made.held_out.cosine, abs=0.01)
    assert again.recall_at_1 == pytest.approx(made.held_out.recall_at_1, abs=0.05)
    facts = made.adapter.fitted
    assert facts["held_out"] == made.held_out.to_json()
    assert facts["unadapted"] == made.unadapted.to_json()
    assert facts["pairs"] == 3000
    assert not made.notes


def test_forward_and_backward_search_across_models() -> None:
    """Old gallery vectors lifted for new queries, and new queries for an old gallery."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, 1200)
    latent = rng.standard_normal((40, 16))[labels] + 0.35 * rng.standard_normal((1200, 16))
    new = unit(latent).astype(np.float32)
    old = unit((latent + 0.3 * rng.standard_normal(latent.shape)) @ rotation(16)).astype(np.float32)
    train, query, item = slice(0, 800), slice(800, 1000), slice(1000, 1200)

    def recall(queries: Any, gallery: Any) -> float:
        return metrics.rank(queries, gallery, labels[query], labels[item]).recall_at(1)

    forward = fit_adapter(old[train], new[train], **ENDS).adapter
    backward = fit_adapter(new[train], old[train], source=NEW, target=OLD).adapter
    alone = recall(old[query], old[item])
    assert recall(new[query], old[item]) < 0.1
    assert recall(new[query], forward.apply(old[item])) > alone
    assert recall(backward.apply(new[query]), old[item]) > alone
    assert (backward.source, backward.target, backward.space) == (NEW, OLD, OLD)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_input_gives_the_same_adapter(kind: str) -> None:
    x = cloud(150, 8)
    y = np.abs(x @ rotation(8))
    options = {"hidden": 8} if kind == "mlp" else {}
    first, again = fitted(x, y, kind, **options), fitted(x, y, kind, **options)
    assert first.adapter.to_bytes() == again.adapter.to_bytes()
    other = fitted(x, y, kind, seed=1, **options)
    assert other.adapter.layers.sha256 != first.adapter.layers.sha256
    assert Adapter.from_bytes(first.adapter.to_bytes()).to_bytes() == first.adapter.to_bytes()


# what cannot be fitted


def test_errors_name_the_culprit_and_the_fix() -> None:
    x = cloud(60, 8)
    y = x @ rotation(8)
    bad = x.copy()
    bad[7] = 0
    with pytest.raises(InvalidVectorError, match=r"source vectors: row 7 holds NaN or inf.* leave"):
        fitted(bad, y)
    bad[9, 0] = np.nan
    with pytest.raises(InvalidVectorError, match=r"target vectors: row 7 \(and 1 more\)"):
        fitted(x, bad)
    with pytest.raises(InvalidVectorError, match="have to be floats"):
        fitted(np.ones((60, 8), np.uint8), y)
    with pytest.raises(ConfigError, match="60 source vectors and 59 target vectors: row i of both"):
        fitted(x, y[:-1])
    with pytest.raises(DimensionError, match="60 source vectors and 59 rows of side information"):
        fitted(x, y, side=y[:-1])
    with pytest.raises(ConfigError, match=r"19 pairs are too few .* at least 20, better .* \(80\)"):
        fitted(x[:19], y[:19])
    with pytest.raises(ConfigError, match="no kind of adapter 'linear'; there are procrustes"):
        fitted(x, y, "linear")
    with pytest.raises(ConfigError, match="rank is for affine, mlp; an adapter of kind procrustes"):
        fitted(x, y, "procrustes", rank=2)
    with pytest.raises(ConfigError, match="hidden is for mlp"):
        fitted(x, y, hidden=2)
    with pytest.raises(ConfigError, match="1 hidden unit or more"):
        fitted(x, y, "mlp", hidden=0)
    with pytest.raises(ConfigError, match=r"above 0 up to 0\.5, not 0\.9"):
        fitted(x, y, held_out=0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_pairs_than_numbers_are_fitted_with_a_warning(kind: str) -> None:
    x = cloud(40, 64)
    options = {"hidden": 8} if kind == "mlp" else {}
    made = fitted(x, x @ rotation(64), kind, **options)
    assert "directions that no pair shows" in made.notes[0]
    assert made.adapter.fitted["notes"] == list(made.notes)
    assert np.isfinite(made.adapter.apply(x)).all()


def test_rows_that_are_not_paired_are_noticed() -> None:
    x = cloud(400, 16)
    y = (x @ rotation(16))[np.random.default_rng(0).permutation(400)]
    assert any("hardly more often than by chance" in note for note in fitted(x, y).notes)
    same = fitted(x, x)
    assert any("may need no adapter" in note for note in same.notes)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    x = cloud(60, 8)
    with pytest.raises(ConfigError, match=r"pip install \"samespace\[analysis\]\""):
        fitted(x, x, "mlp")


# models, files, bundles, command line


def test_what_is_known_of_a_model(bundles: dict[str, Path]) -> None:
    edge = Bundle.open(bundles["edge"])
    manifest = edge.manifest
    whole = model_of(bundles["edge"])
    assert whole == model_of(edge) == model_of(Embedder(edge)) == model_of(str(bundles["edge"]))
    assert (whole.fingerprint, whole.space) == (manifest.fingerprint, manifest.space)
    assert whole.preprocessing == manifest.preprocessing
    identity = model_of(edge.identity(edge.variant()))
    assert (identity.space, identity.dim, identity.preprocessing) == (manifest.space, 24, {})
    assert model_of("a" * 64) == model_of(OLD)
    assert model_of(OLD).space == OLD
    x = cloud(40, 23)
    with pytest.raises(DimensionError, match=r"source vectors are 23 wide; edge .* makes .*of 24"):
        fit_adapter(x, x, source=edge, target=NEW)


def test_pairs_from_bundles_are_of_the_train_pictures(
    bundles: dict[str, Path], shop: Dataset
) -> None:
    seen: list[tuple[str, int, int]] = []
    x, y = embed_pairs(
        bundles["stranger"], bundles["cloud"], shop, progress=lambda *what: seen.append(what)
    )
    items = sorted(shop.train, key=lambda i: i.path)
    pictures = [shop.read(item) for item in items]
    assert np.abs(x - Embedder(bundles["stranger"]).embed(pictures)).max() < 1e-6
    assert np.abs(y - Embedder(bundles["cloud"]).embed(pictures)).max() < 1e-6
    assert seen == [("embed with source stranger", 48, 48), ("embed with target cloud", 48, 48)]
    few, _ = embed_pairs(bundles["stranger"], bundles["cloud"], shop, most=10)
    assert len(few) == 10
    assert all((x == row).all(1).any() for row in few)
    with pytest.raises(ConfigError, match="has no train pictures"):
        embed_pairs(bundles["stranger"], bundles["cloud"], shop.subset(shop.queries))


def test_vector_files(
    bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vectors = cloud(5, 4).astype(np.float16)
    np.save("v.npy", vectors)
    assert np.array_equal(read_vectors("v.npy").vectors, vectors)
    assert read_vectors("v.npy").names is None
    np.savez("v.npz", vectors=vectors, paths=np.array(list("abcde")), fingerprint=np.array(OLD.hex))
    named = read_vectors("v.npz")
    assert (named.names, named.model) == (tuple("abcde"), OLD)
    np.savez("w.npz", vectors=vectors, paths=np.array(list("abXde")))
    with pytest.raises(ConfigError, match=r"row 2 is 'c' in v\.npz and 'X' in w\.npz"):
        check_names(named, read_vectors("w.npz"))
    cloud_model = Embedder(bundles["cloud"])
    with Gallery.create("shop", cloud_model) as gallery:
        gallery.add(["ä", "b"], vectors=cloud(2, 24), model=cloud_model)
        gallery.export("shop.npz")
    exported = read_vectors("shop.npz")
    assert exported.names == ("ä", "b")
    assert exported.model == cloud_model.identity

    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.save("integers.npy", np.ones((2, 2), np.int64))
    np.savez("others.npz", x=vectors)
    np.savez("short.npz", vectors=vectors, paths=np.array(list("abc")))
    np.savez("odd.npz", vectors=vectors, ids=np.zeros(3, np.uint8))
    Path("text.npy").write_text("hello")
    for name, message in (
        ("objects.npy", "without unpickling"),
        ("text.npy", "without unpickling"),
        ("missing.npy", "No such file"),
        ("integers.npy", r"have to be floats \(N, D\), not int64"),
        ("short.npz", "names 3 rows and holds 5 vectors"),
        ("odd.npz", "not as samespace writes it"),
        ("others.npz", "no array called 'vectors'; it has: x"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_vectors(name)


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(a) for a in ("adapter", *arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_command_line_with_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = cloud(300, 10)
    np.save("old.npy", whole[:, :6])
    np.save("side.npy", whole[:, 6:])
    np.savez("new.npz", vectors=whole @ rotation(10), fingerprint=np.array(NEW.hex))
    arguments = ["fit", "--source", "old.npy", "--target", "new.npz", "--out", "a.adapter"]
    code, _, err = cli(capsys, *arguments)
    assert code == 2
    assert "name its bundle with --source-model" in err
    code, out, _ = cli(capsys, *arguments, "--source-model", OLD, "--side", "side.npy", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["held_out"]["recall_at_1"] == 1
    assert told["unadapted"] is None
    assert told["adapter"]["side_dim"] == 4
    code, out, _ = cli(capsys, *arguments, "--source-model", OLD, "--kind", "procrustes")
    assert code == 0
    assert "mean cosine with the target" in out
    assert "procrustes\t0." in out
    found = Adapter.read("a.adapter")
    code, out, _ = cli(capsys, "show", "a.adapter")
    assert code == 0
    assert f"takes\tvectors of 6, by {OLD}" in out
    assert "data\told.npy, new.npz" in out
    assert "held_out\tcosine 0." in out
    shown = json.loads(cli(capsys, "show", "a.adapter", "--json")[1])
    assert shown == {**found.header(), "fingerprint": found.fingerprint.hex}
    code, _, err = cli(capsys, "show", "old.npy")
    assert code == 3
    assert "old.npy is not an adapter" in err
    assert cli(capsys, *arguments, "--data", "shop.csv")[0] == 2


def test_command_line_with_bundles(
    bundles: dict[str, Path],
    shop_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from samespace_export import adapt_bundle

    monkeypatch.chdir(tmp_path)
    source, target = bundles["stranger"], bundles["cloud"]
    models = ["--source-bundle", source, "--target-bundle", target, "--data", shop_csv]
    code, out, _ = cli(capsys, "fit", *models, "--out", "a.adapter")
    assert code == 0
    assert "vectors as they are" in out
    assert "written to a.adapter" in out
    found = Adapter.read("a.adapter")
    assert found.space == Bundle.open(target).manifest.space
    assert found.fitted["pairs"] == 48
    assert found.fitted["data"] == "shop.csv"

    class Brought:
        def load(self) -> Any:
            return adapt_bundle

    monkeypatch.setattr("samespace.cli.adapter.entry_points", lambda group: {})
    code, _, err = cli(capsys, "bundle", source, "a.adapter", "b.bundle")
    assert code == 3
    assert 'pip install "samespace[export]"' in err
    monkeypatch.setattr("samespace.cli.adapter.entry_points", lambda group: {"bundle": Brought()})
    code, out, _ = cli(capsys, "bundle", source, "a.adapter", "b.bundle", "--name", "lifted")
    assert code == 0
    assert "onnx-fp32\t" in out
    assert Bundle.open("b.bundle").manifest.fingerprint == found.fingerprint
    code, out, _ = cli(capsys, "bundle", source, "a.adapter", "b.bundle", "--overwrite", "--json")
    told = json.loads(out)
    assert told["bundle"]["name"] == "stranger+affine"
    assert told["parity"][0]["max_abs"] < 1e-5
    assert told["left_out"] == []

    beside = bundles["poor"]
    code, _, _ = cli(capsys, "fit", *models, "--side-bundle", beside, "--out", "s.adapter")
    assert code == 0
    assert (
        f"side information by {Bundle.open(beside).manifest.fingerprint.hex}"
        in (cli(capsys, "show", "s.adapter")[1])
    )
    code, _, err = cli(capsys, "bundle", source, "s.adapter", "c.bundle")
    assert code == 3
    assert "name the bundle that makes it" in err
    assert cli(capsys, "bundle", source, "s.adapter", "c.bundle", "--side", beside)[0] == 0
    held = Adapter.read("s.adapter").fingerprint
    assert Bundle.open("c.bundle").manifest.fingerprint == held


@pytest.mark.parametrize("command", ["fit", "show", "bundle"])
def test_every_command_shows_an_example_and_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = cli(capsys, command, "--help")
    assert code == 0
    assert "Example" in out
    assert "--json" in out
    assert f"samespace adapter {command}" in out
