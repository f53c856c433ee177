"""A family of edge models in one space: taught by one cloud model, from one set of views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from samespace import Dataset, Report, verify
from samespace.verification import write_certificates, write_report
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.material import Progress
from samespace_cloud.teacher import Teacher, teacher_of
from samespace_cloud.teaching import prepare_teaching
from samespace_cloud.training import train_edge
from samespace_edge import ConfigError
from samespace_export import export_bundle

_OF_THE_VIEWS = (
    "views",
    "mixed_views",
    "canvas",
    "augmentation",
    "val_share",
    "augmentation_seed",
    "pool_views",
)
_GOLDEN = 3


def train_family(
    dataset: Dataset,
    members: Mapping[str, TrainConfig],
    cloud: Checkpoint | Teacher,
    folder: str | Path,
    *,
    gallery_aware: bool = False,
    pool: Dataset | None = None,
    ridge_head: bool = True,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Checkpoint]:
    """Train several edge models into a cloud model's space.

    The views are made, and the cloud model embeds them, once for all members. Each member is
    anchored in the cloud's space, so all are compatible with one another too: `certify_family`
    measures that.

    Args:
        dataset: its train part is used.
        members: names and how each is trained. They have to agree on everything that decides over
            the views.
        cloud: as for `train_edge`.
        folder: takes a checkpoint for each name; members that are there already are kept.
        gallery_aware, pool, ridge_head, progress: as for `train_edge`.
    """
    if not members:
        raise ConfigError("a family needs at least one member")
    first = next(iter(members.values()))
    for name, config in members.items():
        for setting in _OF_THE_VIEWS:
            if getattr(config, setting) != getattr(first, setting):
                raise ConfigError(
                    f"{name} has {setting} = {getattr(config, setting)!r}, another member "
                    f"{getattr(first, setting)!r}; a family shares its views"
                )
    folder = Path(folder)
    teacher = teacher_of(cloud)
    trained = {
        name: Checkpoint.load(folder / name)
        for name in members
        if (folder / name / "checkpoint.json").exists()
    }
    if missing := [name for name in members if name not in trained]:
        prepare_teaching(
            dataset,
            first,
            teacher,
            folder / missing[0],
            sizes=[members[name].model.input_size for name in missing],
            unlabelled=dataset.gallery if gallery_aware else (),
            pool=pool,
            progress=progress,
        )
    for name in missing:
        trained[name] = train_edge(
            dataset,
            members[name],
            teacher,
            folder / name,
            gallery_aware=gallery_aware,
            pool=pool,
            ridge_head=ridge_head,
            progress=progress,
        )
    for name, checkpoint in trained.items():
        if checkpoint.space != teacher.space or checkpoint.model.config != members[name].model:
            raise ConfigError(
                f"{folder / name} holds a model of another family, a "
                f"{checkpoint.model.config.architecture}; remove it or name another folder"
            )
    return {name: trained[name] for name in members}


def certify_family(
    dataset: Dataset,
    family: Mapping[str, Checkpoint],
    cloud: Checkpoint,
    folder: str | Path,
    *,
    baselines: Mapping[str, Checkpoint] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Report, dict[str, Path]]:
    """Export every member, and measure all pairs: each member with the cloud's gallery, and with
    every other member's.

    Args:
        family: checkpoints by name.
        cloud: whose space it is.
        folder: takes `NAME.bundle`, the report of all pairs, and the certificates.
        baselines: the same networks trained alone, by the names of members. Such a member is
            certified against its baseline, in a report of its own in `folder/NAME-report`; the
            others against themselves on both sides.

    Returns the report of all pairs, and the certificates' paths by member.
    """
    for name in baselines or {}:
        if name not in family:
            raise ConfigError(f"{name!r} has a baseline and is no member: {', '.join(family)}")
    folder = Path(folder)
    golden = [dataset.read(item) for item in dataset.gallery[:_GOLDEN]]
    bundles = {}
    for name, checkpoint in {**family, "cloud": cloud}.items():
        bundles[name] = folder / f"{name}.bundle"
        spec = checkpoint.export_spec(name)
        export_bundle(checkpoint.model, spec, bundles[name], golden=golden, overwrite=True)
    queries = [bundles[name] for name in family]
    report = verify(queries, [bundles["cloud"]], dataset, progress=progress)
    write_report(report, folder, dataset)
    certificates = write_certificates(report, folder)
    for name, alone in (baselines or {}).items():
        path = folder / f"{name}-alone.bundle"
        spec = alone.export_spec(f"{name}-alone")
        export_bundle(alone.model, spec, path, golden=golden, overwrite=True)
        own = verify([bundles[name]], [bundles["cloud"]], dataset, baseline=path, progress=progress)
        write_report(own, folder / f"{name}-report", dataset)
        found = write_certificates(own, folder / f"{name}-report")
        certificates.pop(name, None)
        certificates |= {name: found[name]} if name in found else {}
    return report, certificates


__all__ = ["certify_family", "train_family"]
