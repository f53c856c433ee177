"""`samespace regressions`: what a new classifier gets wrong that the old one had right."""

from __future__ import annotations

from pathlib import Path

import click

from samespace.cli import EXIT_NO
from samespace.cli._output import json_option, print_json, print_table
from samespace.regressions import (
    STRATEGIES,
    Gate,
    Group,
    Pictures,
    Predictions,
    RegressionReport,
    Update,
    choose,
    compare,
    gate,
    read_predictions,
    verdict,
    with_columns,
    write_predictions,
    write_report,
)
from samespace.regressions._render import LIMIT, figures, report_json

_GROUPS = 10


@click.command("regressions")
@click.argument("old")
@click.argument("new")
@click.option(
    "--data", help="Dataset whose paths are the ids, or folder they are in: pictures and columns."
)
@click.option(
    "--column", "columns", multiple=True, help="Also tell errors by this column; may be repeated."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for JSON, Markdown and HTML.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=LIMIT,
    show_default=True,
    help="How many pictures that turned wrong the page shows.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap."
)
@click.option("--gate", "gated", is_flag=True, help="Exit with 1 unless both limits hold.")
@click.option(
    "--max-nfr",
    type=float,
    default=0.01,
    show_default=True,
    help="Limit of NFR, as a share. The UPPER end of its interval counts, not what was measured.",
)
@click.option(
    "--max-error-increase",
    type=float,
    default=0.0,
    show_default=True,
    help="Limit of the measured ER_new - ER_old, as a share.",
)
@click.option(
    "--update",
    "validation",
    nargs=2,
    metavar="VALIDATION_OLD VALIDATION_NEW",
    help="Do not take every new answer: decide by what these, with labels, teach of both models.",
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="cost-ratio",
    show_default=True,
    help="Of --update.",
)
@click.option(
    "--cost-ratio",
    type=float,
    default=1.0,
    show_default=True,
    help="Of --update: what an answer that turns wrong costs, over what one that turns right is "
    "worth.",
)
@click.option("--max-replaced", type=int, help="Of --update: replace at most so many answers.")
@click.option(
    "--max-negative-flips", type=float, help="Of --update: only while so many flips are expected."
)
@click.option(
    "--write", type=click.Path(path_type=Path), help="Of --update: the chosen answers, as CSV."
)
@json_option
def regressions(
    old: str,
    new: str,
    data: str | None,
    columns: tuple[str, ...],
    out: Path | None,
    limit: int,
    seed: int,
    gated: bool,
    max_nfr: float,
    max_error_increase: float,
    validation: tuple[str, str] | None,
    strategy: str,
    cost_ratio: float,
    max_replaced: int | None,
    max_negative_flips: float | None,
    write: Path | None,
    as_json: bool,
) -> int:
    """Compare the predictions of an old and of a new classifier, OLD and NEW.

    Both are CSV files with the header id,label,prediction[,score], or npz files with ids, labels,
    classes, and logits or probabilities.

    \b
    Example, in a release pipeline:
      samespace regressions old.csv new.csv --data photos --out report --gate --max-nfr 0.01
    The gate goes by the UPPER end of NFR's interval: few pictures do not pass it, even without a
    flip. With 0 flips, --max-nfr 0.01 needs 368 pictures.
    Keep old answers where the new ones are not worth it; OLD and NEW then need no labels. Where
    they have them, all figures, and the gate, are those of the chosen answers:
      samespace regressions old.csv new.csv --update val-old.csv val-new.csv --cost-ratio 2 \\
        --write chosen.csv
    """
    _check_usage(validation, strategy, cost_ratio, max_replaced, max_negative_flips, write)
    labelled = validation is None
    before, after = (read_predictions(path, labelled=labelled) for path in (old, new))
    update = None
    if validation is not None:
        update = choose(
            before,
            after,
            (read_predictions(validation[0]), read_predictions(validation[1])),
            strategy=strategy,
            cost_ratio=cost_ratio,
            max_replaced=max_replaced,
            max_negative_flips=max_negative_flips,
        )
        if write is not None:
            write_predictions(update.predictions, write)
        after = update.predictions
    report, judged = None, None
    if after.labels is not None or before.labels is not None:
        pictures = None if data is None else Pictures.open(data)
        before = _with_columns(before, pictures, columns)
        report = compare(before, after, columns, seed)
        judged = gate(report, max_nfr, max_error_increase) if gated else None
        if out is not None:
            write_report(report, out, pictures, judged, limit)
    elif gated or out is not None or columns:
        raise click.UsageError(
            "--gate, --out and --column need labels, and neither OLD nor NEW has any"
        )
    if as_json:
        print_json(_json(report, judged, update))
    else:
        _print(report, judged, update, write, out)
    return EXIT_NO if judged is not None and not judged.passed else 0


def _check_usage(
    validation: tuple[str, str] | None,
    strategy: str,
    cost_ratio: float,
    max_replaced: int | None,
    max_negative_flips: float | None,
    write: Path | None,
) -> None:
    used = {
        "--strategy": strategy != "cost-ratio",
        "--cost-ratio": cost_ratio != 1,
        "--max-replaced": max_replaced is not None,
        "--max-negative-flips": max_negative_flips is not None,
        "--write": write is not None,
    }
    given = [name for name, value in used.items() if value]
    if validation is None and given:
        raise click.UsageError(
            f"{', '.join(given)} belong to --update VALIDATION_OLD VALIDATION_NEW"
        )


def _with_columns(
    predictions: Predictions, pictures: Pictures | None, columns: tuple[str, ...]
) -> Predictions:
    """The manifest's columns are only looked for where some are asked for."""
    if not columns or pictures is None or pictures.dataset is None:
        return predictions
    return with_columns(predictions, pictures.dataset, columns)


def _json(
    report: RegressionReport | None, judged: Gate | None, update: Update | None
) -> dict[str, object]:
    value: dict[str, object] = {} if report is None else report_json(report, judged)
    return value if update is None else {**value, "update": update.to_json()}


def _print(
    report: RegressionReport | None,
    judged: Gate | None,
    update: Update | None,
    write: Path | None,
    out: Path | None,
) -> None:
    if update is not None:
        click.echo(
            f"{len(update.replaced):,} of {update.differing:,} differing answers are replaced. Of "
            f"these, {update.expected_negative:.1f} are expected to turn wrong and "
            f"{update.expected_positive:.1f} right; of all {update.differing:,}, "
            f"{update.always_negative:.1f} and {update.always_positive:.1f}."
        )
    if report is not None:
        print_table(["figure", "value", "95 % interval"], figures(report))
        for name, groups in report.by_column.items():
            _print_groups(name, groups)
        for note in report.notes:
            click.echo(note)
        click.echo(verdict(report))
    if judged is not None:
        click.echo(f"gate {'passed' if judged.passed else 'NOT passed'}:")
        for sentence in judged.sentences:
            click.echo(f"  {sentence}")
    for what, path in (("predictions", write), ("report", out and out / "regressions.html")):
        if path:
            click.echo(f"{what}: {path}")


def _print_groups(name: str, groups: tuple[Group, ...]) -> None:
    print_table(
        [name, "pictures", "error, old", "error, new", "turned wrong", "turned right"],
        [
            (
                g.value,
                g.pictures,
                f"{g.error_old:.2%}",
                f"{g.error_new:.2%}",
                g.negative,
                g.positive,
            )
            for g in groups[:_GROUPS]
        ],
        f"by {name}",
    )
    if len(groups) > _GROUPS:
        click.echo(f"and {len(groups) - _GROUPS:,} more, with no more that turned wrong")
