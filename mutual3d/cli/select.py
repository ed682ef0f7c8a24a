"""Which configuration to run at a budget: asks a query table.

    python tools/select_config.py --table out/query_table.json --gflops 2.0
    python tools/select_config.py --table out/query_table.json --latency-ms 40 --device cpu-fp32-b1-t2 --json
    python tools/select_config.py --table out/query_table.json --list

Exit status: 0 when a configuration fits, 2 when the budget is too small (the nearest row is printed all the same) or
the command line is wrong, 1 when the table cannot answer.
"""

import argparse
import sys

import simplejson

from mutual3d.table.query_table import BudgetTooSmall, QueryTable
from mutual3d.utils.command_line import print_error


def main(arguments=None):
    options = parse_arguments(arguments)
    try:
        table = QueryTable.load(options.table)
        if options.list:
            print_frontier(table, options)
            return 0
        print_row(table, table.select(options.gflops, options.latency_ms, options.device), options, fits=True)
        return 0
    except BudgetTooSmall as error:
        print(error, file=sys.stderr)
        print_row(table, error.nearest, options, fits=False)
        return 2
    except (ValueError, OSError) as error:
        print_error(error)
        return 1


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(description="Choose the most accurate configuration within a budget.")
    parser.add_argument("--table", required=True, help="query_table.json, as run_net.py writes it")
    parser.add_argument("--gflops", type=float, help="most GFLOPs (1e9 multiply-adds) of one view")
    parser.add_argument("--latency-ms", type=float, help="most milliseconds, as measured on --device")
    parser.add_argument("--device", help="which measured latency; needed when the table has several")
    parser.add_argument("--list", action="store_true", help="print the best row for each budget (of latency: --device)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not options.list and options.gflops is None and options.latency_ms is None:
        parser.error("give --gflops, --latency-ms, or both; or --list")
    if options.list and (options.gflops is not None or options.latency_ms is not None):
        parser.error("--list prints every budget: leave --gflops and --latency-ms out")
    return options


def print_row(table, row, options, fits):
    if options.json:
        print(simplejson.dumps({**row.to_dict(), "fits": fits, "provenance": table.provenance}))
    else:
        print(table.describe(row))


def print_frontier(table, options):
    rows = table.frontier("gflops" if options.device is None else "latency_ms", options.device)
    if options.json:
        print(simplejson.dumps({"provenance": table.provenance, "rows": [row.to_dict() for row in rows]}))
    else:
        print(table.format(rows))
