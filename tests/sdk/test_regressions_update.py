"""Which answers to replace, where the truth is known because it was made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import samespace
from samespace.cli._root import run
from samespace.regressions import Predictions, choose, compare, read_predictions, write_predictions
from samespace.regressions._evidence import (
    Answers,
    Scores,
    fit_sharpness,
    fit_sure,
    fit_weights,
)
from samespace_edge import ConfigError, DataError

CLASSES = [f"c{i}" for i in range(6)]
Both = tuple[Predictions, Predictions]


def world(n: int, seed: int, classes: Sequence[str] = CLASSES) -> Both:
    """An old and a better new model, whose errors fall together more than by chance."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(classes), n)
    shared = 1.2 * rng.normal(size=(n, len(classes)))
    ids, labels = [f"{seed}-{i}" for i in range(n)], np.array(classes)[truth]
    made = []
    for name, strength, noise in (("old", 4.4, 1.6), ("new", 5.2, 1.4)):
        logits = strength * np.eye(len(classes))[truth] + shared
        logits += noise * rng.normal(size=logits.shape)
        made.append(Predictions.from_logits(ids, labels, logits, classes, source=name))
    return made[0], made[1]


def bare(both: Both, scores: bool = False) -> Both:
    """The same as answers, with or without scores."""
    old, new = (
        replace(p, probabilities=None, classes=None, scores=p.scores if scores else None)
        for p in both
    )
    return old, new


@pytest.fixture(scope="module")
def target() -> Both:
    return world(3000, 1)


@pytest.fixture(scope="module")
def validation() -> Both:
    return world(2000, 2)


@pytest.mark.parametrize("told", ["probabilities", "scores"])
@pytest.mark.parametrize("strategy", ["cost-ratio", "max-belief", "min-entropy"])
def test_fewer_flips_than_by_always_the_new_at_no_more_errors(
    target: Both, validation: Both, told: str, strategy: str
) -> None:
    always = compare(*target)
    if told == "scores":
        target, validation = bare(target, scores=True), bare(validation, scores=True)
    update = choose(*target, validation, strategy=strategy)
    chosen = compare(target[0], update.predictions)
    assert chosen.negative_rate.value < 0.5 * always.negative_rate.value
    assert chosen.error_new <= always.error_new
    # What was expected is what came, within three deviations.
    assert abs(len(chosen.negative) - update.expected_negative) < 3 * len(chosen.negative) ** 0.5
    assert abs(len(chosen.positive) - update.expected_positive) < 3 * len(chosen.positive) ** 0.5
    assert update.always_negative > update.expected_negative


@pytest.mark.parametrize("scores", [True, False])
def test_a_budget_of_flips_holds_with_many_classes(scores: bool) -> None:
    """One confusion seen by chance says little: a class has forty pictures, and fifty answers."""
    names = [f"c{i}" for i in range(50)]
    target, validation = bare(world(3000, 10, names), scores), bare(world(2000, 20, names), scores)
    for budget in (20, 60):
        update = choose(*target, validation, max_negative_flips=budget)
        chosen = compare(target[0], update.predictions)
        assert budget - 1 < update.expected_negative <= budget
        assert len(chosen.negative) < 2 * budget
        assert chosen.error_new < chosen.error_old


def test_answers_alone_help_where_classes_differ() -> None:
    """The new model cannot tell x from y and says y: its x and z are right, its y often is not."""
    rng = np.random.default_rng(3)

    def pictures(n: int, seed: str) -> Both:
        truth = rng.choice(["x", "y", "z"], n)
        old = np.where(rng.random(n) < 0.85, truth, rng.choice(["x", "y", "z"], n))
        new = np.where(truth == "x", rng.choice(["x", "y"], n), truth)
        ids = [f"{seed}{i}" for i in range(n)]
        return Predictions(ids, truth, old), Predictions(ids, truth, new)

    target = pictures(3000, "t")
    always, update = compare(*target), choose(*target, pictures(3000, "v"))
    chosen = compare(target[0], update.predictions)
    assert chosen.negative_rate.value < 0.1 * always.negative_rate.value
    assert chosen.error_new < always.error_new


def test_a_dearer_flip_makes_fewer_of_them(target: Both, validation: Both) -> None:
    found = [choose(*target, validation, cost_ratio=r) for r in (1, 2, 5, 20)]
    negative = [len(compare(target[0], u.predictions).negative) for u in found]
    assert negative == sorted(negative, reverse=True)
    assert negative[0] > 2 * negative[-1]
    assert set(found[1].replaced) < set(found[0].replaced)
    same = choose(*target, validation, strategy="max-belief")
    assert same.replaced == found[0].replaced


def test_budgets(target: Both, validation: Both) -> None:
    free = choose(*target, validation)
    few = choose(*target, validation, max_replaced=50)
    assert len(few.replaced) == 50
    assert set(few.replaced) < set(free.replaced)
    # The best go first.
    share = len(free.replaced) / 50
    assert few.expected_positive > 1.05 * free.expected_positive / share
    tight = choose(*target, validation, max_negative_flips=3)
    assert tight.expected_negative <= 3
    assert 50 < len(tight.replaced) < len(free.replaced)
    both = choose(*target, validation, max_negative_flips=3, max_replaced=10)
    assert len(both.replaced) == 10
    none = choose(*target, validation, max_replaced=0)
    assert none.replaced == ()
    np.testing.assert_array_equal(none.predictions.predicted, target[0].predicted)


def test_what_comes_back(target: Both, validation: Both) -> None:
    old, new = target
    update = choose(replace(old, labels=None), new, validation)
    p = update.predictions
    assert update.differing == int((old.predicted != new.predicted).sum())
    taken = np.isin(p.ids, update.replaced)
    np.testing.assert_array_equal(p.predicted, np.where(taken, new.predicted, old.predicted))
    np.testing.assert_array_equal(p.labels, new.labels)
    assert p.source == "old, updated by new"
    assert repr(update).startswith(f"Update({len(update.replaced)} of {update.differing} differing")
    report = compare(old, p)
    assert report.calibration_new is not None
    assert report.calibration_new.ece < 0.03  # scores are beliefs, and beliefs are right as often


def test_labels_of_the_target_are_not_looked_at(target: Both, validation: Both) -> None:
    blind = [replace(p, labels=None) for p in target]
    assert choose(*blind, validation).replaced == choose(*target, validation).replaced
    assert choose(*blind, validation).predictions.labels is None


def test_a_class_that_the_old_model_does_not_know() -> None:
    """Its pictures get the new model's answer, since the old one's cannot be right."""

    def without_last(p: Predictions) -> Predictions:
        assert p.probabilities is not None
        kept = p.probabilities[:, :-1]
        return Predictions.from_probabilities(
            p.ids, p.labels, kept / kept.sum(1, keepdims=True), CLASSES[:-1]
        )

    target, validation = world(1500, 4), world(1500, 5)
    old = without_last(target[0])
    update = choose(old, target[1], (without_last(validation[0]), validation[1]))
    report = compare(old, update.predictions)
    always = compare(old, target[1])
    assert report.new_classes is not None
    assert report.new_classes.error_new < 0.2
    assert report.error_new <= always.error_new
    assert report.negative_rate.value < 0.6 * always.negative_rate.value


def test_a_model_that_is_sure_of_classes_it_lacks() -> None:
    """It knows a quarter of the classes, and calls every picture one of them."""
    names = [f"c{i}" for i in range(20)]

    def pictures(n: int, seed: int) -> Both:
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 20, n)
        shown = 4.4 * np.eye(20)[truth] + 1.2 * rng.normal(size=(n, 20))
        old, new = (shown + noise * rng.normal(size=(n, 20)) for noise in (1.6, 1.4))
        ids, labels = [f"{seed}-{i}" for i in range(n)], np.array(names)[truth]
        narrow = Predictions.from_logits(ids, None, 4 * old[:, :5], names[:5])
        return replace(narrow, labels=labels), Predictions.from_logits(ids, labels, new, names)

    target = pictures(3000, 1)
    always = compare(*target)
    assert always.error_old > 0.75
    for known in (300, 3000):
        update = choose(*target, pictures(known, 2))
        chosen = compare(target[0], update.predictions)
        assert chosen.error_new < always.error_new
        assert chosen.negative_rate.value < 0.9 * always.negative_rate.value
    assert abs(len(chosen.negative) - update.expected_negative) < 3 * len(chosen.negative) ** 0.5


def test_confusions_by_hand() -> None:
    p = Predictions(list("abcd"), ["x", "x", "x", "y"], ["x", "x", "y", "y"])
    place, truth = {"x": 0, "y": 1}, np.array([0, 0, 0, 1])
    learnt = Answers.learn(p, truth, place)
    right = (3 + 1) / (4 + 2)
    np.testing.assert_allclose(learnt.mean, [[right, 1 - right], [1 - right, right]])
    learnt = replace(learnt, smoothing=5.0)
    expected = np.log([(2 + 5 * right) / (3 + 5), (0 + 5 * (1 - right)) / (1 + 5)])
    np.testing.assert_allclose(learnt(p)[0], expected)
    own = [np.log((1 + 5 * right) / (2 + 5)), expected[1]]
    np.testing.assert_allclose(learnt(p, truth)[0], own)


def test_scores_by_hand() -> None:
    p = Predictions(list("abcd"), list("xxyz"), list("xxxx"), scores=[0.5] * 4)
    place, truth = {"x": 0, "y": 1, "z": 2}, np.array([0, 0, 1, 2])
    prior = np.array([0.5, 0.25, 0.25])
    learnt = Scores.learn(p, truth, place, prior)
    learnt = replace(learnt, slope=1.0, offset=0.0, smoothing=5.0)
    others = (1 + 5 * 0.5) / (2 + 5)
    np.testing.assert_allclose(
        learnt(p)[0], np.log([0.5, 0.5 * others, 0.5 * others]) - np.log(prior)
    )


@pytest.mark.parametrize(("confusions", "smoothing"), [("its own", 1), ("any", 4096)])
def test_how_far_confusions_are_believed_is_learnt(confusions: str, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 10, 4000)
    wrong = (truth + 1) % 10 if confusions == "its own" else rng.integers(0, 10, len(truth))
    answers = np.where(rng.random(len(truth)) < 0.7, truth, wrong)
    p = Predictions(np.arange(len(truth)), truth, answers)  # type: ignore[arg-type]
    place = {str(i): i for i in range(10)}
    assert Answers.learn(p, truth, place).smoothing == smoothing
    scored = replace(p, scores=np.full(len(truth), 0.7))
    assert Scores.learn(scored, truth, place, np.full(10, 0.1)).smoothing == smoothing


def test_sharpness_brings_back_what_was_blunted() -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(20_000, 4))
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    assert fit_sharpness(logits / 3, truth) == pytest.approx(3, rel=0.05)
    assert fit_sharpness(3 * logits, truth) == pytest.approx(1 / 3, rel=0.05)


def test_how_often_sure_answers_are_right_is_learnt() -> None:
    rng = np.random.default_rng(0)
    x = 2 + 2 * rng.normal(size=20_000)
    right = rng.random(len(x)) < 1 / (1 + np.exp(-(0.5 * x - 2)))
    assert right.mean() < 0.35
    assert fit_sure(x, right) == pytest.approx((0.5, -2), rel=0.1)
    # Of few, all right: not certain. Where surer answers are less often right, scores say nothing.
    slope, offset = fit_sure(np.full(3, 4.0), np.ones(3, np.bool_))
    assert 1 / (1 + np.exp(-slope * 4 - offset)) == pytest.approx(4 / 5, abs=0.01)
    slope, offset = fit_sure(-x, right)
    assert slope == 0
    assert 1 / (1 + np.exp(-offset)) == pytest.approx(right.mean(), abs=0.001)


def test_weights_are_the_likeliest_within_their_bounds() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, 5))
    base = np.log([0.3, 0.3, 0.2, 0.1, 0.1])
    truth = (base + 0.7 * a + 0.2 * b + rng.gumbel(size=a.shape)).argmax(1)
    found = fit_weights([a, b], truth, [0, 0], [1, 1], base)
    assert found == pytest.approx([0.7, 0.2], abs=0.03)
    assert fit_weights([3 * a, -b], truth, [0.5, 0], [1, 1], base) == pytest.approx([0.5, 0])
    assert fit_weights([0 * a], truth, [0], [1], base) == pytest.approx([1])


def test_models_that_agree_on_everything(target: Both, validation: Both) -> None:
    old, known = target[0], validation[0]
    update = choose(old, old, (known, known))
    assert (update.differing, update.replaced, update.expected_negative) == (0, (), 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "luck"}, "there is no strategy 'luck'; there are cost-ratio, max-belief"),
        ({"cost_ratio": 0}, "the cost ratio is a number above 0, such as 2, not 0"),
        ({"cost_ratio": float("nan")}, "not nan"),
        ({"strategy": "max-belief", "cost_ratio": 2}, "max-belief knows no costs; leave the ratio"),
        ({"max_replaced": -1}, "max_replaced is a number from 0 up, not -1"),
        ({"max_negative_flips": -0.5}, "max_negative_flips is a number from 0 up, not -0.5"),
    ],
)
def test_settings_that_cannot_be(
    validation: Both, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(*validation, validation, **settings)  # type: ignore[arg-type]


def test_validation_needs_labels(target: Both, validation: Both) -> None:
    old, new = (replace(p, labels=None) for p in validation)
    with pytest.raises(DataError, match="neither old nor new has labels"):
        choose(*target, (old, new))


def test_validation_has_to_be_of_other_pictures(target: Both, validation: Both) -> None:
    with pytest.raises(DataError, match=r"3000 picture\(s\) that are to be decided are in old and"):
        choose(*target, target)


def test_validation_has_to_be_of_the_same_classes(target: Both, validation: Both) -> None:
    numbers = [
        replace(p, labels=None, predicted=np.char.replace(p.predicted, "c", ""))
        for p in bare(target)
    ]
    with pytest.raises(DataError, match=r"old answers '0', '1', .* only 'c0', 'c1'.*name classes"):
        choose(*numbers, bare(validation))


@pytest.fixture
def written(tmp_path: Path, target: Both, validation: Both) -> list[str]:
    """OLD, NEW, VALIDATION_OLD, VALIDATION_NEW, and OLD and NEW without labels."""
    blind = [replace(p, labels=None) for p in target]
    names = ["old.npz", "new.npz", "val-old.npz", "val-new.npz", "o.csv", "n.csv"]
    for name, p in zip(names, (*target, *validation, *blind), strict=True):
        write_predictions(p, tmp_path / name)
    return [str(tmp_path / name) for name in names]


def test_the_command(
    written: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new, *val, blind_old, blind_new = written
    chosen = tmp_path / "chosen.csv"
    update = ["--update", *val, "--cost-ratio", "2"]
    assert run(["regressions", old, new, *update, "--write", str(chosen)]) == 0
    printed = capsys.readouterr().out
    assert "differing answers are replaced" in printed
    assert "NFR: turned wrong" in printed
    assert len(read_predictions(chosen)) == 3000
    assert run(["regressions", old, new, "--gate", "--max-nfr", "0.02"]) == 1
    assert run(["regressions", old, new, *update, "--gate", "--max-nfr", "0.02"]) == 0
    capsys.readouterr()

    assert run(["regressions", old, new, *update, "--max-replaced", "5", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    schema = Path(samespace.__file__).parent / "schemas" / "regressions.schema.json"
    jsonschema.validate(value, json.loads(schema.read_text()))
    assert len(value["update"]["replaced"]) == 5

    assert run(["regressions", blind_old, blind_new, *update, "--write", str(chosen)]) == 0
    assert "NFR" not in capsys.readouterr().out
    assert read_predictions(chosen, labelled=False).labels is None
    assert run(["regressions", blind_old, blind_new, *update, "--gate"]) == 2
    assert "--gate, --out and --column need labels" in capsys.readouterr().err
