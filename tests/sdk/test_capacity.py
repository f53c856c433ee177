"""What a plan says a gallery takes, against a gallery."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks._rates import FILE, RESULTS, rates_text
from samespace import Embedder, Gallery
from samespace.capacity import measured_rates, plan_capacity
from samespace.cli._root import root
from samespace_edge import ConfigError
from tests.sdk.test_gallery import vectors

N = 20_000
ROOT = Path(__file__).parent.parent.parent


def test_disk_is_as_planned(tmp_path: Path, bundles: dict[str, Path]) -> None:
    cloud = Embedder(bundles["cloud"])
    ids = [f"shelf/picture-{i:06}.jpg" for i in range(N)]
    payloads = [{"label": f"thing {i % 500}", "price": i} for i in range(N)]
    with Gallery.create(tmp_path / "shop", cloud, approximate_from=10_000) as gallery:
        for start in range(0, N, 2000):
            part = slice(start, start + 2000)
            batch = vectors(2000, start)
            gallery.add(ids[part], vectors=batch, model=cloud, payloads=payloads[part])
        gallery.search(vectors=vectors(1), model=cloud, k=1)  # makes the index
    measured = sum(p.stat().st_size for p in (tmp_path / "shop").rglob("*") if p.is_file()) / 2**30
    plan = plan_capacity(
        N,
        cloud.identity.dim,
        id_bytes=len(ids[0]),
        payload_bytes=sum(len(json.dumps(p)) for p in payloads) / N,
    )
    assert plan.needs[0].disk_gib == pytest.approx(measured, rel=0.15)


def test_more_is_needed_where_more_is_held() -> None:
    small, large = (plan_capacity(n, 128).needs for n in (1_000_000, 50_000_000))
    for less, more in zip(small, large, strict=True):
        fixed = 0 if less.where == "embedded" else 1
        assert more.memory_gib - fixed == pytest.approx(50 * (less.memory_gib - fixed))
        assert more.upgrade_disk_gib > more.disk_gib > 0
        assert more.shards > less.shards


def test_advice_says_where_it_fits() -> None:
    assert "room to spare" in plan_capacity(1_000_000, 128).advice
    assert "not two" in plan_capacity(12_000_000, 128).advice
    assert "Milvus holds it on" in plan_capacity(50_000_000, 128).advice


def test_hours_follow_from_the_rate() -> None:
    assert plan_capacity(3_600_000, 64, rate=100, workers=5).embedding_hours == pytest.approx(2)


def test_whichever_takes_longer_is_the_backfill() -> None:
    stored = measured_rates()["backfill embedded"].value
    slow, fast = (plan_capacity(3_600_000, 64, rate=10, workers=w) for w in (5, 500_000))
    assert slow.needs[0].backfill_hours == pytest.approx(slow.embedding_hours) == pytest.approx(20)
    assert fast.needs[0].backfill_hours == pytest.approx(1000 / stored)
    assert slow.rate_of == "given"


def test_without_a_rate_it_is_one_that_was_measured_and_is_named() -> None:
    rates = measured_rates()
    assert set(rates) >= {"embedding", "backfill embedded"}
    for rate in rates.values():
        assert rate.value > 0
        assert (ROOT / rate.source).exists()
    plan = plan_capacity(1_000_000, 128)
    assert plan.rate == rates["embedding"].value
    assert rates["embedding"].what in plan.rate_of
    assert rates_text() == FILE.read_text(), "python -m benchmarks.tables"


@pytest.mark.parametrize("name", ["memory_mib", "disk_mib", "upgrade_disk_mib"])
def test_what_was_measured_was_planned(name: str) -> None:
    rows = json.loads((RESULTS / "capacity.json").read_text())["rows"]
    for row in rows:
        plan = plan_capacity(row["items"], 128, id_bytes=11, payload_bytes=13)
        need = next(n for n in plan.needs if n.where == row["store"])
        planned, measured = 1024 * getattr(need, name.replace("mib", "gib")), row[name]
        if row["store"] == "embedded":
            assert 0.95 * measured < planned < 1.15 * measured
        elif measured is not None:  # what a server merges and keeps is its own to decide
            assert 0.8 * measured < planned < 2.5 * measured


def test_a_million_was_planned() -> None:
    rows = json.loads((RESULTS / "open.json").read_text())["rows"]
    for row in (r for r in rows if r["items"] >= 100_000):
        need = plan_capacity(row["items"], 128, id_bytes=11, payload_bytes=13).needs[0]
        memory = row["peak_mib"] - row["start_mib"]
        assert 0.95 * memory < 1024 * need.memory_gib < 1.1 * memory
        assert 0.95 * row["disk_mib"] < 1024 * need.disk_gib < 1.1 * row["disk_mib"]


@pytest.mark.parametrize("wrong", [{"items": 0}, {"dim": -1}, {"rate": 0.0}, {"workers": 0}])
def test_impossible_numbers_are_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        plan_capacity(**{"items": 10, "dim": 64, **wrong})  # type: ignore[arg-type]


def test_command_measures_the_bundle(tmp_path: Path, bundles: dict[str, Path]) -> None:
    golden = next((bundles["cloud"] / "golden").iterdir()).parent
    arguments = ["plan", "capacity", "--items", "2e6", "--bundle", str(bundles["cloud"])]
    result = CliRunner().invoke(root, [*arguments, "--images", str(golden), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["items"] == 2_000_000
    assert told["dim"] == Embedder(bundles["cloud"]).identity.dim
    assert told["embedding_hours"] == pytest.approx(2e6 / told["rate"] / 3600)


def test_command_asks_for_what_it_needs() -> None:
    for arguments, said in ((["--items", "5"], "--dim"), (["--items", "5", "--bundle", "b"], "go")):
        result = CliRunner().invoke(root, ["plan", "capacity", *arguments])
        assert result.exit_code == 2
        assert said in result.output
