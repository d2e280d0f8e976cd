"""Ids made by the client: UUIDv7 as RFC 9562 has it."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from mindia._ids import uuid7, uuid7s


def milliseconds_of(made: uuid.UUID) -> int:
    return made.int >> 80


def test_an_id_is_a_uuid_of_version_7_and_of_the_variant_of_the_rfc() -> None:
    for _ in range(1000):
        made = uuid7()
        assert made.version == 7
        assert made.variant == uuid.RFC_4122


def test_an_id_begins_with_the_time_it_was_made_at() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000

    assert before <= milliseconds_of(made) <= after


def test_ids_of_which_many_are_asked_for_are_like_all_others() -> None:
    before = time.time_ns() // 1_000_000
    made = list(islice(uuid7s(), 1000))
    after = time.time_ns() // 1_000_000

    assert len(set(made)) == 1000
    assert {(each.version, each.variant) for each in made} == {(7, uuid.RFC_4122)}
    assert before <= milliseconds_of(made[0]) <= milliseconds_of(made[-1]) <= after


def test_ids_made_later_sort_later() -> None:
    made = []
    for _ in range(100):
        made.append(uuid7())
        done = time.time_ns() + 1_000  # a step of the clock in the id is a quarter of that
        while time.time_ns() < done:
            pass

    assert made == sorted(made)
    assert [str(each) for each in made] == sorted(str(each) for each in made)


def test_a_fraction_of_a_millisecond_counts() -> None:
    within: dict[int, set[int]] = {}
    for _ in range(20_000):
        made = uuid7().int
        within.setdefault(made >> 80, set()).add(made >> 64 & 0xFFF)

    fractions = set().union(*within.values())
    assert len(fractions) > 100
    assert max(fractions) > 0xE00
    assert min(fractions) < 0x200


def test_no_two_ids_are_the_same() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each for many in pool.map(lambda _: [uuid7() for _ in range(5_000)], range(8)) for each in many]

    assert len(set(made)) == 40_000


def test_a_forked_process_makes_other_ids() -> None:
    script = """
import os
from mindia._ids import uuid7
uuid7()
child = os.fork()
made = "".join(f"{uuid7()}\\n" for _ in range(100))
if child:
    os.waitpid(child, 0)
os.write(1, made.encode())
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)

    made = [uuid.UUID(line) for line in ended.stdout.splitlines()]
    assert len(made) == 200
    assert len(set(made)) == 200


def test_the_random_part_is_random() -> None:
    made = [uuid7().int & (1 << 62) - 1 for _ in range(2_000)]

    for bit in range(62):
        set_in = sum(each >> bit & 1 for each in made)
        assert 800 < set_in < 1_200, f"bit {bit} is set in {set_in} of 2000"
