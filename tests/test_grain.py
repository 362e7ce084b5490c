"""A place in the shade keeps its grain, one that is covered does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lucibot.vision.grain import Grain

H, W = 120, 160
LEFT, RIGHT = np.s_[20:100, 15:65], np.s_[20:100, 95:145]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """(H, W, 3) float, 0 to 255: veined, with a plain band below."""
    rng = np.random.default_rng(5)
    veins = cv2.GaussianBlur(rng.normal(0, 1, (H, W)).astype(np.float32), (0, 0), 4, None, 1.2)
    veins[100:] = 0
    return np.float32([180, 160, 140]) * (1 + 0.25 * veins[..., None] / veins.std())


def seen(light: np.ndarray, noise: float = 1.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(light + rng.normal(0, noise, light.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 1.5, 4.0])
def test_shade_and_tint_keep_it_and_a_cover_of_the_same_colour_hides_it(table, noise):
    grain = Grain(seen(table, noise, 1))
    grain.learn([seen(table, noise, k) for k in range(2, 8)])
    shade = np.ones((H, W, 1), np.float32)
    shade[LEFT] = 0.4
    light = table * cv2.GaussianBlur(shade, (0, 0), 3)[..., None] * np.float32([1, 0.95, 0.85])
    light[RIGHT] = cv2.GaussianBlur(table, (0, 0), 20)[RIGHT] * 0.6
    kept = grain.kept(seen(light, noise, 9))
    inner = np.s_[26:94, 21:59], np.s_[26:94, 101:139]
    assert (kept[inner[0]] > 0.5).mean() > 0.85 and (kept[inner[0]] < -0.5).mean() < 0.02
    assert (kept[inner[1]] < -0.5).mean() > 0.7 and (kept[inner[1]] > 0.5).mean() < 0.05


def test_nothing_is_told_where_there_is_no_grain(table):
    grain = Grain(seen(table, 0.0))
    light = table.copy()
    light[104:, 40:80] = 60
    assert np.abs(grain.kept(seen(light, 0.0))[112:, 50:70]).max() == 0


def test_grain_that_noise_hides_is_not_missed(table):
    """Coding wipes out a faint grain in all frames but the first."""
    faint = 150 + 0.04 * (table - table.mean())
    flat = np.full_like(faint, 150)
    grain = Grain(seen(faint, 0.5, 1))
    assert (grain.kept(seen(flat, 0.5, 2)) < -0.5).mean() > 0.2
    grain.learn([seen(flat, 0.5, k) for k in range(3, 9)])
    assert (grain.kept(seen(flat, 0.5, 2)) < -0.5).mean() < 0.02


def test_an_edge_that_crosses_a_window_hides_little_beyond_it(table):
    """Background close to a dark arm stays what it was."""
    grain = Grain(seen(table, 0.0))
    light = table.copy()
    light[:, 80:] = 20
    kept = grain.kept(seen(light, 0.0))
    assert (kept[10:90, 70:76] < -0.5).mean() < 0.15 and (kept[10:90, 70:76] > 0.5).mean() > 0.6
    assert (kept[10:90, 90:] < -0.5).mean() > 0.9
