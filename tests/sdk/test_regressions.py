"""What a new classifier gets wrong: figures by hand, identities, intervals, files, page, gate."""

from __future__ import annotations

import json
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import jsonschema
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

import samespace
from samespace import Dataset, regressions
from samespace.cli._root import run
from samespace.regressions import (
    Pictures,
    Predictions,
    RegressionReport,
    compare,
    exact_interval,
    expected_calibration_error,
    gate,
    mcnemar,
    read_predictions,
    to_html,
    to_markdown,
    verdict,
    with_columns,
    write_predictions,
    write_report,
)
from samespace.regressions._exact import binomial_cdf
from samespace_edge import ConfigError, DataError

SCHEMA = json.loads(
    (Path(samespace.__file__).parent / "schemas" / "regressions.schema.json").read_text()
)

OLD = """id,label,prediction,score,aisle
a.png,cup,cup,0.9,north
b.png,cup,cup,0.8,north
c.png,mug,mug,0.7,north
d.png,mug,mug,0.6,south
e.png,jar,cup,0.5,south
f.png,jar,cup,0.4,south
g.png,jar,mug,0.3,south
h.png,cup,cup,0.9,south
"""
NEW = """id,label,prediction,score,aisle
h.png,cup,cup,1.0,south
a.png,cup,cup,0.9,north
b.png,cup,mug,0.6,north
c.png,mug,jar,0.8,north
d.png,mug,mug,0.7,south
e.png,jar,jar,0.6,south
f.png,jar,cup,0.7,south
g.png,jar,mug,0.2,south
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Both right: a, d, h; turned wrong: b, c; turned right: e; both wrong: f, g."""
    (tmp_path / "old.csv").write_text(OLD)
    (tmp_path / "new.csv").write_text(NEW)
    return tmp_path / "old.csv", tmp_path / "new.csv"


@pytest.fixture
def report(files: tuple[Path, Path]) -> RegressionReport:
    return compare(read_predictions(files[0]), read_predictions(files[1]), ["aisle"])


def outcomes(both: int, negative: int, positive: int, neither: int) -> tuple[Predictions, ...]:
    """Two models with so many pictures of every outcome."""
    n = both + negative + positive + neither
    right = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [both, negative, positive, neither], axis=0)
    ids = [f"{i}" for i in range(n)]
    return tuple(Predictions(ids, ["x"] * n, np.where(r, "x", "y")) for r in right.T)


# Figures


def test_every_figure_by_hand(report: RegressionReport) -> None:
    r = report
    assert (r.pictures, r.error_old, r.error_new) == (8, 3 / 8, 4 / 8)
    assert r.error_difference.value == 1 / 8
    assert r.negative_rate.value == 2 / 8
    assert r.relative_negative_rate is not None
    assert r.relative_negative_rate.value == pytest.approx((2 / 8) / ((5 / 8) * (4 / 8)))
    assert (r.negative_impact, r.positive_rate, r.positive_impact) == (2 / 4, 1 / 8, 1 / 4)
    assert r.mcnemar_p == 1.0  # 2 against 1
    assert r.new_classes is None
    assert repr(r).endswith(
        "8 pictures, error 0.3750 → 0.5000, NFR 0.2500 [0.0319, 0.6509])"  # the exact one
    )
    assert "2 turned wrong (NFR 25.00 %, interval 3.19 to 65.09 %) and 1 turned right" in verdict(r)


def test_flips_are_sorted_by_the_wrong_answer_s_score(report: RegressionReport) -> None:
    assert [(f.id, f.label, f.old, f.new, f.new_score) for f in report.negative] == [
        ("c.png", "mug", "mug", "jar", 0.8),
        ("b.png", "cup", "cup", "mug", 0.6),
    ]
    assert [(f.id, f.old, f.old_score) for f in report.positive] == [("e.png", "cup", 0.5)]


def test_by_class_and_by_column(report: RegressionReport) -> None:
    assert [(g.value, g.pictures, g.negative, g.positive) for g in report.by_class] == [
        ("cup", 3, 1, 0),
        ("mug", 2, 1, 0),
        ("jar", 3, 0, 1),
    ]
    north, south = report.by_column["aisle"]
    assert (north.value, north.pictures, north.error_old, north.error_new) == ("north", 3, 0, 2 / 3)
    assert (south.negative, south.positive, south.negative_rate.value) == (0, 1, 0)
    assert south.negative_rate.high == pytest.approx(1 - 0.025 ** (1 / 5))


def test_identities() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        old, new = outcomes(*(int(n) for n in rng.integers(0, 20, 3)), int(rng.integers(1, 20)))
        r, s = compare(old, new), compare(new, old)
        assert r.negative_rate.value <= r.error_new
        assert r.error_new - r.error_old == pytest.approx(r.negative_rate.value - r.positive_rate)
        assert r.error_difference.value == pytest.approx(r.error_new - r.error_old)
        assert (s.negative_rate.value, s.positive_rate) == (r.positive_rate, r.negative_rate.value)
        assert s.mcnemar_p == r.mcnemar_p


def test_what_has_no_denominator_is_none() -> None:
    r = compare(*outcomes(5, 0, 2, 0))  # no errors of the new model
    assert (r.relative_negative_rate, r.negative_impact) == (None, None)
    r = compare(*outcomes(0, 0, 0, 3))  # nothing right
    assert (r.relative_negative_rate, r.positive_impact) == (None, None)


def test_independent_errors_have_a_relative_rate_of_one() -> None:
    r = compare(*outcomes(72, 8, 18, 2))
    assert r.relative_negative_rate is not None
    assert r.relative_negative_rate.value == pytest.approx(1)


@pytest.mark.parametrize(
    ("negative", "positive"), [(0, 0), (1, 0), (5, 5), (3, 17), (40, 12), (900, 1100), (20000, 9)]
)
def test_mcnemar_is_the_exact_binomial_test(negative: int, positive: int) -> None:
    n = negative + positive
    expected = binomtest(negative, n).pvalue if n else 1.0
    assert mcnemar(negative, positive) == pytest.approx(expected, rel=1e-9)


def test_binomial_sums_by_hand_and_for_large_counts() -> None:
    assert binomial_cdf(1, 3, 0.25) == pytest.approx(0.75**3 + 3 * 0.25 * 0.75**2)
    assert binomial_cdf(3, 3, 0.25) == 1
    assert binomial_cdf(500_000, 1_000_001, 0.5) == pytest.approx(0.5, rel=1e-7)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 100), (3, 50), (50, 50), (120, 40_000)])
def test_the_exact_interval_is_clopper_and_pearson_s(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.95, "exact")
    found = exact_interval(k, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    shares = np.array([0.84, 0.04, 0.07, 0.05])
    truth = {
        "error_difference": shares[1] - shares[2],
        "negative_rate": shares[1],
        "relative_negative_rate": shares[1] / ((shares[0] + shares[1]) * (shares[1] + shares[3])),
    }
    counts = rng.multinomial(400, shares, size=200)
    covered = dict.fromkeys(truth, 0)
    for seed, row in enumerate(counts):
        report = compare(*outcomes(*row.tolist()), seed=seed)
        for name, value in truth.items():
            estimate = getattr(report, name)
            covered[name] += estimate.low <= value <= estimate.high
    assert all(0.91 <= n / 200 <= 0.995 for n in covered.values()), covered


def test_the_seed_decides_over_the_bootstrap() -> None:
    pair = outcomes(80, 5, 9, 6)
    first, again, other = (compare(*pair, seed=s) for s in (1, 1, 2))
    assert first.error_difference == again.error_difference
    assert first.relative_negative_rate != other.relative_negative_rate


# Calibration


def test_ece_by_hand_and_whatever_the_order() -> None:
    scores = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([True, False, True, True])
    # Equal scores stay together: |1.8 - 1| and |1.2 - 2|, over 4.
    assert expected_calibration_error(scores, right) == pytest.approx(0.4)
    assert expected_calibration_error(scores[::-1], right[::-1]) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([1.0]), np.array([True])) == 0
    spread = (np.arange(30) + 0.5) / 30
    right = np.arange(30) % 2 == 0  # every bin of two has one right
    pairs = np.abs(spread.reshape(15, 2).sum(1) - 1).sum() / 30
    assert expected_calibration_error(spread, right) == pytest.approx(pairs)


def test_brier_and_nll_by_hand() -> None:
    old = Predictions.from_probabilities(["a", "b"], ["x", "y"], [[0.8, 0.2], [0.7, 0.3]], "xy")
    new = Predictions.from_logits(["a", "b"], ["x", "y"], [[0.0, 0.0], [-800.0, 0.0]], "xy")
    r = compare(old, new)
    assert r.calibration_old is not None
    assert r.calibration_new is not None
    assert r.calibration_old.brier == pytest.approx((2 * 0.2**2 + 2 * 0.7**2) / 2)
    assert r.calibration_old.nll == pytest.approx(-(math.log(0.8) + math.log(0.3)) / 2)
    assert r.calibration_new.nll == pytest.approx(math.log(2) / 2)
    assert r.calibration_new.ece == pytest.approx(0.25)


def test_scores_alone_give_ece_alone_and_answers_nothing(report: RegressionReport) -> None:
    assert report.calibration_old is not None
    assert (report.calibration_old.brier, report.calibration_old.nll) == (None, None)
    bare = compare(*outcomes(3, 1, 1, 1))
    assert (bare.calibration_old, bare.calibration_new) == (None, None)
    assert any("There are no scores" in note for note in bare.notes)


def test_notes_on_what_rests_on_few_pictures(report: RegressionReport) -> None:
    assert report.notes == (
        "The new model has 4 errors: relative NFR and NFI rest on few pictures, and the interval "
        "of relative NFR is too narrow.",
    )
    assert compare(*outcomes(5, 0, 1, 1)).notes[0].startswith("Nothing turned wrong, so resampling")


# New classes


def test_a_class_that_only_the_new_model_knows_is_no_flip() -> None:
    ids, labels = list("abcd"), ["x", "y", "z", "z"]
    old = Predictions.from_logits(ids, labels, np.eye(2)[[0, 1, 0, 1]], ["x", "y"])
    new = Predictions.from_logits(ids, labels, np.eye(4)[[2, 1, 0, 2]], ["z", "y", "x", "w"])
    r = compare(old, new)
    assert r.new_classes is not None
    assert (r.new_classes.classes, r.new_classes.pictures) == (("z",), 2)
    assert r.new_classes.error_new == 0.5
    assert (r.error_old, r.error_new, len(r.positive)) == (0.5, 0.25, 1)
    assert r.negative == ()
    assert r.calibration_old is not None
    assert r.calibration_old.pictures == 2
    assert r.notes[0].startswith("There is no picture of 1 of 4 classes ('w')")
    assert "2 pictures are of classes that the old model does not know (z)" in to_markdown(r)
    assert "does not know (z)" in to_html(r)


def test_one_file_with_classes_and_one_without() -> None:
    new = Predictions.from_logits(list("ab"), list("xy"), np.eye(3)[[0, 2]], list("xyz"))
    old = Predictions(list("ab"), list("xy"), list("xy"))
    r = compare(old, new)
    assert [f.id for f in r.negative] == ["b"]
    assert any("does not say which classes" in note for note in r.notes)


# Files


def test_csv_and_npz_come_back_as_they_went(tmp_path: Path, files: tuple[Path, Path]) -> None:
    p = read_predictions(files[0])
    assert repr(p) == f"Predictions({str(files[0])!r}, 8 pictures, scores)"
    write_predictions(p, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == OLD
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3)).astype(np.float32)
    q = Predictions.from_logits(
        list("abcde"), ["x", "y", "z", "x", "y"], logits, list("xyz"), {"hall": list("11222")}
    )
    assert repr(q) == "Predictions('predictions', 5 pictures, 3 classes, probabilities)"
    write_predictions(q, tmp_path / "new" / "q.npz")
    again = read_predictions(tmp_path / "new" / "q.npz")
    assert again.ids == q.ids
    assert again.probabilities is not None
    assert again.probabilities.dtype == np.float32
    np.testing.assert_array_equal(again.probabilities, q.probabilities)
    np.testing.assert_array_equal(again.predicted, q.predicted)
    np.testing.assert_array_equal(again.columns["hall"], q.columns["hall"])
    np.savez(tmp_path / "l.npz", ids=np.arange(5), labels=[0, 1, 2, 0, 1], classes=list("xyz"),
             logits=logits)  # fmt: skip
    positions = read_predictions(tmp_path / "l.npz")
    np.testing.assert_array_equal(positions.labels, q.labels)
    np.testing.assert_allclose(positions.scores, q.scores, rtol=1e-6)


def test_files_without_labels_are_read_only_where_none_are_needed(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("id,prediction\na,x\n")
    p = read_predictions(tmp_path / "bare.csv", labelled=False)
    assert p.labels is None
    assert "no labels" in repr(p)
    write_predictions(p, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == "id,prediction\na,x\n"
    np.savez(tmp_path / "bare.npz", ids=["a"], classes=["x"], logits=[[0.0]])
    q = read_predictions(tmp_path / "bare.npz", labelled=False)
    write_predictions(q, tmp_path / "again.npz")
    with pytest.raises(DataError, match=r"neither .*bare.csv nor .*bare.npz has labels"):
        compare(p, q)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p.csv is empty"),
        ("id,label,prediction\n", r"p.csv lists no pictures"),
        ("id,prediction\na,x\n", r"lacks the column\(s\) label; its first line has to be id,label"),
        ("a,x,x\nb,x,x\n", r"lacks the column\(s\) id, label, prediction"),
        ("id,label,prediction,id\na,x,x,b\n", r"two columns of one name; rename one: id,label"),
        ("id,label,prediction\na,x\n", r"row 1 has another number of fields than the header"),
        ("id,label,prediction\na,x,y,z\n", r"row 1 has another number of fields"),
        ('id,label,prediction\na,x,"y\n', r"is not a readable CSV"),
        (b"id,label,prediction\n\xff,x,x\n", r"is not UTF-8 text"),
        ("id,label,prediction\n,x,x\n", r"the id of row 1 is empty"),
        ("id,label,prediction\na,x,x\nb,,x\n", r"the label of row 2 is empty; name the class"),
        ("id,label,prediction\na,x,\n", r"the prediction of row 1 is empty"),
        (
            "id,label,prediction\na,x,x\nb,x,x\na,x,x\n",
            r"than once: 'a' in rows 1 and 3; keep",
        ),
        ("id,label,prediction,score\na,x,x,\n", r"score of row 1 is '', not a number; fill"),
        ("id,label,prediction,score\na,x,x,1.5\n", r"score of row 1 is 1.5, which is not between"),
        ("id,label,prediction,score\na,x,x,nan\n", r"score of row 1 is nan"),
    ],
)
def test_what_is_wrong_with_a_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


X = [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": None}, r"lacks logits or probabilities; it holds classes, ids, labels"),
        ({"ids": None, "labels": None}, r"lacks ids, labels; it holds"),
        ({"probabilities": X}, r"holds logits and probabilities; keep one"),
        ({"logits": [[0.0, 1.0], [np.inf, 0.0]]}, r"logits of row 2 are not finite; mend"),
        ({"logits": [[np.nan, 1.0], [np.inf, 0.0]]}, r"logits of rows 1, 2 are not finite"),
        ({"logits": [0.0, 1.0]}, r"logits have the shape \(2,\), but there are 2 classes"),
        ({"logits": [["a", "b"]] * 2}, r"logits are numbers, not of type <U1"),
        ({"logits": np.zeros((0, 2)), "ids": np.zeros(0, str)}, r"lists no pictures"),
        ({"logits": None, "probabilities": [[0.5, 0.4], [1, 0]]},
         r"probabilities of row 1 are not from 0 to 1 with the sum 1, .* sum 0.9000"),
        ({"logits": None, "probabilities": [[1.5, -0.5], [1, 0]]}, r"row 1 \(smallest -0.5"),
        ({"logits": None, "probabilities": [[1.0, 0.0]]},
         r"probabilities have 1 rows, but there are 2 ids"),
        ({"labels": ["x"]}, r"labels have the shape \(1,\), but there are 2 ids"),
        ({"labels": [0, 2]}, r"label of row 2 is 2, which is no position in 2 classes"),
        ({"classes": ["x", "x"]}, r"lists classes more than once: 'x'; keep one"),
        ({"classes": ["x", ""]}, r"class in position 1, from 0, has no name"),
        ({"classes": [["x", "y"]]}, r"classes have the shape \(1, 2\); give a flat array"),
        ({"hall": ["1"]}, r"hall have the shape \(1,\), but there are 2 ids"),
        ({"score": ["1", "2"]}, r"free column cannot be called 'score'; rename it"),
        ({"ids": np.array(["a", None], object)}, r"is not an npz of plain arrays.*, dtype=str\)"),
        ({"ids": [b"a", b"\xe9"]}, r"is not an npz of plain arrays: .*utf-8.* can't decode"),
        ({"classes": "x", "labels": [0, 0]}, r"classes have the shape \(\); give a flat array"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_npz(tmp_path: Path, change: dict[str, object], message: str) -> None:
    arrays = {"ids": ["a", "b"], "labels": ["x", "y"], "classes": ["x", "y"], "logits": X, **change}
    np.savez(tmp_path / "p.npz", **{k: np.asarray(v) for k, v in arrays.items() if v is not None})
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(tmp_path / "p.npz")
    assert "p.npz" in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv cannot be read: No such file"):
        read_predictions(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"p.txt is neither a .csv nor an .npz"):
        read_predictions(tmp_path / "p.txt")
    np.save(tmp_path / "p.npy", np.zeros(3))
    (tmp_path / "p.npy").rename(tmp_path / "p.npz")
    with pytest.raises(DataError, match="is not an npz of plain arrays"):
        read_predictions(tmp_path / "p.npz")
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as file:
        file.writestr("README.txt", "Predictions of")
    with pytest.raises(DataError, match=r"its member 'README.txt' is no array; write it again"):
        read_predictions(tmp_path / "p.npz")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_an_npz_that_is_damaged(tmp_path: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    ids = [f"{i}.jpg" for i in range(200)]
    p = Predictions.from_logits(ids, ["c0"] * 200, rng.normal(size=(200, 9)), list("abcdefghi"))
    write_predictions(p, tmp_path / "p.npz")
    content = bytearray((tmp_path / "p.npz").read_bytes())
    at = int(share * len(content))
    content[at : at + 40] = rng.bytes(40)
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"p.npz"):
        read_predictions(tmp_path / "p.npz")


def test_texts_in_bytes_are_utf8(tmp_path: Path) -> None:
    ids = np.array(["é.jpg".encode(), b"b.jpg"])
    np.savez(tmp_path / "p.npz", ids=ids, labels=[b"x", b"y"], classes=[b"x", b"y"], logits=X)
    p = read_predictions(tmp_path / "p.npz")
    assert p.ids == ("é.jpg", "b.jpg")
    assert p.classes == ("x", "y")


def test_a_long_text_costs_no_more_than_its_length(tmp_path: Path) -> None:
    """As fixed-width text, the file's column would take 80 GB."""
    rows = "".join(f"{i},x,x,{'prompt' * 3333 if i == 7 else ''}\n" for i in range(1_000_000))
    (tmp_path / "p.csv").write_text(f"id,label,prediction,note\n{rows}")
    p = read_predictions(tmp_path / "p.csv")
    assert len(p.columns["note"][7]) == 19_998


def test_texts_of_every_kind_are_read_as_they_were_written(tmp_path: Path) -> None:
    texts = ["a\rb", 'a"b', "a,b", "a\nb", "é", " "]
    p = Predictions(texts, texts, texts, columns={"note": texts})
    write_predictions(p, tmp_path / "p.csv")
    again = read_predictions(tmp_path / "p.csv")
    assert again.ids == tuple(texts)
    assert again.columns["note"].tolist() == texts


def test_what_cannot_be_written(tmp_path: Path) -> None:
    p = Predictions(["a"], ["x"], ["x"], source="old.csv")
    with pytest.raises(ConfigError, match=r"as .csv or as .npz, not as .*p.txt"):
        write_predictions(p, tmp_path / "p.txt")
    with pytest.raises(ConfigError, match=r"old.csv holds answers without probabilities"):
        write_predictions(p, tmp_path / "p.npz")
    q = Predictions.from_logits(["a"], ["x"], [[0.0]], ["x"], {"logits": ["1"]})
    with pytest.raises(ConfigError, match="cannot be called 'logits'"):
        write_predictions(q, tmp_path / "q.npz")
    with pytest.raises(ConfigError, match="cannot be called 'file'"):
        write_predictions(replace(q, columns={"file": ["1"]}), tmp_path / "q.npz")


def test_what_is_wrong_with_predictions() -> None:
    with pytest.raises(DataError, match=r"row 1 predict 'z', which is not among the classes"):
        Predictions(["a"], ["x"], ["z"], classes=["x", "y"])
    with pytest.raises(DataError, match="probabilities without classes; name every column"):
        Predictions(["a"], ["x"], ["x"], probabilities=[[1.0]])
    with pytest.raises(DataError, match="row 1 predict a class that is not the one of the largest"):
        Predictions(["a"], ["x"], ["x"], probabilities=[[0.2, 0.8]], classes=["x", "y"])


# Two files that do not fit together


def test_answers_that_are_named_differently_from_the_labels() -> None:
    """Else a model would never be right, nothing could turn wrong, and every gate would pass."""
    ids, labels, wrong = list("abcd"), ["cat", "dog"] * 2, ["0", "1"] * 2
    good = Predictions(ids, labels, labels, source="good.csv")
    odd = Predictions(ids, labels, wrong, source="odd.csv")
    for both in ((odd, good), (good, odd), (odd, odd)):
        with pytest.raises(DataError, match=r"odd.csv answers '0', '1', but the labels are 'cat',"):
            compare(*both)
    few = Predictions(ids, labels, ["cat", "dog", "0", "0"], source="few.csv")
    assert "few.csv answers 1 class(es) that no label names ('0')" in compare(good, few).notes[-1]
    # Pictures of new classes alone, where both models tell which they know: that may be.
    narrow = Predictions.from_logits(ids, labels, [[1, 0], [0, 1]] * 2, ["cup", "mug"])
    broad = Predictions.from_logits(
        ids, labels, np.eye(4)[[2, 3, 2, 3]], ["cup", "mug", "cat", "dog"]
    )
    alone = compare(narrow, broad)
    assert alone.new_classes is not None
    assert (alone.new_classes.pictures, alone.error_old, alone.error_new) == (4, 1.0, 0.0)
    # All of one class, and called another one: that may be.
    cats = Predictions(ids, ["cat"] * 4, ["cat"] * 4)
    assert len(compare(cats, replace(cats, predicted=["dog"] * 4)).negative) == 4  # type: ignore[arg-type]


def test_ids_in_two_forms_of_unicode() -> None:
    old, new = (Predictions([normalize(form, "café.jpg")], ["x"], ["x"]) for form in ("NFC", "NFD"))
    with pytest.raises(DataError, match="the same but for their Unicode form"):
        compare(old, new)


def test_pictures_that_only_one_has() -> None:
    old = Predictions(list("abcdefgh"), ["x"] * 8, ["x"] * 8, source="old.csv")
    new = Predictions(list("hz"), ["x"] * 2, ["x"] * 2, source="new.csv")
    with pytest.raises(
        DataError,
        match=r"7 only in old.csv \('a', 'b', .*'e' and 2 more\), 1 only in new.csv \('z'\);",
    ) as caught:
        compare(old, new)
    assert len(caught.value.problems) == 2


def test_labels_that_disagree() -> None:
    old = Predictions(list("ab"), list("xy"), list("xy"), source="old.csv")
    new = Predictions(list("ba"), list("zx"), list("yx"), source="new.csv")
    with pytest.raises(
        DataError, match=r"old.csv and new.csv disagree on the label of 1 pic.*'b': 'y' and 'z'"
    ):
        compare(old, new)


def test_classes_that_do_not_match() -> None:
    ids, labels = ["a"], ["x"]
    old = Predictions.from_logits(ids, labels, [[1.0, 0.0]], ["x", "y"], source="old.npz")
    new = Predictions.from_logits(ids, labels, [[1.0, 0.0]], ["x", "w"], source="new.npz")
    with pytest.raises(DataError, match=r"new.npz lacks 1 class\(es\) of old.npz: 'y'; a new"):
        compare(old, new)
    odd = [Predictions.from_logits(ids, ["q"], [[1.0]], ["x"], source=s) for s in ("o", "n")]
    with pytest.raises(DataError, match=r"n: 1 label\(s\) are not among its classes: 'q'; neither"):
        compare(*odd)


def test_columns_that_are_not_of_the_picture(files: tuple[Path, Path]) -> None:
    old, new = (read_predictions(path) for path in files)
    with pytest.raises(ConfigError, match=r"has the column 'shelf'; they have: aisle"):
        compare(old, new, ["shelf"])
    with pytest.raises(ConfigError, match=r"has the column 'shelf'; they have none but their own"):
        compare(*outcomes(1, 1, 1, 1), ["shelf"])
    moved = Predictions(
        new.ids, new.labels, new.predicted, columns={"aisle": ["east"] * 8}, source="new.csv"
    )
    with pytest.raises(DataError, match=r"disagree on the column 'aisle' of 8 .*not of the model"):
        compare(old, moved, ["aisle"])


# Gate


def test_the_upper_end_counts_at_the_gate() -> None:
    report = compare(*outcomes(100, 0, 0, 0))
    assert report.negative_rate.high == pytest.approx(1 - 0.025 ** (1 / 100))
    held = gate(report, max_negative_rate=0.01)
    assert not held.passed
    assert held.sentences[0] == (
        "The upper end of NFR's interval, 3.62 % (measured: 0.00 %), IS above 1.00 %: 100 pictures "
        "are too few to tell; more make the interval narrower."
    )
    assert gate(report, max_negative_rate=0.04).passed
    assert gate(compare(*outcomes(368, 0, 0, 0))).passed
    assert not gate(compare(*outcomes(367, 0, 0, 0))).passed


def test_the_measured_error_counts_at_the_gate() -> None:
    report = compare(*outcomes(985, 3, 2, 10))
    worse = gate(report, max_negative_rate=0.05)
    assert not worse.passed
    assert worse.sentences[1] == "The error changes by +0.10 points, which IS above +0.00."
    assert gate(report, max_negative_rate=0.05, max_error_increase=0.001).passed
    assert "too few" not in gate(report, max_negative_rate=0.001).sentences[0]
    near = gate(compare(*outcomes(367, 0, 0, 0))).sentences[0]
    assert "1.0001 % (measured: 0.0000 %), IS above 1.0000 %" in near.replace("0.00 %", "0.0000 %")
    with pytest.raises(ConfigError, match="max_negative_rate is a share from 0 to 1"):
        gate(report, max_negative_rate=5)


# Reports


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with c.png, and with a b.png that is none."""
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 200), "red").save(tmp_path / "photos" / "c.png")
    (tmp_path / "photos" / "b.png").write_text("not a picture")
    return tmp_path / "photos"


def test_json_follows_its_schema(report: RegressionReport) -> None:
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    jsonschema.validate(value, SCHEMA)
    assert value["negative_rate"] == {
        "value": 0.25,
        "low": pytest.approx(0.0319, abs=1e-4),
        "high": pytest.approx(0.6509, abs=1e-4),
        "over": "exact",
    }


def test_the_page_shows_what_turned_wrong(report: RegressionReport, photos: Path) -> None:
    page = to_html(report, Pictures.open(photos), gate(report))
    assert 'alt="c.png: of class mug, now called jar"' in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert page.index("c.png: of class") < page.index("b.png</figcaption>")
    assert "<li>b.png: " in page
    assert "Pictures that cannot be shown" in page
    assert "NOT passed" in page
    assert "new: jar (0.800)" in page
    assert "http" not in page.replace("http-equiv", "")
    short = to_html(report, limit=1)
    assert "1 more are left out" in short
    assert "b.png" not in short
    assert "Pictures that cannot be shown" not in short
    assert "<img" not in short
    for none in (to_html(report, limit=0), to_markdown(report, limit=0)):
        assert "No picture turned wrong" not in none
        assert "all are in regressions.json" in none


def test_a_column_of_the_name_class_stands_beside_the_classes(files: tuple[Path, Path]) -> None:
    old, new = (read_predictions(path) for path in files)
    old = replace(old, columns={"class": old.columns["aisle"]})
    text = to_markdown(compare(old, new, ["class"]))
    assert text.count("## By class") == 2
    assert "| north | 3 |" in text
    assert "| mug | 2 |" in text


def test_a_page_without_flips_and_with_texts_that_are_markup() -> None:
    p = Predictions(["<b>"], ["<i>|"], ["<i>|"], source="<u>")
    page = to_html(compare(p, p))
    assert "No picture turned wrong" in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert "&lt;i&gt;" in page
    text = to_markdown(compare(p, p))
    assert "| <i>\\| | 1 |" in text


def test_a_missing_picture_is_listed(report: RegressionReport, photos: Path) -> None:
    (photos / "c.png").unlink()
    assert "<li>c.png: No such file or directory</li>" in to_html(report, Pictures.open(photos))
    assert Pictures.open(photos).thumbnails(["a\0.png"])[1] == {"a\0.png": "embedded null byte"}
    with pytest.raises(DataError, match="there is no dataset at"):
        Pictures.open(photos / "nowhere")


def test_markdown_and_left_out_groups(report: RegressionReport) -> None:
    text = to_markdown(report, gate(report), limit=1)
    assert "| NFR: turned wrong | 25.00 % | [3.19, 65.09] |" in text
    assert "Gate: **NOT passed**" in text
    assert "And 1 more, where the wrong answer was less sure" in text
    many = [f"c{i:02}" for i in range(25)]
    p = Predictions([str(i) for i in range(25)], many, many)
    assert "And 5 more, with no more negative flips than these." in to_markdown(compare(p, p))


def test_pictures_and_columns_of_a_dataset(shop: Dataset, shop_csv: Path) -> None:
    ids = [item.path for item in shop.queries]
    labels = [item.label for item in shop.queries]
    old = Predictions(ids, labels, labels, source="old")
    new = Predictions(ids, labels, ["none", *labels[1:]], source="new")
    report = compare(with_columns(old, shop), new, ["aisle"])
    assert sum(g.pictures for g in report.by_column["aisle"]) == len(ids)
    assert report.by_column["aisle"][0].negative == 1
    assert "data:image/jpeg" in to_html(report, Pictures.open(shop_csv))
    stranger = Predictions(["gone.png"], ["x"], ["x"], source="old")
    with pytest.raises(DataError, match=r"1 picture\(s\) of old are not in .*shop.csv: 'gone.png'"):
        with_columns(stranger, shop)
    assert set(with_columns(old, shop, ["aisle"]).columns) == {"aisle"}
    lone = compare(stranger, Predictions(["gone.png"], ["x"], ["y"]))
    assert "gone.png: not in" in to_html(lone, Pictures.open(shop_csv))


def test_all_three_files_are_written(report: RegressionReport, tmp_path: Path) -> None:
    write_report(report, tmp_path / "out", gate=gate(report))
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["regressions.html", "regressions.json", "regressions.md"]
    value = json.loads((tmp_path / "out" / "regressions.json").read_text())
    jsonschema.validate(value, SCHEMA)
    assert value["gate"]["passed"] is False
    named = replace(report, old=os.fsdecode(b"o\xff.csv"))
    write_report(named, tmp_path / "out")
    assert "From o\\udcff.csv to" in (tmp_path / "out" / "regressions.html").read_text()


# Command line


def test_the_command_and_its_gate(
    files: tuple[Path, Path], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(path) for path in files]
    assert run(["regressions", *paths, "--column", "aisle"]) == 0
    printed = capsys.readouterr().out
    assert "NFR: turned wrong\t25.00 %\t[3.19, 65.09]" in printed
    assert "north\t3\t0.00%\t66.67%\t2\t0" in printed
    out = tmp_path / "out"
    wide = ["--max-nfr", "0.7", "--max-error-increase", "0.2"]
    assert run(["regressions", *paths, "--gate", "--data", str(photos), "--out", str(out)]) == 1
    assert "gate NOT passed:\n  The upper end of NFR's interval, 65.09 %" in capsys.readouterr().out
    assert (out / "regressions.html").read_text().count("<img") == 1
    assert run(["regressions", *paths, "--gate", *wide]) == 0
    assert "gate passed:" in capsys.readouterr().out
    assert run(["regressions", *paths, *wide, "--gate", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    jsonschema.validate(value, SCHEMA)
    assert value["gate"]["passed"] is True


def test_the_command_takes_columns_from_the_manifest(
    shop: Dataset, shop_csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{i.path},{i.label},{i.label}\n" for i in shop.queries)
    (tmp_path / "p.csv").write_text("id,label,prediction\n" + rows)
    both = [str(tmp_path / "p.csv")] * 2
    assert run(["regressions", *both, "--data", str(shop_csv), "--column", "aisle"]) == 0
    assert "aisle\tpictures" in capsys.readouterr().out


def test_the_command_s_errors(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = map(str, files)
    assert run(["regressions", old, new, "--gate", "--max-nfr", "5"]) == 3
    assert run(["regressions", old, "gone.csv"]) == 3
    assert "gone.csv cannot be read" in capsys.readouterr().err
    assert run(["regressions", old, new, "--cost-ratio", "2"]) == 2
    assert "--cost-ratio belong to --update" in capsys.readouterr().err
    assert run(["regressions", old, new, "--out", old]) == 3
    assert f"samespace: {old}: File exists" in capsys.readouterr().err
    assert run(["regressions", old, new, "--seed", "-1"]) == 2
    assert run(["regressions", old]) == 2


def test_help_has_an_example_and_says_what_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["regressions", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert "--json" in text
    assert "UPPER end" in text


def test_the_package_s_door() -> None:
    names = regressions.__all__
    assert names == sorted(names, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    assert all(getattr(regressions, name).__doc__ for name in names)
