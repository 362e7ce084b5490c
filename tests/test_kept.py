"""What took long is made once, whatever fails or changes after it."""

import dataclasses

import numpy as np
import pytest

from lucibot.config import PerceiveConfig
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.answerer import VlmAnswerer
from lucibot.providers.depth import ReplayDepth
from lucibot.providers.tracker import EmbeddedTracker
from lucibot.stages.perceive import Readings
from lucibot.store.kept import KeptFiles, linked

VIDEO = Video(frames=np.zeros((3, 20, 30, 3), np.uint8), fps=8.0)


class Making:
    """Makes random tracks or depth and counts how often."""

    def __init__(self):
        self.made, self._rng = 0, np.random.default_rng(7)

    def tracks(self) -> Tracks:
        self.made += 1
        noise = self._rng.random((3, 2, 20, 30))
        return Tracks(
            masks=noise > 0.8, hand=noise[:, 0] < 0.1, lost=noise[:, :, 0, 0] > 0.9,
            confidence=noise[:, :, 1, 1].astype(np.float32),
            poses=noise[:, :, 0, :6].astype(np.float32),
        )  # fmt: skip

    def depth(self) -> np.ndarray:
        self.made += 1
        return self._rng.random((3, 20, 30)).astype(np.float32)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def readings(tmp_path, notes) -> Readings:
    return Readings(KeptFiles(tmp_path / "kept", notes.append), ["a video"])


def test_tracks_outlive_what_fails_or_changes_after_the_tracker(readings, tmp_path):
    make, config = Making(), PerceiveConfig()
    first = readings.tracks(config, make.tracks)
    (tmp_path / "depth.npz").touch()
    later = dataclasses.replace(
        config, depth=ReplayDepth(file=tmp_path / "depth.npz"), answerer=VlmAnswerer(model="any")
    )
    again = readings.tracks(later, make.tracks)
    assert make.made == 1
    for name in ("masks", "hand", "confidence", "lost", "poses"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name

    readings.tracks(dataclasses.replace(config, tracker=EmbeddedTracker(seed=3)), make.tracks)
    assert make.made == 2


def test_depth_rests_on_the_tracks_as_well(readings):
    make, config, background = Making(), PerceiveConfig(), np.ones((20, 30), np.float32)
    first = readings.depth(config, VIDEO, background, make.depth)
    assert np.array_equal(readings.depth(config, VIDEO, background, make.depth), first)
    assert make.made == 1 and readings.depth_file.is_file()
    other = dataclasses.replace(config, tracker=EmbeddedTracker(seed=3))
    readings.depth(other, VIDEO, background, make.depth)
    assert make.made == 2


def test_what_is_damaged_or_was_not_finished_is_made_again(readings, tmp_path, notes):
    make, config = Making(), PerceiveConfig()
    readings.tracks(config, make.tracks)
    (kept,) = (tmp_path / "kept").glob("tracks-*.npz")
    kept.write_bytes(kept.read_bytes()[:-40])
    readings.tracks(config, make.tracks)
    assert make.made == 2 and "damaged" in notes[0]

    with pytest.raises(ZeroDivisionError):
        readings.depth(config, VIDEO, np.ones((20, 30)), lambda: 1 / 0)
    readings.depth(config, VIDEO, np.ones((20, 30), np.float32), make.depth)
    assert make.made == 3


def test_a_link_that_exists_is_replaced(tmp_path):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    linked(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "new"
