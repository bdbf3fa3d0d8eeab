"""The checker of the operation log, on histories written by hand: each broken promise is reported, alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import history
from tests.chaos.checker import Key, Row, Violation, check
from tests.chaos.history import Event, Kind, Log

A, B, C = (Key("SYN0001", "1m", ts) for ts in (0, 60, 120))
EXPECTED = {A: (1.0,), B: (2.0,), C: (3.0,)}
TABLE = [Row(A, (1.0,)), Row(B, (2.0,)), Row(C, (3.0,))]


def write(
    op: str, kind: Kind | None, at: int, start: int = 0, end: int = 180, *, effect: str = ""
) -> list[Event]:
    """A write that begins at `at` and, unless its process died, ends 5 later."""
    began = Event(op, "invoke", "write", "worker", at, "SYN0001", "1m", start, end, effect)
    ended = Event(op, kind or "info", "write", "worker", at + 5, "SYN0001", "1m", start, end, effect)
    return [began, ended] if kind else [began]


def read(op: str, at: int, versions: dict[str, int], process: str = "reader") -> list[Event]:
    """A read of everything."""
    began = Event(op, "invoke", "read", process, at, "SYN0001", "1m", 0, 180)
    ended = Event(op, "ok", "read", process, at + 5, "SYN0001", "1m", 0, 180, versions=versions)
    return [began, ended]


def test_a_history_without_a_fault_has_no_violation() -> None:
    events = [*write("w1", "ok", 10, 0, 120), *read("r1", 20, {"0": 0, "60": 0}), *write("w2", "ok", 30, 120)]
    assert check(events, TABLE, EXPECTED) == []


def test_an_acknowledged_bar_that_is_not_stored_is_lost() -> None:
    assert check(write("w", "ok", 10), TABLE[:2], EXPECTED) == [Violation("lost", C)]


def test_a_bar_that_nobody_wrote_and_nobody_stored_is_missing() -> None:
    assert check(write("w", "ok", 10, 0, 120), TABLE[:2], EXPECTED) == [Violation("missing", C)]


@pytest.mark.parametrize("kind", ["info", None])
def test_what_a_write_of_unknown_outcome_brought_may_be_there_or_not(kind: Kind | None) -> None:
    cut_off = write("w", kind, 10, 120)
    assert check([*write("first", "ok", 1, 0, 120), *cut_off], TABLE, EXPECTED) == []
    absent = check([*write("first", "ok", 1, 0, 120), *cut_off], TABLE[:2], EXPECTED)
    assert absent == [Violation("missing", C)]


def test_a_bar_that_only_a_refused_write_can_have_brought_is_invented() -> None:
    events = [*write("w1", "ok", 10, 0, 120), *write("w2", "fail", 20, 120)]
    assert check(events, TABLE, EXPECTED) == [Violation("invented", C)]


def test_a_bar_that_the_provider_does_not_have_is_invented() -> None:
    stray = Row(Key("SYN0001", "1m", 90), (9.0,))
    assert check(write("w", "ok", 10), [*TABLE, stray], EXPECTED) == [Violation("invented", stray.key)]


def test_a_bar_with_other_values_than_the_provider_s_is_wrong() -> None:
    table = [TABLE[0], Row(B, (2.5,)), TABLE[2]]
    assert check(write("w", "ok", 10), table, EXPECTED) == [Violation("wrong", B)]


def test_a_key_that_is_stored_twice_is_a_duplicate() -> None:
    assert check(write("w", "ok", 10), [*TABLE, TABLE[1]], EXPECTED) == [Violation("duplicate", B)]


def test_a_job_that_was_done_twice_is_a_duplicate_effect() -> None:
    events = [*write("w1", "ok", 10, effect="job 1"), *write("w2", "ok", 20, effect="job 1")]
    assert check(events, TABLE, EXPECTED) == [Violation("duplicate", "job 1")]


def test_a_job_that_was_tried_again_after_a_refused_write_is_no_duplicate() -> None:
    events = [*write("w1", "fail", 10, effect="job 1"), *write("w2", "ok", 20, effect="job 1")]
    assert check(events, TABLE, EXPECTED) == []


def test_a_revision_that_went_down_between_two_reads_is_a_step_back() -> None:
    reads = [*read("r1", 20, {"0": 0, "60": 1, "120": 0}), *read("r2", 30, {"0": 0, "60": 0, "120": 0})]
    table = [TABLE[0], Row(B, (2.0,), revision=1), TABLE[2]]
    assert check([*write("w", "ok", 10), *reads], table, EXPECTED) == [Violation("step back", B)]


def test_a_revision_that_is_lower_in_the_end_than_it_was_read_is_a_step_back() -> None:
    reads = read("r", 20, {"0": 0, "60": 2, "120": 0})
    table = [TABLE[0], Row(B, (2.0,), revision=1), TABLE[2]]
    assert check([*write("w", "ok", 10), *reads], table, EXPECTED) == [Violation("step back", B)]


def test_a_bar_that_was_read_and_is_gone_at_the_next_read_is_a_step_back() -> None:
    reads = [*read("r1", 20, {"0": 0, "60": 0}), *read("r2", 30, {"0": 0})]
    assert check([*write("w", None, 10), *reads], TABLE, EXPECTED) == [Violation("step back", B)]


def test_reads_of_two_processes_may_overtake_one_another() -> None:
    reads = [*read("r1", 20, {"0": 0, "60": 0}, "one"), *read("r2", 21, {"0": 0}, "two")]
    assert check([*write("w", None, 10), *reads], TABLE, EXPECTED) == []


def test_an_acknowledged_bar_that_a_later_read_does_not_find_is_unseen() -> None:
    events = [*write("w", "ok", 10), *read("r", 20, {"0": 0, "60": 0})]
    assert check(events, TABLE, EXPECTED) == [Violation("unseen", C)]


def test_a_read_that_began_before_the_write_was_acknowledged_may_miss_its_bars() -> None:
    events = [*write("w", "ok", 10), *read("r", 14, {"0": 0})]
    assert check(events, TABLE, EXPECTED) == []


def test_a_log_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody began"):
        history.operations(write("w", "ok", 10)[1:])
    with pytest.raises(ValueError, match="two events"):
        history.operations([*write("w", "ok", 10), *write("w", "fail", 20)[1:]])


def test_the_files_of_all_processes_are_one_history_in_the_order_of_time(tmp_path: Path) -> None:
    one, other = Log(tmp_path, "one"), Log(tmp_path, "other")
    where = ("SYN0001", "1m", 0, 60)
    one.tell("invoke", "w", "write", where, effect="job 1")
    other.tell("invoke", "r", "read", where)
    one.tell("ok", "w", "write", where, effect="job 1")
    other.tell("ok", "r", "read", where, versions={0: 3})
    events = history.read(tmp_path)

    assert [(event.process, event.kind) for event in events] == [
        ("one", "invoke"), ("other", "invoke"), ("one", "ok"), ("other", "ok"),
    ]  # fmt: skip
    first, second = history.operations(events)
    assert (first.kind, first.effect, first.ended_ns) == ("ok", "job 1", events[2].at_ns)
    assert (second.kind, second.versions) == ("ok", {0: 3})


def test_a_process_killed_between_two_lines_leaves_an_operation_of_unknown_outcome(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        Log(tmp_path, "child").tell("invoke", "w", "write", ("SYN0001", "1m", 0, 60))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    (only,) = history.operations(history.read(tmp_path))
    assert (only.kind, only.ended_ns) == ("info", None)
