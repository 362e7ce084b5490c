"""What the benchmarks share: contestants are timed in turn, in one run, and told as ratios."""

from lucibot.benchmark.harness import Bench, Timing, Value

__all__ = ["Bench", "Timing", "Value"]
