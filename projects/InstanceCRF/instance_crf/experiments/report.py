"""Results of several seeds as Markdown: tables, orders of rows, wins of a row over others.

Numbers are means over the seeds ± half their range; differences are paired by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .results import (
    Column,
    Results,
    Summary,
    changes,
    differences,
    row_seeds,
    shares_won_back,
    summarize,
    values,
)

__all__ = ["Table", "changed", "ordering", "provenance", "render", "wins", "won_back"]

_NONE = "–"


@dataclass(frozen=True)
class Table:
    """What a table shows.

    Attributes:
        title: the heading above it.
        rows: names of rows, in their order; or group -> names, where rows have groups.
        columns: what is shown of each.
        published: row -> heading -> the number that others published for it, shown beside; of data
            sets that they had, too. Such a row may be one that was never run here.
        reference: the row that a second table has the differences to; None: there is none.
        unranked: rows that are never a column's best: those that are given some of the truth.
        caption: a paragraph below the title.

    Raises:
        ValueError: a row or a heading that comes twice; published numbers of a row or a heading
            that the table does not have.
    """

    title: str
    rows: Sequence[str] | Mapping[str, Sequence[str]]
    columns: Sequence[Column]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reference: str | None = None
    unranked: Sequence[str] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        headings = [column.heading for column in self.columns]
        published = [heading for numbers in self.published.values() for heading in numbers]
        for kind, names, used in (
            ("row", self.names, self.published),
            ("column", headings, published),
        ):
            twice = [name for name in names if names.count(name) > 1]
            unknown = [name for name in used if name not in names]
            if twice:
                raise ValueError(f"Table {self.title!r} has the {kind} {twice[0]!r} twice.")
            if unknown:
                raise ValueError(
                    f"Table {self.title!r} has a published number of the {kind} {unknown[0]!r}, "
                    f"but only the {kind}s {', '.join(names)}."
                )

    @property
    def names(self) -> list[str]:
        """The rows, without their groups."""
        return [name for _, names in self.groups() for name in names]

    def groups(self) -> Iterator[tuple[str, Sequence[str]]]:
        """(group, rows) in their order; the group is empty where rows have none."""
        yield from self.rows.items() if isinstance(self.rows, Mapping) else [("", self.rows)]


def render(table: Table, results: Results) -> str:
    """The table as Markdown, and below it, with a ``reference``, the differences to that row.

    The best of a column is bold, among the rows that have all seeds. Rows and numbers of fewer
    seeds say so.
    """
    blocks = [f"### {table.title}", table.caption, _values(table, results)]
    if table.reference is not None:
        blocks.append(_differences(table, results))
    return "\n\n".join(block for block in blocks if block) + "\n"


def ordering(results: Results, rows: Sequence[str], column: Column) -> str:
    """For each two neighbours of ``rows``, the worst first, whether the later one is better.

    A line each: the paired difference, and "yes" if it is above 0 by more than its spread.
    """
    lines = []
    for worse, better in zip(rows[:-1], rows[1:], strict=True):
        paired = differences(results, better, worse, column)
        lines.append(f"* {worse} < {better}: {_judged(paired, len(results))}")
    return "\n".join(lines)


def wins(results: Results, row: str, others: Sequence[str], columns: Sequence[Column]) -> str:
    """A table: by how much ``row`` is above each of ``others``, and whether by more than the
    spread."""
    lines = [[f"{row} over", *(column.heading for column in columns)]]
    for other in others:
        paired = [differences(results, row, other, column) for column in columns]
        lines.append([other, *(_judged(one, len(results)) for one in paired)])
    return _markdown(lines)


def won_back(results: Results, rows: Sequence[str], box: str, column: Column, shrunk: str) -> str:
    """A table: what each row has in ``column``, what with shrunk boxes, and the share that it wins
    back of ``box``'s loss; see :func:`.results.shares_won_back`."""
    there = column._replace(condition=shrunk)
    lines = [[column.heading, column.condition, shrunk, f"of what {box} loses, %"]]
    for row in (box, *(row for row in rows if row != box)):
        cells = [_cell(summarize(values(results, row, c)), len(results)) for c in (column, there)]
        shares = shares_won_back(results, row, box, column, shrunk) if row != box else {}
        lines.append([row, *cells, _cell(summarize(shares), len(results))])
    return _markdown(lines)


def changed(results: Results, rows: Sequence[str], column: Column, condition: str) -> str:
    """A line a row: what ``condition`` does to its number; see :func:`.results.changes`."""
    found = {row: summarize(changes(results, row, column, condition)) for row in rows}
    return "\n".join(
        f"* {row}: {_cell(summary, len(results), '+')}" for row, summary in found.items() if summary
    )


def provenance(results: Results) -> str:
    """A line a way of making: seeds, budget, machine, versions, dates; the hours of training; and
    a table: of each stage its iterations, and the minutes of training from the first stage on."""
    ways: dict[str, list[str]] = {}
    for seed, content in results.items():
        made = content["made"]
        packages = dict.fromkeys(name for each in made for name in each["versions"])
        versions = [f"{name} {_each(m['versions'].get(name) for m in made)}" for name in packages]
        way = f"{content['budget']} minutes, {_each(m['machine'] for m in made)}, "
        way += f"{_each(m['threads'] for m in made)} thread(s); {', '.join(versions)}"
        ways.setdefault(way, []).append(f"{seed} ({_each(m['date'] for m in made)})")
    lines = [f"* Seeds {', '.join(seeds)}: {way}" for way, seeds in ways.items()]
    hours = sum(content["hours"] for content in results.values())
    lines.append(f"* {hours:.1f} hours of training in all")
    table = [["stage", "iterations", "minutes by plan, from the first stage", "by the clock"]]
    for stage in dict.fromkeys(s for content in results.values() for s in content["minutes"]):
        found = {
            key: sorted({of[key][stage] for of in results.values() if stage in of[key]})
            for key in ("iterations", "minutes", "minutes_by_clock")
        }
        plan, clock = ([f"{m:.1f}" for m in found[key]] for key in ("minutes", "minutes_by_clock"))
        span = " to ".join(dict.fromkeys((clock[0], clock[-1])))
        table.append([stage, _each(found["iterations"]), _each(plan), span])
    return "\n".join(lines) + "\n\n" + _markdown(table)


def _each(values: Iterable[object]) -> str:
    """Those that differ, in their order."""
    return " and ".join(dict.fromkeys(str(value) for value in values))


def _values(table: Table, results: Results) -> str:
    found = {
        (name, column): summarize(values(results, name, column))
        for name in table.names
        for column in table.columns
    }
    ranked = [name for name in table.names if name not in table.unranked]
    head, best = [""], {}
    for column in table.columns:
        head.append(column.heading)
        if _is_published(table, column):
            head.append("published")
        best[column] = _best([found[name, column] for name in ranked], len(results))

    def cells_of(name: str) -> Iterator[str]:
        seeds = len(row_seeds(results, name))
        for column in table.columns:
            summary = found[name, column]
            cell = _cell(summary, seeds)
            bold = name in ranked and summary is not None and summary.seeds == len(results)
            yield f"**{cell}**" if bold and round(summary.mean, 1) == best[column] else cell
            if _is_published(table, column):
                number = table.published.get(name, {}).get(column.heading)
                yield _NONE if number is None else f"{number:.1f}"

    return _grouped(table, results, head, {name: list(cells_of(name)) for name in table.names})


def _differences(table: Table, results: Results) -> str:
    reference = table.reference
    cells = {}
    for name in table.names:
        seeds = set(row_seeds(results, name)) & set(row_seeds(results, reference))
        if name != reference and seeds:
            cells[name] = [
                _cell(summarize(differences(results, name, reference, column)), len(seeds), "+")
                for column in table.columns
            ]
    head = [f"over {reference}", *(column.heading for column in table.columns)]
    return _grouped(table, results, head, cells, reference)


def _grouped(
    table: Table,
    results: Results,
    head: list[str],
    cells: Mapping[str, list[str]],
    reference: str | None = None,
) -> str:
    """The rows that have ``cells``, each group below its name; fewer seeds are said."""
    lines = [head]
    for group, names in table.groups():
        names = [name for name in names if name in cells]
        if group and names:
            lines.append([f"*{group}*", *[""] * (len(head) - 1)])
        for name in names:
            seeds = set(row_seeds(results, name))
            if reference is not None:
                seeds &= set(row_seeds(results, reference))
            foreign = not seeds and name in table.published
            note = "" if foreign or len(seeds) == len(results) else _of_seeds(len(seeds), results)
            lines.append([name + note, *cells[name]])
    return _markdown(lines)


def _of_seeds(seeds: int, results: Results) -> str:
    return f" ({seeds} of {len(results)} seeds)"


def _is_published(table: Table, column: Column) -> bool:
    return any(column.heading in numbers for numbers in table.published.values())


def _best(column: Sequence[Summary | None], num_seeds: int) -> float | None:
    """The highest mean as it is printed, of two or more that have all seeds."""
    means = [s.mean for s in column if s is not None and s.seeds == num_seeds]
    return round(max(means), 1) if len(means) > 1 else None


def _cell(summary: Summary | None, num_seeds: int, sign: str = "") -> str:
    """Mean ± spread, and how many of ``num_seeds`` there are where they are fewer."""
    if summary is None:
        return _NONE
    text = f"{summary.mean:{sign}.1f}"
    if summary.seeds > 1:
        text += f" ± {summary.spread:.1f}"
    return text + (f" ({summary.seeds} of {num_seeds})" if summary.seeds < num_seeds else "")


def _judged(paired: Mapping[int, float], num_seeds: int) -> str:
    summary = summarize(paired)
    return _NONE if summary is None else f"{_cell(summary, num_seeds, '+')}, {summary.verdict}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table; the first line is its head."""
    rows = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]])
