import pytest
from made_records import commit_record

from scanner.survey.folder.cost import CostLedger, Spent, one_line


def ledger_of(*commits):
    ledger = CostLedger()
    for commit in commits:
        ledger.add(commit)
    return ledger.cost()


CUT_ON_TWO_CORES = {
    "seconds": {"cut": 5.0, "score": 20.0, "tile": 21.0},
    "core_seconds": {"cut": 10.0, "score": 30.0, "other": 1.0},
    "gpu_seconds": 8.0,
    "bytes_read": 1000,
    "n_scored": 500,
    "sky_area_deg2": 0.25,
}


def test_tiles_are_summed_and_shared_out():
    cost = ledger_of(commit_record(**CUT_ON_TWO_CORES), commit_record(tile_id="2", **CUT_ON_TWO_CORES))
    assert cost.n_tiles == 2
    assert cost.n_objects == 1000
    assert cost.bytes_read == 2000
    assert cost.total == cost.per_1000_objects == Spent(core_seconds=82.0, gpu_seconds=16.0)
    assert cost.per_tile == Spent(core_seconds=41.0, gpu_seconds=8.0)
    assert cost.per_deg2 == Spent(core_seconds=164.0, gpu_seconds=32.0)
    assert cost.by_stage == {
        "cut": Spent(core_seconds=20.0, gpu_seconds=0.0),
        "other": Spent(core_seconds=2.0, gpu_seconds=0.0),
        "score": Spent(core_seconds=60.0, gpu_seconds=16.0),
    }
    assert cost.stage_seconds == {"cut": 10.0, "score": 40.0}
    assert cost.tile_seconds == 42.0
    assert sum(spent.core_seconds for spent in cost.by_stage.values()) == pytest.approx(cost.total.core_seconds)


def test_one_line_names_the_dearest_stages():
    line = one_line(ledger_of(commit_record(**CUT_ON_TWO_CORES)))
    assert line == (
        "Cost: 41 core-s + 8 GPU-s in all (score 73%, cut 24%, other 2%); "
        "a tile 41 core-s + 8 GPU-s, a deg² 164 core-s + 32 GPU-s, 1,000 objects 82 core-s + 16 GPU-s."
    )


def test_nothing_done_costs_nothing():
    cost = ledger_of()
    assert cost.per_tile is cost.per_deg2 is cost.per_1000_objects is None
    assert one_line(cost) == "Cost: nothing was counted."
