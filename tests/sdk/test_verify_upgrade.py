"""What a report says of a newer cloud model: its rule, who loses, thresholds, backfill."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import samespace
from samespace import Certificate, Dataset, Embedder, Report, metrics, verify
from samespace.cli.verify import verify_command
from samespace.verification import to_markdown, verdict, write_report
from samespace.verification._claims import claims, is_upgrade, upgrades
from samespace.verification._upgrade_measure import relative_negative_rate
from samespace_edge import Fingerprint, Resize, VerificationError
from samespace_export import ExportSpec, export_bundle, model_fingerprint

SCHEMAS = Path(samespace.__file__).parent / "schemas"
RESIZE = Resize(8, 8, "squash")
HALF = (0.5, 0.5, 0.5)


class Stripes(nn.Module):
    """Sees three stripes of a picture, each with a weight, through so many of its rows.

    The fewer rows, the more it sees of the noise. What it sees is projected as every other of
    these models does it, so all of them share a space.
    """

    def __init__(self, weights: tuple[float, ...], rows: tuple[int, ...]) -> None:
        super().__init__()
        seen = np.zeros((3, 3, 3, 8, 8))
        for stripe, (weight, upper) in enumerate(zip(weights, rows, strict=True)):
            for colour in range(3):
                column = 3 * stripe
                seen[stripe, colour, colour, :upper, column : column + 2] = weight / upper / 2
        project = np.random.default_rng(3).standard_normal((9, 24)).T
        self.linear = nn.Linear(3 * 8 * 8, 24)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(project @ seen.reshape(9, -1)))
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))
        return y


def picture(label: int, shot: int) -> Image.Image:
    colours = np.random.default_rng(label).uniform(70, 185, (3, 3))
    noise = np.random.default_rng(1000 * label + shot)
    pixels = np.repeat(colours, 8, axis=0)[None] + noise.normal(0, 70, (24, 24, 3))
    pixels += noise.normal(0, 10, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def stripes_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stripes")
    with (folder / "stripes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "role"])
        for label in range(36):
            for shot in range(6):
                path = f"{label:02}-{shot}.png"
                picture(label, shot).save(folder / path)
                writer.writerow([path, f"{label:02}", "test", "gallery" if shot < 2 else "query"])
    return folder / "stripes.csv"


@pytest.fixture(scope="module")
def data(stripes_csv: Path) -> Dataset:
    return Dataset.open(stripes_csv)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> dict[str, Path]:
    """`old` anchors the space that all declare; `old-edge` goes by what `new` makes less of."""
    folder = tmp_path_factory.mktemp("upgrade")
    modules = {
        "old": (Stripes((1, 0.5, 0.2), (2, 1, 1)), "cloud"),
        "new": (Stripes((0.6, 0.5, 0.6), (8, 8, 8)), "cloud"),
        "old-edge": (Stripes((1, 0.2, 0), (4, 1, 1)), "edge"),
        "new-edge": (Stripes((0.6, 0.5, 0.6), (3, 3, 3)), "edge"),
    }
    golden = [data.read(item) for item in data.gallery[:2]]

    def spec(name: str, role: str, space: Any = None) -> ExportSpec:
        return ExportSpec(
            name=name, role=role, resize=RESIZE, mean=HALF, std=HALF, architecture=name, space=space
        )

    anchor = model_fingerprint(modules["old"][0], spec("old", "cloud"), 24)
    for name, (module, role) in modules.items():
        how = spec(name, role, None if name == "old" else anchor)
        export_bundle(module, how, folder / f"{name}.bundle", golden=golden)
    return {name: folder / f"{name}.bundle" for name in modules}


@pytest.fixture(scope="module")
def report(models: dict[str, Path], data: Dataset) -> Report:
    queries = [models[n] for n in ("old-edge", "new-edge", "new", "old")]
    galleries = [models["new"], models["old"]]  # the anchor is the older one, wherever it stands
    return verify(queries, galleries, data, paragon=models["new-edge"])


@pytest.fixture(scope="module")
def right(models: dict[str, Path], data: Dataset) -> dict[tuple[str, str], np.ndarray]:
    """First-hit correctness of every pair, computed here."""
    embedders = {name: Embedder(path) for name, path in models.items()}
    queries = {n: e.embed([data.read(i) for i in data.queries]) for n, e in embedders.items()}
    gallery = {n: e.embed([data.read(i) for i in data.gallery]) for n, e in embedders.items()}
    labels = np.array([i.label for i in data.gallery])
    wanted = np.array([i.label for i in data.queries])
    return {
        (q, g): labels[(queries[q] @ gallery[g].T).argmax(1)] == wanted
        for q in models
        for g in models
    }


def test_the_old_model_on_both_sides_is_what_an_upgrade_has_to_beat(
    report: Report, right: dict[tuple[str, str], np.ndarray]
) -> None:
    (rule,) = [c for c in report.criteria if c.rule == "upgrade"]
    assert (rule.query, rule.gallery, rule.reference) == ("new", "old", "old")
    assert rule.decides
    assert rule.holds
    cross, old, full = (right[p].mean() for p in (("new", "old"), ("old", "old"), ("new", "new")))
    assert rule.value == pytest.approx(cross)
    assert rule.reference_value == pytest.approx(old)
    assert rule.difference.value == pytest.approx(cross - old)
    assert rule.gap.value == pytest.approx(cross - full)
    assert rule.gain == pytest.approx((cross - old) / (full - old))
    # The older model claims nothing of the newer one's gallery; devices are judged as ever.
    judged = {(c.query, c.gallery, c.reference) for c in report.criteria if c.rule is None}
    assert judged == {(e, g, e) for e in ("old-edge", "new-edge") for g in ("old", "new")}


def test_an_upgrade_alone_passes_and_its_certificate_says_by_which_rule(
    models: dict[str, Path], data: Dataset
) -> None:
    found = verify([models["new"]], [models["old"]], data, baseline=models["old-edge"])
    assert found.passed
    assert verdict(found).startswith("Compatible: as an upgrade, M(new, old) = ")
    (certificate,) = found.certificates()
    assert certificate.criterion["rule"] == "upgrade"
    assert certificate.criterion["reference"] == str(found.model("old").identity)
    assert certificate.criterion["reference_value"] == found.criteria[0].reference_value
    value = certificate.to_json()
    jsonschema.validate(value, json.loads((SCHEMAS / "certificate.schema.json").read_text()))
    assert Certificate.from_json(value) == certificate


def test_the_way_back_claims_nothing(models: dict[str, Path], data: Dataset) -> None:
    found = verify([models["old"]], [models["new"]], data)
    assert found.criteria == ()
    assert not found.passed
    assert "nothing is certified" in verdict(found)
    assert found.upgrades is not None  # it is told all the same
    assert "new was not named as a query model" in to_markdown(found)


def test_who_loses_is_counted_and_said(
    report: Report, right: dict[tuple[str, str], np.ndarray], data: Dataset
) -> None:
    assert report.upgrades is not None
    (upgrade,) = report.upgrades
    assert (upgrade.old, upgrade.new) == ("old", "new")
    assert [c.query for c in upgrade.changes] == ["old", "new", "old-edge", "new-edge"]
    codes = np.unique([i.label for i in data.queries], return_inverse=True)[1]
    for change in upgrade.changes:
        before, after = right[change.query, "old"], right[change.query, "new"]
        lost = before & ~after
        assert change.before == pytest.approx(before.mean())
        assert change.after == pytest.approx(after.mean())
        interval = metrics.ClusterRobust(codes).difference(after.astype(float) - before)
        assert change.difference.value == pytest.approx(after.mean() - before.mean())
        assert (change.difference.low, change.difference.high) == (interval.low, interval.high)
        assert change.negative == tuple(data.queries[i].path for i in np.flatnonzero(lost))
        assert change.negative_rate == pytest.approx(lost.mean())
        assert change.positive_rate == pytest.approx((~before & after).mean())
        expected = lost.mean() / (before.mean() * (1 - after.mean()))
        assert change.relative_negative_rate == pytest.approx(expected)
    assert upgrade.change("new-edge").direction == "better"
    assert upgrade.change("old-edge").direction == "worse"
    assert "In a gallery of new instead of old less is found by old-edge (-0." in verdict(report)


def test_asked_with_both_models(
    report: Report,
    models: dict[str, Path],
    data: Dataset,
    right: dict[tuple[str, str], np.ndarray],
) -> None:
    assert report.upgrades is not None
    (upgrade,) = report.upgrades
    labels = np.array([i.label for i in data.gallery])
    wanted = np.array([i.label for i in data.queries])
    parts = (data.queries, data.gallery)
    made = {
        name: [Embedder(models[name]).embed([data.read(i) for i in part]) for part in parts]
        for name in ("old", "new")
    }
    assert [j.gallery for j in upgrade.joint] == ["old", "new"]
    for joint in upgrade.joint:
        scores = (made["old"][0] + made["new"][0]) @ made[joint.gallery][1].T
        both = labels[scores.argmax(1)] == wanted
        alone, before = right["new", joint.gallery], right["old", "old"]
        assert joint.value == pytest.approx(both.mean())
        assert joint.difference.value == pytest.approx(both.mean() - alone.mean())
        assert joint.negative_rate == pytest.approx((before & ~both).mean())
        assert joint.alone_rate == pytest.approx((before & ~alone).mean())
        assert f"gallery of {joint.gallery} gives {joint.value:.3f}" in to_markdown(report)


def test_relative_negative_rate_by_hand() -> None:
    before = np.array([True, True, True, False])
    after = np.array([True, True, False, False])
    # A quarter turned wrong; independent errors would make it 3/4 of 1/2.
    assert relative_negative_rate(before, after) == pytest.approx(0.25 / 0.375)
    assert relative_negative_rate(before, np.ones(4, bool)) is None
    assert relative_negative_rate(np.zeros(4, bool), after) is None


def test_what_the_old_threshold_means_now(
    report: Report, models: dict[str, Path], data: Dataset
) -> None:
    assert report.upgrades is not None
    (upgrade,) = report.upgrades
    found = {(a.query, a.gallery): a for a in upgrade.acceptances}
    assert set(found) == {(q, g) for q in models for g in ("old", "new")}
    own = found["old", "old"]
    assert 0.005 < own.far <= 0.01
    assert own.restoring == pytest.approx(upgrade.threshold)
    assert own.restored_tar == pytest.approx(own.tar)
    new = Embedder(models["new"])
    scores = new.embed([data.read(i) for i in data.queries])
    scores = scores @ new.embed([data.read(i) for i in data.gallery]).T
    same = np.equal.outer([i.label for i in data.queries], [i.label for i in data.gallery])
    both = found["new", "new"]
    assert both.far == pytest.approx((scores[~same] >= upgrade.threshold).mean())
    assert both.tar == pytest.approx((scores[same] >= upgrade.threshold).mean())
    # As many wrong pairs pass as did, not one less.
    assert (scores[~same] >= both.restoring).mean() == pytest.approx(own.far)
    assert (scores[same] >= both.restoring).mean() == pytest.approx(both.restored_tar)


def test_a_threshold_of_ones_own(models: dict[str, Path], data: Dataset) -> None:
    found = verify([models["new"]], [models["old"]], data, threshold=0.62)
    assert found.threshold == 0.62
    assert [t.threshold for t in found.thresholds] == [0.62]
    assert found.upgrades is not None
    (upgrade,) = found.upgrades
    assert upgrade.threshold == 0.62
    own = next(a for a in upgrade.acceptances if (a.query, a.gallery) == ("old", "old"))
    assert own.far == found.thresholds[0].own_far
    assert own.far > 0.01
    assert "0.62 that was given" in to_markdown(found)
    assert "FAR 1 %" not in to_markdown(found)
    assert Report.from_json(found.to_json()) == found
    all_pass = verify([models["new"]], [models["old"]], data, threshold=-1)
    assert {a.restored_tar for a in (all_pass.upgrades or ())[0].acceptances} == {1.0}
    for wrong in (1.5, float("nan")):
        with pytest.raises(VerificationError, match="a threshold is a cosine"):
            verify([models["new"]], [models["old"]], data, threshold=wrong)


def test_backfill_in_the_report_begins_and_ends_with_the_matrix(report: Report) -> None:
    assert report.upgrades is not None
    curves = report.upgrades[0].curves
    assert [(c.query, c.order) for c in curves] == [
        ("new", "random"),
        ("new", "uncertain"),
        ("new", "farthest"),
        ("old", "random"),
        ("old-edge", "random"),
        ("new-edge", "random"),
    ]
    for curve in curves:
        assert curve.shares == (0, 0.1, 0.25, 0.5, 0.75, 1)
        ends = [report.cell(curve.query, g).estimates for g in ("old", "new")]
        assert curve.recall_at_1[0] == pytest.approx(ends[0]["recall_at_1"].value)
        assert curve.recall_at_1[-1] == pytest.approx(ends[1]["recall_at_1"].value)
        assert (curve.map[0], curve.map[-1]) == pytest.approx([e["map"].value for e in ends])
        assert curve.area.low <= curve.area.value <= curve.area.high
        assert (curve.over_random is None) == (curve.order == "random")
        change = report.upgrades[0].change(curve.query)
        if curve.query != "new":
            assert curve.negative_rate[0] == 0
            assert curve.negative_rate[-1] == pytest.approx(change.negative_rate)
    # Of the new model's queries, flips are told from what the old model's found.
    assert curves[0].negative_rate[0] == pytest.approx(_flipped(report, "new", "old"))
    assert curves[1].over_random is not None
    gained = curves[1].area.value - curves[0].area.value
    assert curves[1].over_random.value == pytest.approx(gained)


def _flipped(report: Report, query: str, gallery: str) -> float:
    return next(f.negative_rate for f in report.flips if (f.query, f.gallery) == (query, gallery))


def test_what_compatibility_costs(report: Report, right: dict[tuple[str, str], np.ndarray]) -> None:
    assert report.upgrades is not None
    (upgrade,) = report.upgrades
    assert upgrade.paragon == "new-edge"  # any bundle will do for this
    alone = right["new-edge", "new-edge"].mean()
    old = right["old", "old"].mean()
    assert upgrade.tax is not None
    assert upgrade.tax.value == pytest.approx(right["new", "new"].mean() - alone)
    gain = (right["new", "old"].mean() - old) / (alone - old)
    assert upgrade.paragon_gain == pytest.approx(gain)
    assert report.model("new-edge").declared == ("query", "paragon")


def test_the_report_follows_its_schema_reads_back_and_shows_it(
    report: Report, data: Dataset, tmp_path: Path
) -> None:
    write_report(report, tmp_path, data)
    value = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(value, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert Report.read(tmp_path / "report.json") == report
    assert report.upgrades is not None
    change = report.upgrades[0].change("old-edge")
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "Upgrade: from old to new" in text
        assert "old (upgrade)" in text
        assert f"{change.before:.3f}" in text
        assert f"{change.difference.value:+.3f}" in text
        assert f"{report.upgrades[0].acceptances[3].restoring:.3f}" in text
        assert f"{report.upgrades[0].curves[2].area.value:.3f}" in text
        assert "uncertain" in text
    html = (tmp_path / "report.html").read_text()
    assert "R@1 against the share of the items that new has embedded" in html


def test_a_report_without_an_upgrade_is_what_it_was(report: Report) -> None:
    plain = replace(
        report,
        upgrades=None,
        criteria=tuple(c for c in report.criteria if c.rule is None),
    )
    value = plain.to_json()
    assert "upgrades" not in value
    assert "threshold" not in value
    assert all("rule" not in c for c in value["criteria"])
    assert Report.from_json(value) == plain
    assert "pgrade" not in to_markdown(plain)
    assert all("rule" not in c.criterion for c in plain.certificates())


def test_gains_that_are_none_are_said_as_such(report: Report) -> None:
    def said(gain: float | None) -> str:
        criteria = tuple(replace(c, gain=gain) if c.rule else c for c in report.criteria)
        return to_markdown(replace(report, criteria=criteria))

    assert "would bring nothing over the old model: M(new, new) = 0." in said(None)
    assert "before any item is embedded anew, less is found" in said(-0.2)
    assert "The update gain is 0.60: of what embedding" in said(0.6)


def test_items_of_one_label_have_no_wrong_pairs(models: dict[str, Path], data: Dataset) -> None:
    one = data.subset([i for i in data.items if i.label == "00"])
    found = verify([models["new"]], [models["old"]], one)
    assert found.upgrades is not None
    assert {(a.far, a.restoring) for a in found.upgrades[0].acceptances} == {(0, 0)}
    assert Report.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert not found.passed


def test_the_command_shows_an_upgrade(models: dict[str, Path], stripes_csv: Path) -> None:
    arguments = ["--query", models["new"], "--query", models["old-edge"], "--gallery"]
    arguments += [models["old"], "--data", stripes_csv, "--threshold", 0.9]
    done = CliRunner().invoke(verify_command, [str(a) for a in arguments], standalone_mode=False)
    assert done.exception is None, done.output
    assert "query\tR@1 before\tafter" in done.output
    assert "old-edge → new\t0.900" in done.output
    assert "new\tuncertain\t" in done.output
    assert "less is found by old-edge" in done.output


def stub(name: str, space: str = "a", role: str = "cloud", place: int | None = None) -> Any:
    """A model that is only what its claims go by; its name is its fingerprint."""
    identity = SimpleNamespace(
        fingerprint=Fingerprint(name[0] * 64), space=Fingerprint(space * 64), dim=24
    )
    identity.is_anchor = identity.fingerprint == identity.space
    declared = ["query"] + ([] if place is None else ["gallery"])
    return SimpleNamespace(
        label=name,
        embedder=SimpleNamespace(identity=identity),
        manifest=SimpleNamespace(role=role),
        declared=declared,
        place=place,
    )


def named(pairs: list[tuple[Any, Any]]) -> set[tuple[str, str]]:
    return {(one.label, other.label) for one, other in pairs}


def test_of_a_chain_every_later_model_claims_every_earlier_gallery() -> None:
    third, second, anchor = stub("c", place=1), stub("b", place=0), stub("a", place=2)
    edge = stub("e", role="edge")
    found = [third, second, anchor, edge]
    assert named(upgrades(found)) == {("a", "b"), ("a", "c"), ("b", "c")}
    of_devices = {("e", "a"), ("e", "b"), ("e", "c")}
    assert named(claims(found)) == {("b", "a"), ("c", "a"), ("c", "b")} | of_devices


def test_what_is_no_upgrade() -> None:
    anchor = stub("a", place=0)
    assert is_upgrade(stub("b"), anchor)
    assert not is_upgrade(stub("b", role="edge"), anchor)
    assert not is_upgrade(stub("b", space="d"), anchor)
    assert not is_upgrade(stub("a-int8"), anchor)  # another file of the same model
    assert named(claims([stub("a-int8"), anchor])) == {("a-int8", "a")}
