"""Several query tables in one figure, one csv, and a table of who is best at equal cost.

    mutual3d compare ours=out/query_table.json alone=alone/query_table.json --output comparison
    mutual3d compare ours=out/query_table.json --point "Slow 8x8" 54.5 74.8 --output comparison

It writes comparison.png and comparison.csv. Exit status: 0, or 1 where the tables cannot be compared.
"""

import argparse
from pathlib import Path

from mutual3d.deploy.adaptive_model import load
from mutual3d.report.comparison import Comparison, ReferencePoint
from mutual3d.table.query_table import MEASURE_AGAIN, QueryTable
from mutual3d.utils.command_line import command_parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("compare", __doc__)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE", help="a name and a query_table.json, or the adaptive.pyth of a run")
    parser.add_argument("--point", nargs=3, action="append", default=[], metavar=("NAME", "COST", "ACCURACY"),
                        help="a published network: its cost in the unit of the comparison, its accuracy in per cent")  # fmt: skip
    parser.add_argument("--cost", help="compare by this cost of the tables, such as parameters (default gflops)")
    parser.add_argument("--latency", metavar="DEVICE", help="compare by latency on this key of the tables, or by --cost on it")
    parser.add_argument("--any-conditions", action="store_true", help="compare other splits, views, numbers of videos or metrics all the same")
    parser.add_argument("--output", default="comparison", help="where .png and .csv are written (default: comparison)")
    return parser.parse_args(arguments)


def read_tables(words: list[str]) -> dict[str, QueryTable]:
    """{name: table} of words `name=path`; ValueError for another form and for a name that stands twice."""
    tables: dict[str, QueryTable] = {}
    for word in words:
        name, found, path = word.partition("=")
        if not found or not name or not path:
            raise ValueError(f"'{word}' is not NAME=TABLE, as in ours=out/query_table.json")
        if name in tables:
            raise ValueError(f"the name '{name}' stands twice: give each table one of its own")
        tables[name] = read_table(path)
    return tables


def read_table(path: str) -> QueryTable:
    """The table in a query_table.json, or in the bundle of a run; ValueError for a bundle that holds none."""
    if Path(path).suffix != ".pyth":
        return QueryTable.load(path)
    table = load(path).table
    if table is None:
        raise ValueError(f"'{path}' holds no query table: {MEASURE_AGAIN}")
    return table


def read_point(words: list[str]) -> ReferencePoint:
    """A `ReferencePoint` of three words; ValueError where the last two are no sensible numbers."""
    name, *numbers = words
    try:
        cost, accuracy = map(float, numbers)
    except ValueError:
        raise ValueError(f"--point {' '.join(words)}: after the name come two numbers, cost and accuracy") from None
    if not 0 < cost < float("inf") or not 0 <= accuracy <= 100:
        raise ValueError(f"--point {' '.join(words)}: the cost must be above 0 and the accuracy from 0 to 100 per cent")
    return ReferencePoint(name, cost, accuracy)


def main(arguments: list[str] | None = None) -> None:
    """Run the command with these words, by default those of the command line."""
    options = parse(arguments)
    comparison = Comparison(
        read_tables(options.tables), points=[read_point(words) for words in options.point],
        cost=options.cost or ("latency_ms" if options.latency else "gflops"), device=options.latency,
        any_conditions=options.any_conditions,
    )  # fmt: skip
    output = Path(options.output)
    comparison.save_csv(output.with_name(f"{output.name}.csv"))
    comparison.save_plot(output.with_name(f"{output.name}.png"))
    print(comparison.format())
    print(f"written: {output}.png, {output}.csv")
