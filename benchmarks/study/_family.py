"""The family's matrix: every member in every other member's gallery, exported and certified."""

from __future__ import annotations

from typing import Any

from benchmarks.study._runs import Group, Run
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.family import certify_family

FAMILY_COLUMNS = {
    "query": "model that embeds the queries",
    "gallery": "model that embeds the gallery",
    "recall_at_1": "share of test queries whose first hit is right",
    "recall_at_1_ci": "95 % interval, cluster-robust over labels",
    "mmacs_query": "millions of multiply-accumulates for one query",
    "certified": "whether the query model got a certificate for the cloud's gallery",
}


def family_rows(
    group: Group, members: dict[str, Run], alone: dict[str, Run]
) -> list[dict[str, Any]]:
    """Export trained members and measure every pair on the group's first task.

    Args:
        members: runs by name; those that are not trained yet are left out.
        alone: the same networks trained by themselves, the baselines of their certificates.
    """
    found, baselines = _trained(group, members), _trained(group, alone)
    report, certified = certify_family(
        group.train_data,
        found,
        group.cloud,
        group.out / group.name / "family",
        baselines={name: baselines[name] for name in found if name in baselines},
    )
    return [
        {
            "query": cell.query,
            "gallery": cell.gallery,
            "recall_at_1": cell.estimates["recall_at_1"].value,
            "recall_at_1_ci": [
                cell.estimates["recall_at_1"].low,
                cell.estimates["recall_at_1"].high,
            ],
            "mmacs_query": report.model(cell.query).macs / 1e6,
            "certified": cell.query in certified,
        }
        for cell in report.matrix
    ]


def _trained(group: Group, runs: dict[str, Run]) -> dict[str, Checkpoint]:
    folders = {name: group.out / group.name / "edges" / run.safe for name, run in runs.items()}
    return {
        name: Checkpoint.load(folder)
        for name, folder in folders.items()
        if (folder / "checkpoint.json").exists()
    }
