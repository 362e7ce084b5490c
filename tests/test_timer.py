"""Where time goes: each moment belongs to one part."""

import time

from lucibot.sim.timer import PARTS, Timer


def test_parts_within_parts_count_once_and_make_up_the_whole():
    waited = []
    timer = Timer(lambda: waited.append(1))
    begin = time.perf_counter()
    with timer.part("Python"):
        time.sleep(0.02)
        for _ in range(2):
            with timer.part("losses"):
                time.sleep(0.02)
                with timer.part("observe"):
                    time.sleep(0.03)
    whole = time.perf_counter() - begin
    s = timer.seconds
    assert list(s) == list(PARTS)
    assert s["Python"] >= 0.02 and s["losses"] >= 0.04 and s["observe"] >= 0.06
    assert s["Python"] < whole - 0.1 + 1e-3 and s["losses"] < whole - 0.08 + 1e-3
    assert abs(sum(s.values()) - whole) < 5e-3
    assert len(waited) == 10


def test_what_fails_is_still_counted_and_closed():
    timer = Timer()
    for _ in range(2):
        try:
            with timer.part("physics"):
                time.sleep(0.01)
                raise KeyError
        except KeyError:
            time.sleep(0.02)
    assert 0.02 <= timer.seconds["physics"] and sum(timer.seconds.values()) < 0.04
