"""Verification: figures, criterion, report, certificate; on models whose quality is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import samespace
from samespace import Certificate, Dataset, Embedder, Report, metrics, verify
from samespace.verification import to_html, to_markdown, verdict, write_report
from samespace_edge import CertificateError, VerificationError, instruction_set

SCHEMAS = Path(samespace.__file__).parent / "schemas"


@pytest.fixture(scope="module")
def report(bundles: dict[str, Path], shop: Dataset) -> Report:
    return verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])


def test_matrix_holds_every_pair_and_is_what_the_metrics_say(
    report: Report, bundles: dict[str, Path], shop: Dataset
) -> None:
    labels = {m.label for m in report.models}
    assert labels == {"edge", "cloud", "poor"}
    assert {(c.query, c.gallery) for c in report.matrix} == {(a, b) for a in labels for b in labels}
    edge, cloud = Embedder(bundles["edge"]), Embedder(bundles["cloud"])
    names = sorted({i.label for i in shop.gallery})
    ranking = metrics.rank(
        edge.embed([shop.read(i) for i in shop.queries]),
        cloud.embed([shop.read(i) for i in shop.gallery]),
        np.array([names.index(i.label) for i in shop.queries]),
        np.array([names.index(i.label) for i in shop.gallery]),
    )
    estimates = report.cell("edge", "cloud").estimates
    assert estimates["recall_at_1"].value == pytest.approx(ranking.recall_at(1))
    assert estimates["recall_at_5"].value == pytest.approx(ranking.recall_at(5))
    assert estimates["map"].value == pytest.approx(ranking.mean_average_precision)


def test_compatible_models_pass_and_strangers_do_not(report: Report) -> None:
    assert report.passed
    assert report.cell("edge", "cloud").estimates["recall_at_1"].value > 0.9
    # Eight labels: models that share nothing are near 1 in 8.
    assert report.cell("poor", "cloud").estimates["recall_at_1"].value < 0.35
    deciding = [c for c in report.criteria if c.decides]
    assert [(c.query, c.gallery, c.reference) for c in deciding] == [("edge", "cloud", "poor")]
    assert deciding[0].difference.low > 0
    shown = [(c.reference, c.decides) for c in report.criteria]
    assert shown == [("edge", False), ("poor", True)]


def test_gap_gain_flips_and_threshold_agree_with_the_matrix(report: Report) -> None:
    cross = report.cell("edge", "cloud").estimates["recall_at_1"].value
    paragon = report.cell("cloud", "cloud").estimates["recall_at_1"].value
    criterion = next(c for c in report.criteria if c.decides)
    assert criterion.gap.value == pytest.approx(cross - paragon)
    flips = report.flips[0]
    assert flips.positive_rate - flips.negative_rate == pytest.approx(cross - paragon)
    threshold = report.thresholds[0]
    assert threshold.own_far <= 0.01
    assert sum(threshold.same) + sum(threshold.different) == 32 * 16


def test_without_a_baseline_the_query_model_itself_is_the_reference(
    bundles: dict[str, Path], shop: Dataset
) -> None:
    found = verify([bundles["edge"]], [bundles["cloud"]], shop)
    assert [(c.reference, c.decides) for c in found.criteria] == [("edge", True)]
    # As good as itself is not better: the interval of the difference contains 0.
    assert not found.passed
    assert found.certificates() == ()
    assert verdict(found).startswith("NOT compatible: M(edge, cloud)")


def test_models_of_other_spaces_are_compared_but_never_certified(
    bundles: dict[str, Path], shop: Dataset
) -> None:
    found = verify([bundles["stranger"]], [bundles["cloud"]], shop)
    assert found.cell("stranger", "cloud").estimates["recall_at_1"].value < 0.4
    assert found.criteria == ()
    assert not found.passed
    assert "nothing is certified" in verdict(found)


def test_report_follows_its_schema_and_reads_back(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(value, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert Report.read(tmp_path / "report.json") == report
    with pytest.raises(VerificationError, match="not a report of schema 1"):
        Report.from_json({"schema": 2})
    with pytest.raises(VerificationError, match="malformed report"):
        Report.from_json({**value, "models": [{}]})


def test_certificate_follows_its_schema_and_says_what_was_measured(report: Report) -> None:
    (certificate,) = report.certificates()
    value = certificate.to_json()
    jsonschema.validate(value, json.loads((SCHEMAS / "certificate.schema.json").read_text()))
    assert Certificate.from_json(value) == certificate
    assert certificate.query == report.model("edge").identity
    assert certificate.gallery == report.model("cloud").identity
    assert certificate.dataset["sha256"] == report.dataset["sha256"]
    assert certificate.criterion["difference_low"] > 0
    assert certificate.instructions == report.machine["instructions"] == instruction_set()


def test_certificates_from_before_the_instruction_set_was_noted_are_read(report: Report) -> None:
    (certificate,) = report.certificates()
    earlier = replace(certificate, instructions="")
    value = earlier.to_json()
    assert "instructions" not in value
    jsonschema.validate(value, json.loads((SCHEMAS / "certificate.schema.json").read_text()))
    assert Certificate.from_json(value) == earlier
    with pytest.raises(CertificateError, match="was changed after it was issued"):
        Certificate.from_json({**certificate.to_json(), "instructions": "x86_64 AVX2"})


def test_html_and_markdown_say_the_same(report: Report, shop: Dataset, tmp_path: Path) -> None:
    noted = replace(report, notes=("Taught with <b>nothing</b> else.",))
    write_report(noted, tmp_path, shop)
    html = (tmp_path / "report.html").read_text()
    text = (tmp_path / "report.md").read_text()
    for cell in report.matrix:
        figure = f"{cell.estimates['recall_at_1'].value:.3f}"
        assert figure in html
        assert figure in text
    assert verdict(report) in text
    assert "&lt;b&gt;nothing" in html  # notes are text, not markup
    assert html.count("data:image/jpeg") > 10
    assert 'src="http' not in html
    assert to_html(noted).count("data:image/jpeg") == 0
    assert "started: at random" in to_markdown(report)


def test_gate_and_figures_are_the_same_for_the_same_seed(
    report: Report, bundles: dict[str, Path], shop: Dataset
) -> None:
    again = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"])
    assert again.matrix == report.matrix
    assert again.criteria == report.criteria


def test_same_names_are_told_apart(bundles: dict[str, Path], shop: Dataset, tmp_path: Path) -> None:
    import shutil

    renamed = tmp_path / "renamed.bundle"
    shutil.copytree(bundles["poor"], renamed)
    manifest = json.loads((renamed / "manifest.json").read_text())
    (renamed / "manifest.json").write_text(json.dumps({**manifest, "name": "cloud"}))
    found = verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=renamed)
    labels = [m.label for m in found.models]
    assert len(set(labels)) == 3
    assert sum(label.startswith("cloud-") for label in labels) == 2


def test_nothing_to_verify(bundles: dict[str, Path], shop: Dataset) -> None:
    with pytest.raises(VerificationError, match="at least one query bundle"):
        verify([], [bundles["cloud"]], shop)
    with pytest.raises(VerificationError, match="no test queries"):
        verify([bundles["edge"]], [bundles["cloud"]], shop.subset(shop.train))


def test_a_handful_of_queries_proves_nothing(bundles: dict[str, Path], shop: Dataset) -> None:
    labels = sorted({i.label for i in shop.gallery})[:3]
    few = shop.subset([i for i in shop.items if i.split == "test" and i.label in labels])
    found = verify([bundles["edge"]], [bundles["cloud"]], few, baseline=bundles["poor"])
    assert not any(c.holds for c in found.criteria)
    assert found.certificates() == ()
    assert verdict(found) == (
        "No verdict: 12 queries of 3 labels are too few. A verdict needs at least 30 queries of 8 "
        "labels."
    )


def test_queries_that_nobody_could_answer(bundles: dict[str, Path], shop: Dataset) -> None:
    lost = shop.gallery[0].label
    items = [i for i in shop.items if not (i.label == lost and i.role == "gallery")]
    with pytest.raises(VerificationError, match="queried but not in the gallery"):
        verify([bundles["edge"]], [bundles["cloud"]], shop.subset(items))


def test_train_labels_in_test_are_said(bundles: dict[str, Path], shop: Dataset) -> None:
    items = [replace(i, label="item01") if i.label == "item00" else i for i in shop.items]
    found = verify([bundles["edge"]], [bundles["cloud"]], shop.subset(items))
    assert any("1 test labels are in the train part" in note for note in found.notes)


def test_certificates_of_an_earlier_report_do_not_stay(
    report: Report, bundles: dict[str, Path], shop: Dataset, tmp_path: Path
) -> None:
    from samespace.verification import write_certificates

    assert len(write_certificates(report, tmp_path)) == 1
    failed = verify([bundles["edge"]], [bundles["cloud"]], shop)
    assert write_certificates(failed, tmp_path) == {}
    assert list(tmp_path.glob("*.certificate.json")) == []
    named = replace(
        report,
        models=tuple(
            replace(m, identity=replace(m.identity, name="../../x")) for m in report.models
        ),
    )
    (path,) = write_certificates(named, tmp_path).values()
    assert path.parent == tmp_path


@pytest.fixture(scope="module")
def corrected(bundles: dict[str, Path], shop: Dataset) -> Report:
    return verify([bundles["edge"]], [bundles["cloud"]], shop, baseline=bundles["poor"], bank=shop)


def test_figures_with_hub_correction_are_what_computing_them_gives(
    report: Report, corrected: Report, bundles: dict[str, Path], shop: Dataset
) -> None:
    edge, cloud = Embedder(bundles["edge"]), Embedder(bundles["cloud"])
    queries = edge.embed([shop.read(i) for i in shop.queries])
    gallery = cloud.embed([shop.read(i) for i in shop.gallery])
    bank = edge.embed([shop.read(i) for i in shop.train])
    nearest = np.sort(gallery @ bank.T, axis=1)[:, -min(50, len(bank)) :]
    scores = queries @ gallery.T - 0.5 * nearest.mean(1)
    labels = np.array([i.label for i in shop.gallery])
    wanted = np.array([i.label for i in shop.queries])
    right = labels[np.argsort(-scores, axis=1)] == wanted[:, None]
    cell = corrected.cell("edge", "cloud")
    assert cell.corrected is not None
    assert cell.corrected_difference is not None
    for k in (1, 5, 10):
        found = cell.corrected[f"recall_at_{k}"]
        assert found.value == pytest.approx(right[:, :k].any(1).mean())
        assert found.low <= found.value <= found.high
    plain = labels[np.argsort(-(queries @ gallery.T), axis=1)][:, 0] == wanted
    assert cell.corrected_difference.value == pytest.approx(right[:, 0].mean() - plain.mean())
    assert corrected.bank is not None
    assert (corrected.bank.pictures, corrected.bank.k, corrected.bank.weight) == (48, 50, 0.5)
    assert corrected.bank.sha256 == shop.sha256(shop.train)


def test_a_bank_changes_nothing_else(report: Report, corrected: Report) -> None:
    assert all(c.corrected is not None for c in corrected.matrix)
    plain = [replace(c, corrected=None, corrected_difference=None) for c in corrected.matrix]
    assert tuple(plain) == report.matrix
    assert corrected.criteria == report.criteria
    assert corrected.thresholds == report.thresholds
    (with_bank,), (without,) = corrected.certificates(), report.certificates()
    assert (with_bank.criterion, with_bank.figures) == (without.criterion, without.figures)
    assert "bank" not in report.to_json()
    assert set(report.to_json()["matrix"][0]) == {"query", "gallery", "estimates"}


def test_a_report_with_a_bank_reads_back_and_shows_both(
    report: Report, corrected: Report, tmp_path: Path
) -> None:
    write_report(corrected, tmp_path)
    value = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(value, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert Report.read(tmp_path / "report.json") == corrected
    cell = corrected.cell("poor", "cloud")
    assert cell.corrected is not None
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "The matrix with hub correction" in text
        assert "0.5 times the mean of the gallery picture&#39;s 50" in text.replace("'", "&#39;")
        for estimates in (cell.estimates, cell.corrected):
            assert f"{estimates['map'].value:.3f}" in text
    assert "hub correction" not in to_markdown(report)


def test_banks_of_every_kind(bundles: dict[str, Path], shop: Dataset, tmp_path: Path) -> None:
    from samespace.verification._bank import open_bank

    assert [i.path for i in open_bank(shop).items] == sorted(i.path for i in shop.train)
    assert [i.path for i in open_bank(shop.source).items] == sorted(i.path for i in shop.train)
    few = open_bank(shop, most=10)
    assert len(few.items) == 10
    assert few.items == open_bank(shop, most=10).items
    for n, item in enumerate(shop.train[:3]):
        (tmp_path / f"{n}.png").write_bytes(shop.read(item))
    assert [i.path for i in open_bank(tmp_path).items] == ["0.png", "1.png", "2.png"]
    mixed = open_bank([tmp_path / "0.png", str(tmp_path / "1.png"), shop.read(shop.train[2])])
    assert [mixed.read(i) for i in mixed.items] == [shop.read(i) for i in shop.train[:3]]
    found = verify([bundles["edge"]], [bundles["cloud"]], shop, bank=str(tmp_path))
    assert found.bank is not None
    assert (found.bank.name, found.bank.pictures) == (tmp_path.name, 3)


def test_banks_that_are_refused(bundles: dict[str, Path], shop: Dataset, tmp_path: Path) -> None:
    models = ([bundles["edge"]], [bundles["cloud"]], shop)
    copy = tmp_path / "copy.png"
    for item in (shop.queries[3], shop.gallery[2]):
        copy.write_bytes(shop.read(item))
        with pytest.raises(VerificationError, match=f"is the test picture {item.path}"):
            verify(*models, bank=tmp_path)
    with pytest.raises(VerificationError, match="picture 1 of the bank is the test picture"):
        verify(*models, bank=[shop.read(shop.train[0]), shop.read(shop.queries[0])])
    with pytest.raises(VerificationError, match="holds no pictures"):
        verify(*models, bank=[])
    with pytest.raises(VerificationError, match="no train pictures"):
        verify(*models, bank=shop.subset(shop.queries))
    with pytest.raises(VerificationError, match="paths or encoded pictures"):
        verify(*models, bank=[np.zeros((8, 8, 3), np.uint8)])  # type: ignore[list-item]
    copy.write_bytes(b"no picture")
    with pytest.raises(VerificationError, match=r"copy\.png"):
        verify(*models, bank=tmp_path)


WIDTHS = (2, 12)


@pytest.fixture(scope="module")
def shortened(bundles: dict[str, Path], shop: Dataset) -> Report:
    return verify(
        [bundles["edge"]],
        [bundles["cloud"]],
        shop,
        baseline=bundles["poor"],
        prefixes=(12, 2, 12),
    )


def test_figures_with_shorter_vectors_are_what_computing_them_gives(
    shortened: Report, bundles: dict[str, Path], shop: Dataset
) -> None:
    edge, cloud = Embedder(bundles["edge"]), Embedder(bundles["cloud"])
    queries = edge.embed([shop.read(i) for i in shop.queries])
    gallery = cloud.embed([shop.read(i) for i in shop.gallery])
    labels = np.array([i.label for i in shop.gallery])
    wanted = np.array([i.label for i in shop.queries])

    def right(width: int) -> np.ndarray:
        q, g = queries[:, :width], gallery[:, :width]
        cosines = (q @ g.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(g, axis=1)
        return labels[np.argsort(-cosines, axis=1)] == wanted[:, None]

    assert shortened.widths == WIDTHS
    cell = shortened.cell("edge", "cloud")
    assert cell.prefixes is not None
    assert tuple(p.width for p in cell.prefixes) == WIDTHS
    for prefix in cell.prefixes:
        found = right(prefix.width)
        for k in (1, 5, 10):
            estimate = prefix.estimates[f"recall_at_{k}"]
            assert estimate.value == pytest.approx(found[:, :k].any(1).mean())
            assert estimate.low <= estimate.value <= estimate.high
        ranks = np.arange(1, len(labels) + 1)
        precision = (np.cumsum(found, 1) / ranks * found).sum(1) / found.sum(1)
        assert prefix.estimates["map"].value == pytest.approx(precision.mean())
        whole = right(24)[:, 0]
        paired = found[:, 0].astype(float) - whole
        assert prefix.difference.value == pytest.approx(paired.mean())
        codes = np.unique(wanted, return_inverse=True)[1]
        interval = metrics.ClusterRobust(codes).difference(paired)
        assert (prefix.difference.low, prefix.difference.high) == (interval.low, interval.high)


def test_the_criterion_at_every_width_and_what_the_certificate_covers(shortened: Report) -> None:
    for criterion in shortened.criteria:
        assert criterion.prefixes is not None
        for at in criterion.prefixes:
            cross = _at(shortened, (criterion.query, criterion.gallery), at.width)
            alone = _at(shortened, (criterion.reference, criterion.reference), at.width)
            assert at.value == pytest.approx(cross)
            assert at.reference_value == pytest.approx(alone)
            assert at.difference.value == pytest.approx(cross - alone)
            assert at.holds == (at.difference.low > 0)
    decides = next(c for c in shortened.criteria if c.decides)
    assert [(p.width, p.holds) for p in decides.prefixes or ()] == [(2, False), (12, True)]
    (certificate,) = shortened.certificates()
    assert certificate.prefixes == (12,)
    value = certificate.to_json()
    assert value["prefixes"] == [12]
    jsonschema.validate(value, json.loads((SCHEMAS / "certificate.schema.json").read_text()))
    assert Certificate.from_json(value) == certificate


def _at(report: Report, pair: tuple[str, str], width: int) -> float:
    prefixes = report.cell(*pair).prefixes or ()
    return next(p.estimates["recall_at_1"].value for p in prefixes if p.width == width)


def test_prefixes_change_nothing_else(report: Report, shortened: Report) -> None:
    assert tuple(replace(c, prefixes=None) for c in shortened.matrix) == report.matrix
    assert tuple(replace(c, prefixes=None) for c in shortened.criteria) == report.criteria
    assert shortened.thresholds == report.thresholds
    assert report.widths == ()
    plain = report.to_json()
    assert all("prefixes" not in entry for entry in (*plain["matrix"], *plain["criteria"]))
    (certificate,) = report.certificates()
    assert certificate.prefixes == ()
    assert "prefixes" not in certificate.to_json()


def test_a_report_with_prefixes_reads_back_and_shows_them(
    report: Report, shortened: Report, tmp_path: Path
) -> None:
    write_report(shortened, tmp_path)
    value = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(value, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert Report.read(tmp_path / "report.json") == shortened
    difference = (shortened.cell("edge", "cloud").prefixes or ())[0].difference
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text()
        assert "R@1 by width" in text
        assert f"{_at(shortened, ('edge', 'cloud'), 2):.3f}" in text
        assert f"[{difference.low:.3f}, {difference.high:.3f}]" in text
    assert "by width" not in to_markdown(report)
    assert "by width" not in to_html(report)


def test_prefixes_that_are_refused(bundles: dict[str, Path], shop: Dataset) -> None:
    for width in (-3, 0, 1, 24, 128):
        with pytest.raises(VerificationError, match=rf"a prefix of {width} .* vectors of 24"):
            verify([bundles["edge"]], [bundles["cloud"]], shop, prefixes=(12, width))


def test_a_model_that_fails_gets_no_certificate_by_a_prefix(
    shortened: Report,
) -> None:
    failed = replace(shortened, criteria=tuple(replace(c, holds=False) for c in shortened.criteria))
    assert failed.certificates() == ()
