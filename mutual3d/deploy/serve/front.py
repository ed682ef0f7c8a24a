"""What a service runs at: the configurations of the Pareto front on this machine, and which of them a budget chooses."""

from typing import NamedTuple

from mutual3d.deploy.adaptive_model import AdaptiveModel
from mutual3d.deploy.controller import TimedConfiguration
from mutual3d.deploy.timing import key_here
from mutual3d.table.query_table import QueryTable, Row


class Choice(NamedTuple):
    """What a request may run at: the row that its budget chooses, and the configurations down to which a busy service may go.

    ladder: ascending in time, `row` is the last; it alone where the client named a configuration.
    """

    row: Row
    ladder: tuple[TimedConfiguration, ...]


class ServedFront:
    """The rows that a service keeps ready, and a choice among them that changes nothing: any thread may ask.

    The rows are those of the Pareto front over milliseconds on this machine, and of that over GFLOPs as far as they were measured
    here.

    table: a table whose column `key` was measured on this machine. key: of a latency.
    """

    def __init__(self, table: QueryTable, key: str) -> None:
        by_time = table.pareto_front("latency_ms", key)
        by_gflops = [row for row in table.pareto_front("gflops") if key in row.latency_ms]
        rows = {row.configuration: row for row in (*by_time, *by_gflops)}
        self.key = key
        self.table = QueryTable(rows.values(), table.provenance)
        self.front = tuple(self.timed(row) for row in by_time)
        self._rows = rows

    @classmethod
    def of(cls, model: AdaptiveModel) -> "ServedFront":
        """That of a model with a table, measured now where the table has no column of this machine."""
        key = key_here(model)  # which may give the model another table
        assert model.table is not None, "a model with a table"
        return cls(model.table, key)

    @property
    def rows(self) -> list[Row]:
        """All that is kept ready, ascending in time."""
        return sorted(self._rows.values(), key=lambda row: (row.latency_ms[self.key], row.configuration))

    def timed(self, row: Row) -> TimedConfiguration:
        """The configuration of a row and its milliseconds here."""
        return TimedConfiguration(row.configuration, row.latency_ms[self.key])

    def choose(self, latency_ms: float | None = None, gflops: float | None = None, configuration: str | None = None) -> Choice:
        """The most accurate row within the budgets, the most accurate of all without one, or that of a configuration by its text.

        latency_ms: of the network on one clip, by this machine's column. gflops: of one view. Raises BudgetTooSmall where
        nothing fits, and ValueError for both a configuration and a budget, or a configuration that is not kept ready.
        """
        if configuration is not None:
            if latency_ms is not None or gflops is not None:
                raise ValueError("give a configuration or a budget, not both")
            row = self._named(configuration)
            return Choice(row, (self.timed(row),))
        if latency_ms is None and gflops is None:
            row = max(self.rows, key=lambda row: (self.table.merit(row), -row.latency_ms[self.key]))
        else:
            row = self.table.select(gflops, latency_ms, self.key if latency_ms is not None else None)
        below = [
            timed for timed in self.front
            if timed.quiet_ms < row.latency_ms[self.key] and (gflops is None or self._rows[timed.configuration].gflops <= gflops)
            and self.table.merit(self._rows[timed.configuration]) < self.table.merit(row)
        ]  # fmt: skip
        return Choice(row, (*below, self.timed(row)))

    def _named(self, configuration: str) -> Row:
        found = [row for row in self.rows if str(row.configuration) == configuration]
        if not found:
            raise ValueError(
                f"the configuration '{configuration:.60}' is not kept ready: choose among {', '.join(str(row.configuration) for row in self.rows)}"
            )
        return found[0]

    def row(self, timed: TimedConfiguration) -> Row:
        """The row of a configuration that is kept ready."""
        return self._rows[timed.configuration]
