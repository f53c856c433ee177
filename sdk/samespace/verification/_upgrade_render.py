"""An upgrade in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from samespace.verification._matrix import UPGRADE, Criterion, Estimate
from samespace.verification._report import Report
from samespace.verification._upgrade import Curve, Joint, UpgradeSection

DIRECTIONS = {"better": "more", "worse": "less", "unclear": "no clear change"}
"""How a report calls the directions of a change."""

_RELATIVE = (
    "Relative NFR: the share of queries that turn wrong, over what it would be if both galleries "
    "erred independently of one another (PCT, Yan et al. 2021)."
)
_RESTORING = (
    "FAR and TAR are the shares of the wrong and of the right pairs that pass it. The last columns "
    "are for who sets it anew: the threshold at which no more wrong pairs pass than the old "
    "model's own did."
)
_ORDERS = (
    "R@1 by the share of the items. Random: by chance. Uncertain: items between two classes first. "
    "Farthest: items far from their class first. Classes are the dataset's labels; where a gallery "
    "has none, k-means centres stand for them. The area is the mean over the shares. NFR is told "
    "from before the upgrade, when the new model's queries were the old one's; its largest value "
    "is shown."
)


def upgrade_context(report: Report) -> dict[str, Any]:
    """What the templates need to tell upgrades."""
    return {
        "upgrade_sentences": [list(_sentences(u, report)) for u in report.upgrades or ()],
        "directions": DIRECTIONS,
        "relative": _RELATIVE,
        "restoring": _RESTORING,
        "orders": _ORDERS,
        "thresholds": _set_at(report),
    }


def losers_sentence(upgrade: UpgradeSection) -> str:
    """Who finds less once the items are the new model's; empty where nobody clearly does."""
    lost = [
        f"{c.query} ({_signed(c.difference)})" for c in upgrade.changes if c.direction == "worse"
    ]
    if not lost:
        return ""
    return f"In a gallery of {upgrade.new} instead of {upgrade.old} less is found by {_list(lost)}."


def _sentences(upgrade: UpgradeSection, report: Report) -> list[str]:
    old, new = upgrade.old, upgrade.new
    said = []
    rule = (
        f"The rule of an upgrade: in the gallery as it is, the new model has to find more than "
        f"the old one, M({new}, {old}) > M({old}, {old}) beyond the interval of the difference "
        "(BCT, Shen et al. 2020)."
    )
    criterion = _criterion(upgrade, report)
    if criterion is None:
        said.append(f"{rule} {new} was not named as a query model, so it was not judged by it.")
    else:
        c = criterion
        holds = "It holds" if c.holds else "It does NOT hold"
        said.append(
            f"{rule} {holds}: {c.value:.3f} against {c.reference_value:.3f}, a difference of "
            f"{_signed(c.difference)}."
        )
        said.append(_gain(c, report))
    if upgrade.tax is not None:
        alone = report.cell(*2 * (str(upgrade.paragon),)).estimates["recall_at_1"].value
        gain = (
            "which is nothing over the old model"
            if upgrade.paragon_gain is None
            else f"towards which the update gain is {upgrade.paragon_gain:.2f}"
        )
        said.append(
            f"{upgrade.paragon}, trained alone, has {alone:.3f} on both sides, {gain}. What "
            f"compatibility does to {new} on both sides: {_signed(upgrade.tax)}."
        )
    better = [c.query for c in upgrade.changes if c.direction == "better"]
    unclear = [c.query for c in upgrade.changes if c.direction == "unclear"]
    parts = [losers_sentence(upgrade) or f"Nobody clearly finds less in a gallery of {new}."]
    if better:
        parts.append(f"More is found by {_list(better)}.")
    if unclear:
        parts.append(f"No clear change for {_list(unclear)}.")
    said.append(" ".join(parts))
    said += [_joint_sentence(j, upgrade) for j in upgrade.joint]
    if low := [text for c in upgrade.curves if (text := _lowest(c))]:
        said.append(
            f"On the way, with a part of the items by either model, less is found than at both "
            f"ends by {_list(low)}."
        )
    return said


def _joint_sentence(joint: Joint, upgrade: UpgradeSection) -> str:
    return (
        f"Asked with both models at once (the mean of their vectors), the gallery of "
        f"{joint.gallery} gives {joint.value:.3f}, {_signed(joint.difference)} to {upgrade.new} "
        f"alone, and {100 * joint.negative_rate:.1f} % of the queries turn wrong since "
        f"{upgrade.old} on both sides, instead of {100 * joint.alone_rate:.1f} %."
    )


def _lowest(curve: Curve) -> str:
    """Where a curve of the order `random` is lowest, if that is neither of its ends."""
    recall = curve.recall_at_1
    at = min(range(len(recall)), key=recall.__getitem__)
    if curve.order != "random" or recall[at] >= min(recall[0], recall[-1]):
        return ""
    return f"{curve.query} (R@1 {recall[at]:.3f} at {100 * curve.shares[at]:g} %)"


def _gain(criterion: Criterion, report: Report) -> str:
    c = criterion
    full = report.cell(c.query, c.query).estimates["recall_at_1"].value
    if c.gain is None:
        return (
            f"Embedding every item anew would bring nothing over the old model: M({c.query}, "
            f"{c.query}) = {full:.3f}."
        )
    if c.gain < 0:
        return (
            f"The update gain is {c.gain:.2f}, of the advantage that M({c.query}, {c.query}) = "
            f"{full:.3f} has over the old model: before any item is embedded anew, less is found."
        )
    return (
        f"The update gain is {c.gain:.2f}: of what embedding every item anew would bring, "
        f"M({c.query}, {c.query}) = {full:.3f}, that share is had while none is."
    )


def _criterion(upgrade: UpgradeSection, report: Report) -> Criterion | None:
    for c in report.criteria:
        if c.rule == UPGRADE and (c.query, c.gallery) == (upgrade.new, upgrade.old):
            return c
    return None


def _set_at(report: Report) -> Mapping[str, str]:
    """Where the thresholds of a report come from, for its texts and for its plots."""
    if report.threshold is None:
        return {
            "text": "A threshold that lets 1 % of the wrong pairs through for the gallery model's "
            "own queries, and what another model's queries meet there.",
            "plot": "threshold at FAR 1 %",
            "origin": "which is FAR 1 % for the queries of",
        }
    return {
        "text": f"The threshold of {report.threshold:g} that was given: what the gallery model's "
        "own queries, and what another model's meet there.",
        "plot": f"threshold {report.threshold:g}",
        "origin": "which was given, in use with",
    }


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
