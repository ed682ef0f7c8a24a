import copy
import csv
import functools
import itertools
import json
import math
import operator
import random

import numpy as np
import pytest
import torch

from mutual3d.cost.latency_key import LatencyKey
from mutual3d.sampling import Configuration
from mutual3d.table.query_table import BudgetTooSmall, QueryTable, Row, paid_dimension, round_up
from mutual3d.utils.files import DamagedFileError

PROVENANCE = {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 224, "versions": {"torch": "2.0"}}
CPU, GPU = "cpu-fp32-b1-t2", "cuda-fp16-b8-t2"


def make_row(configuration="0.8-160-9", gflops=1.0, accuracy=70.0, signature=(24, 48), **latency_ms):
    latency_ms = {key.replace("_", "-"): value for key, value in latency_ms.items()}
    return Row(configuration, signature, gflops, 1_000_000, {"top1_acc": accuracy, "top5_acc": 90.0}, latency_ms)


def random_table(seed, count=30):
    """Coarse values, so that costs and accuracies tie often."""
    draw = random.Random(seed)
    choices = itertools.product((0.6, 0.8, 1.0), (64, 80, 96), (4, 6, 8, 9))
    names = ["-".join(map(str, choice)) for choice in choices]
    rows = [
        make_row(
            name,
            gflops=draw.randint(1, 12) / 4,
            accuracy=float(draw.randint(50, 62)),
            **{CPU: float(draw.randint(10, 25)), GPU: draw.uniform(1, 5)},
        )
        for name in draw.sample(names, count)
    ]
    return QueryTable(rows, PROVENANCE)


def costs_and_accuracies(table, cost, device):
    return [(table.cost(row, cost, device), table.accuracy(row)) for row in table.rows]


@pytest.mark.parametrize("cost, device", [("gflops", None), ("latency_ms", CPU), ("latency_ms", GPU)])
@pytest.mark.parametrize("seed", range(5))
def test_pareto_front_is_what_no_row_beats(seed, cost, device):
    table = random_table(seed)
    points = costs_and_accuracies(table, cost, device)
    beaten = {
        (price, accuracy)
        for price, accuracy in points
        for other_price, other in points
        if other_price <= price and other >= accuracy and (other_price, other) != (price, accuracy)
    }
    front = [(table.cost(row, cost, device), table.accuracy(row)) for row in table.pareto_front(cost, device)]
    assert front == sorted(set(points) - beaten)


@pytest.mark.parametrize("seed", range(5))
def test_select_equals_brute_force(seed):
    table, draw = random_table(seed), random.Random(seed)
    for _ in range(60):
        gflops, latency = draw.choice([None, draw.uniform(0.1, 3.5)]), draw.uniform(5, 30)
        fitting = [
            row for row in table.rows if (gflops is None or row.gflops <= gflops) and row.latency_ms[CPU] <= latency
        ]
        if not fitting:
            with pytest.raises(BudgetTooSmall):
                table.select(gflops, latency, CPU)
            continue
        best = max(table.accuracy(row) for row in fitting)
        cheapest = min(row.latency_ms[CPU] for row in fitting if table.accuracy(row) == best)
        chosen = table.select(gflops, latency, CPU)
        assert chosen in fitting
        assert (table.accuracy(chosen), chosen.latency_ms[CPU]) == (best, cheapest)


def test_select_by_gflops_lies_on_the_pareto_front_and_accepts_the_exact_cost():
    table = random_table(7)
    for row in table.pareto_front():
        assert table.select(gflops=row.gflops) == row


def test_budget_too_small_carries_the_cheapest_row_and_a_budget_that_works():
    table = QueryTable([make_row("0.6-64-4", 0.123456, 50), make_row("1-96-8", 2.0, 60)], PROVENANCE)
    with pytest.raises(BudgetTooSmall, match="0.6-64-4, needs 0.1235 GFLOPs") as error:
        table.select(gflops=0.1)
    assert error.value.nearest is table.row("0.6-64-4")
    assert error.value.needed == {"gflops": 0.123456}
    assert table.select(gflops=0.1235) is error.value.nearest


def test_two_budgets_name_the_row_that_misses_them_least():
    rows = [make_row("0.6-64-4", 1.0, 50, cpu=40.0), make_row("0.8-64-4", 1.2, 55, cpu=11.0)]
    with pytest.raises(BudgetTooSmall, match="11 ms on cpu and 1.2 GFLOPs") as error:
        QueryTable(rows, PROVENANCE).select(gflops=1.1, latency_ms=10, device="cpu")
    assert str(error.value.nearest.configuration) == "0.8-64-4"


@pytest.mark.parametrize("value", [0.12345, 12.3401, 123456.7, 0.00031415926, 2.0])
def test_round_up_is_short_and_never_below(value):
    assert value <= float(f"{round_up(value):g}") <= value * 1.001


def test_latency_device_must_be_clear():
    table = random_table(0)
    with pytest.raises(ValueError, match=f"{CPU}, {GPU}"):
        table.select(latency_ms=20)
    with pytest.raises(ValueError, match=f"'tpu'.*{CPU}, {GPU}"):
        table.select(latency_ms=20, device="tpu")
    with pytest.raises(ValueError, match="give latency_ms"):
        table.select(gflops=2, device=CPU)
    with pytest.raises(ValueError, match="no latency was measured .* `mutual3d bench MODEL`"):
        QueryTable([make_row()], PROVENANCE).select(latency_ms=20)


def test_a_latency_of_another_machine_is_taken_only_where_it_is_named():
    here, other = str(LatencyKey.here(torch.device("cpu"), "torch")), "cpu.elsewhere_1-torch-fp32-b1-t2"
    for key in (other, CPU, "laptop"):  # another machine, one of an earlier version, a user's own word
        row = Row("0.8-160-9", (24,), 1.0, 10, {"top1_acc": 70.0}, {key: 5.0})
        with pytest.raises(ValueError, match=f"not measured on this machine.*`mutual3d bench MODEL`.* name one of {key}"):
            QueryTable([row], PROVENANCE).select(latency_ms=20)
        assert QueryTable([row], PROVENANCE).select(latency_ms=20, device=key).configuration == row.configuration
    rows = [Row("0.8-160-9", (24,), 1.0, 10, {"top1_acc": 70.0}, {here: 50.0, other: 5.0})]
    with pytest.raises(BudgetTooSmall, match=f"50 ms on {here}"):
        QueryTable(rows, PROVENANCE).select(latency_ms=20)
    several = Row("0.8-160-9", (24,), 1.0, 10, {"top1_acc": 70.0}, {here: 5.0, here.replace("torch", "openvino"): 1.0})
    with pytest.raises(ValueError, match="measured here more than once: name one of"):
        QueryTable([several], PROVENANCE).select(latency_ms=20)


def test_further_columns_stand_beside_what_is_there():
    table = QueryTable([make_row("0.6-64-4", cpu=5.0), make_row("1-64-4", 2, 60, cpu=9.0)], {**PROVENANCE, "latency": {"cpu": {"date": "x"}}})
    c = table.rows[0].configuration
    more = table.with_costs({"latency_ms": {"gpu": {c: 1.5}}, "energy_mj": {"": {c: 3.0}}}, {"latency": {"gpu": {"date": "y"}}})
    assert more.rows[0].latency_ms == {"cpu": 5.0, "gpu": 1.5} and more.rows[1].latency_ms == {"cpu": 9.0}
    assert more.rows[0].costs == {"energy_mj": 3.0} and more.provenance["latency"] == {"cpu": {"date": "x"}, "gpu": {"date": "y"}}
    assert table.rows[0].latency_ms == {"cpu": 5.0}
    with pytest.raises(ValueError, match="0.9-64-4 is not in the query table"):
        table.with_costs({"latency_ms": {"gpu": {Configuration(0.9, 64, 4): 1.0}}}, {})


def test_rows_without_the_asked_latency_are_left_out():
    table = QueryTable([make_row("0.6-64-4", 1, 50, cpu=5.0), make_row("1-64-4", 2, 60)], PROVENANCE)
    assert table.pareto_front("latency_ms") == [table.row("0.6-64-4")]
    assert table.select(latency_ms=100, device="cpu") is table.row("0.6-64-4")
    with pytest.raises(ValueError, match="1-64-4 was not measured on cpu"):
        table.cost(table.row("1-64-4"), "latency_ms")


@pytest.mark.parametrize("budget", [{}, {"gflops": 0}, {"gflops": float("nan")}, {"latency_ms": -1, "device": CPU}])
def test_budgets_must_be_given_and_above_zero(budget):
    with pytest.raises(ValueError, match="budget") as error:
        random_table(0).select(**budget)
    assert not isinstance(error.value, BudgetTooSmall)


def test_row_is_found_by_configuration_or_text():
    table = random_table(0)
    row = table.rows[3]
    assert table.row(row.configuration) is table.row(str(row.configuration)) is row
    with pytest.raises(ValueError, match="0.61-64-4 is not in the query table"):
        table.row("0.61-64-4")


def test_json_round_trip_keeps_every_number(tmp_path):
    table = random_table(1)
    table.save_json(tmp_path / "query_table.json")
    loaded = QueryTable.load(tmp_path / "query_table.json")
    assert loaded == table
    assert loaded.rows == table.rows and loaded.provenance == PROVENANCE
    assert QueryTable.from_dict(table.to_dict()) == table


def test_numpy_numbers_become_plain(tmp_path):
    accuracy = {"top1_acc": np.float64(50)}
    row = Row(Configuration(0.8, 160, 9), np.array([24, 48]), np.float32(1.5), np.int64(7), accuracy)
    QueryTable([row], PROVENANCE).save_json(tmp_path / "query_table.json")
    assert QueryTable.load(tmp_path / "query_table.json").rows == (row,)


def test_csv_holds_every_number_and_its_conditions(tmp_path):
    table = QueryTable([make_row("0.6-64-4", 1 / 3, 50.1, cpu=5.5), make_row("1-64-4", 2, 60)], PROVENANCE)
    table.save_csv(tmp_path / "query_table.csv")
    with open(tmp_path / "query_table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["configuration"] for line in lines] == ["0.6-64-4", "1-64-4"]
    first = lines[0]
    assert (float(first["gflops"]), float(first["top1_acc"]), first["latency_ms:cpu"]) == (1 / 3, 50.1, "5.5")
    assert (first["split"], first["num_views"], first["crop"], first["signature"]) == ("val", "1", "224", "24 48")
    assert lines[1]["latency_ms:cpu"] == ""


def without(key):
    return lambda data: data["rows"][0].pop(key)


MALFORMED = [
    (lambda data: data.update(version=99), "version is 99"),
    (lambda data: data.update(format="other"), "not a query table"),
    (lambda data: data.pop("rows"), "'rows'"),
    (lambda data: data.update(rows=[]), "at least one row"),
    (without("gflops"), "lacks gflops"),
    (without("configuration"), "lacks configuration"),
    (lambda data: data["rows"][0].update(configuration="big"), "'big' is not a configuration"),
    (lambda data: data["rows"][0].update(gflops="2"), "gflops is '2'"),
    (lambda data: data["rows"][0].update(signature=24), "signature is 24"),
    (lambda data: data["rows"][0].update(accuracy={"mAP": 3.0}), "'top1_acc'; it has: mAP"),
    (lambda data: data["rows"][0].update(latency_ms={"cpu": 0}), r"latency_ms\['cpu'\] is 0"),
    (lambda data: data["rows"].append(data["rows"][0]), "measured twice"),
    (lambda data: data["provenance"].pop("crop"), "provenance lacks crop"),
    (lambda data: data["provenance"].update(metric=["top1_acc"]), "provenance's metric is .'top1_acc'.: a text is needed"),
    (lambda data: data["provenance"].update(split=3), "provenance's split is 3: a text is needed"),
    (lambda data: data["provenance"].update(num_views="10"), "provenance's num_views is '10': a finite number"),
    (lambda data: data["provenance"].update(crop=0), "provenance's crop is 0: it must be above 0"),
    (lambda data: data["rows"][0]["accuracy"].update(top1_acc=250), "is 250: it must be from 0 to 100 per cent"),
    (lambda data: data["rows"][0]["accuracy"].update(top1_acc=-5), "is -5: it must be from 0 to 100 per cent"),
    (lambda data: data["rows"][0].update(gflops=10**400), "gflops is 1000.*: a finite number is needed"),
]


@pytest.mark.parametrize("damage, message", MALFORMED)
def test_a_malformed_table_names_the_file_the_fault_and_the_fix(tmp_path, damage, message):
    path = tmp_path / "query_table.json"
    data = random_table(2).to_dict()
    damage(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as error:
        QueryTable.load(path)
    assert str(path) in str(error.value) and "GRID.ENABLE" in str(error.value)


ODD = [None, True, -1, 0, 1.5, 1e308, 10**400, float("nan"), float("inf"), "", "x", "nan-48-4", "1e9-48-4", "\ud800", [], [[]], {}, {"a": []}, "A" * 5000]


def places(value, path=()):
    """The place of every value in nested containers."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def test_any_value_in_any_place_is_used_or_refused_with_the_file(tmp_path):
    """No wrong type, sign, size or shape ends in anything but a sentence that names the file."""
    path = tmp_path / "query_table.json"
    data = random_table(2, count=2).to_dict()
    for place in places(data)[1:]:
        for odd in ODD:
            changed = copy.deepcopy(data)
            functools.reduce(operator.getitem, place[:-1], changed)[place[-1]] = odd
            path.write_text(json.dumps(changed))
            try:
                table = QueryTable.load(path)
            except ValueError as error:
                assert str(path) in str(error) and len(str(error)) < 1000
                continue
            table.format(table.pareto_front())
            assert all(0 <= table.accuracy(row) <= 100 and 0 < row.gflops < math.inf for row in table.rows)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"rows":' * 100_000, "[" * 900 + "]" * 900, '{"format": "mutual3d.query_table", "fingerprint": "x", "a": ' + "[" * 900 + "]" * 900 + "}"])
def test_deep_nesting_is_a_sentence(tmp_path, text):
    (tmp_path / "query_table.json").write_text(text)
    with pytest.raises(ValueError, match="query_table.json"):
        QueryTable.load(tmp_path / "query_table.json")


def test_a_bit_that_flips_in_a_saved_table_is_refused_or_harmless(tmp_path):
    path, table, bits = tmp_path / "query_table.json", random_table(2, count=3), random.Random(0)
    table.save_json(path)
    whole, refused = path.read_bytes(), 0
    for place in bits.sample(range(len(whole)), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bits.randrange(8)
        path.write_bytes(damaged)
        try:
            assert QueryTable.load(path) == table, place
        except ValueError as error:
            refused += "query_table.json" in str(error)
    assert refused > 150


def test_a_changed_table_says_how_a_change_that_is_meant_is_kept(tmp_path):
    path, table = tmp_path / "query_table.json", random_table(2)
    table.save_json(path)
    data = json.loads(path.read_text())
    data["rows"][0]["gflops"] += 1
    path.write_text(json.dumps(data))
    with pytest.raises(DamagedFileError, match="query_table.json.*changed after it was written .if that is meant, remove its entry 'fingerprint'"):
        QueryTable.load(path)
    del data["fingerprint"]
    path.write_text(json.dumps(data))
    assert QueryTable.load(path).rows[0].gflops == data["rows"][0]["gflops"]


def test_a_missing_or_cut_file_is_named(tmp_path):
    path = tmp_path / "query_table.json"
    with pytest.raises(FileNotFoundError, match="query_table.json.*GRID.ENABLE"):
        QueryTable.load(path)
    path.write_text(json.dumps(random_table(2).to_dict())[:100])
    with pytest.raises(ValueError, match="query_table.json.*not valid JSON"):
        QueryTable.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "70", None, True])
def test_an_accuracy_must_be_a_finite_number(value):
    with pytest.raises(ValueError, match=r"0.8-160-9: accuracy\['top1_acc'\]"):
        make_row(accuracy=value)


def test_provenance_must_be_plain():
    with pytest.raises(ValueError, match="plain"):
        QueryTable([make_row()], {**PROVENANCE, "date": object()})


STEPS = [
    ("0.8-160-9", (24,), "0.8-192-9", (24,), "spatial"),
    ("0.8-160-9", (24,), "0.8-160-12", (24,), "temporal"),
    ("0.8-160-9", (24,), "1-160-9", (32,), "width"),
    ("0.8-160-9", (24,), "0.8-192-12", (24,), "several"),
    ("0.8-160-9", (24,), "1-142-9", (32,), "several"),
    ("0.8-160-9", (24,), "0.82-192-9", (24,), "spatial"),  # one signature: both widths are one network
    ("0.8-160-9", (24,), "0.82-160-9", (24,), "width"),
]


@pytest.mark.parametrize("before, before_signature, after, after_signature, expected", STEPS)
def test_paid_dimension(before, before_signature, after, after_signature, expected):
    rows = make_row(before, signature=before_signature), make_row(after, signature=after_signature)
    assert paid_dimension(*rows) == paid_dimension(*reversed(rows)) == expected


def test_no_step_from_a_configuration_to_itself():
    with pytest.raises(ValueError, match="0.8-160-9"):
        paid_dimension(make_row(), make_row(gflops=3))


def test_text_gives_unit_split_views_and_crop():
    table = random_table(0)
    lines = table.format(table.pareto_front()).splitlines()
    assert len(lines) == 2 + len(table.pareto_front())
    assert len({len(line) for line in lines[1:]}) == 1
    for text in (lines[0], table.describe(table.rows[0])):
        assert "%" in text and "val split, 1 view, crop 224" in text
    assert f"ms on {CPU}" in table.describe(table.rows[0])


def test_rows_of_several_widths_stand_among_the_others_and_survive_files(tmp_path):
    names = ("0.6-160-9", "0.6,1,0.6-160-9", "0.6x3-160-9", "1-160-9")
    table = QueryTable([make_row(name, gflops=1.0 + i, accuracy=70.0 + i) for i, name in enumerate(names)], PROVENANCE)
    assert [str(row.configuration) for row in table.rows] == ["0.6-160-9", "0.6x3-160-9", "0.6,1,0.6-160-9", "1-160-9"]
    table.save_json(tmp_path / "table.json")
    assert QueryTable.load(tmp_path / "table.json") == table
    table.save_csv(tmp_path / "table.csv")
    lines = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [line["width"] for line in lines] == ["0.6", "0.6x3", "0.6,1,0.6", "1"]
    assert table.select(gflops=2.5).configuration == Configuration((0.6, 1.0, 0.6), 160, 9)
    assert table.row("0.6,0.6,0.6-160-9").gflops == 3.0 and "0.6,1,0.6-160-9" in table.format()


def test_rows_are_added_and_replaced():
    table = QueryTable([make_row("0.6-160-9", gflops=1.0), make_row("1-160-9", gflops=2.0)], {**PROVENANCE, "found": "a"})
    more = table.with_rows([make_row("0.6,1-160-9", gflops=1.5), make_row("1-160-9", gflops=3.0)], {"found": "b"})
    assert [(str(row.configuration), row.gflops) for row in more.rows] == [("0.6-160-9", 1.0), ("0.6,1-160-9", 1.5), ("1-160-9", 3.0)]
    assert more.provenance == {**table.provenance, "found": "b"} and table.row("1-160-9").gflops == 2.0
    with pytest.raises(ValueError, match="has no accuracy under 'top1_acc'"):
        table.with_rows([Row("0.7-160-9", (24,), 1.0, 10, {"map": 3.0})], {})
