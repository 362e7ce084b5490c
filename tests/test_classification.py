"""What the classification of a video is made of, beside its slow twins; and that it is done once."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from lucibot.core.video import Video
from lucibot.providers.hand import CommandHand, key_points_by
from lucibot.providers.renderer import RasterRenderer
from lucibot.stages.scene import build_view
from lucibot.task import load_task
from lucibot.vision.exposure import same_light
from lucibot.vision.labelling import mean_field
from lucibot.vision.regions import classify_task, layers_of


def slow_same_light(rgb, first_rgb, background):
    """`same_light`, block by block."""
    some = np.s_[::2, ::2]
    inside = background[some]
    bright = inside & (first_rgb[some].max(-1) > 40)
    inside = bright if bright.mean() > 0.02 else inside
    ratio = (rgb[some] + np.float32(8)) / (first_rgb[some] + 8)
    whole = np.median(ratio[inside], axis=0) if inside.any() else np.ones(3, np.float32)
    gain = np.tile(whole, (6, 8, 1))
    y, x = (np.linspace(0, n, m + 1).astype(int) for n, m in zip(inside.shape, (6, 8), strict=True))
    for i, j in np.ndindex(6, 8):
        block = np.s_[y[i] : y[i + 1], x[j] : x[j + 1]]
        if inside[block].mean() > 0.4:
            local = np.median(ratio[block][inside[block]], axis=0)
            gain[i, j] = np.clip(local, np.float32(0.85) * whole, np.float32(1.18) * whole)
    gain = cv2.resize(cv2.blur(gain, (3, 3)), rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip((rgb + np.float32(8)) / gain - 8, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 48), (75, 61)])
@pytest.mark.parametrize("seen", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("dark", [False, True])
def test_light_is_taken_out_as_it_is_block_by_block(size, seen, dark):
    rng = np.random.default_rng(size[0])
    first = rng.uniform(0, 30 if dark else 255, (size[1], size[0], 3)).astype(np.float32)
    drift = np.linspace(0.8, 1.3, size[0], dtype=np.float32)[None, :, None]
    frame = np.clip(first * drift + rng.normal(0, 3, first.shape), 0, 255).astype(np.uint8)
    smooth = cv2.GaussianBlur(rng.uniform(size=size[::-1]).astype(np.float32), (0, 0), 4)
    background = smooth < np.quantile(smooth, seen) if seen < 1 else np.ones(size[::-1], bool)
    found = same_light(frame, first, background)
    assert np.array_equal(found, slow_same_light(frame, first, background))


def slow_mean_field(unary, lab, strength=1.3, contrast=10.0, rounds=3):
    """`mean_field` of all pixels, in float64."""
    C, H, W = unary.shape
    q = np.exp(unary - unary.max(0)).transpose(1, 2, 0)
    q /= q.sum(-1, keepdims=True)
    x = lab.astype(float)
    alike = [
        0.15 + 0.85 * np.exp(-(np.diff(x, axis=a) ** 2).sum(-1) / (2 * contrast**2)) for a in (0, 1)
    ]
    for _ in range(rounds):
        for colour in (0, 1):
            for i, j in np.ndindex(H, W):
                if (i + j + colour) % 2:
                    continue
                s = np.zeros(C)
                if i > 0:
                    s += alike[0][i - 1, j] * q[i - 1, j]
                if i + 1 < H:
                    s += alike[0][i, j] * q[i + 1, j]
                if j > 0:
                    s += alike[1][i, j - 1] * q[i, j - 1]
                if j + 1 < W:
                    s += alike[1][i, j] * q[i, j + 1]
                m = unary[:, i, j] + strength * s
                q[i, j] = np.exp(m - m.max()) / np.exp(m - m.max()).sum()
    return q


@pytest.mark.parametrize("spread", [1.0, 5.0, 30.0])
def test_what_is_left_alone_as_sure_changes_no_belief(spread):
    """From pixels of which none is sure to nearly all."""
    rng = np.random.default_rng(0)
    unary = rng.normal(0, spread, (4, 14, 18)).astype(np.float32)
    lab = rng.integers(90, 110, (14, 18, 3)).astype(np.uint8)
    found = mean_field(unary, lab, np.ones((14, 18), bool))
    np.testing.assert_allclose(found, slow_mean_field(unary, lab), atol=2e-6)


@pytest.fixture(scope="module")
def scene():
    task = load_task("cut_dough")
    view = build_view(task, RasterRenderer(samples=1).create())
    noise = np.random.default_rng(0).normal(0, 1.5, (12, *view.first_frame.shape))
    frames = np.clip(view.first_frame + noise, 0, 255).astype(np.uint8)
    return task, view, Video(frames=frames, fps=8.0)


def test_layers_of_a_video_that_was_classified_are_those(scene):
    task, view, video = scene
    asked = []

    def key_points(frames):
        asked.append(len(frames))
        return [[] for _ in frames]

    how = {"width": 160, "samples_per_s": 8.0, "key_points": key_points}
    regions = classify_task(task, view, video, **how)
    assert asked == [6]
    again = dataclasses.replace(video, frames=video.frames.copy())
    found = layers_of(task, view, again, **how)
    assert asked == [6], "the same pictures were classified twice"
    assert np.array_equal(found.labels, regions.labels)
    assert np.array_equal(found.hand_colours.table, regions.hand_colours.table)
    other = video.frames.copy()
    other[5, 100:140, 100:140] = 255
    changed = layers_of(task, view, dataclasses.replace(video, frames=other), **how)
    assert asked == [6, 6]
    assert not np.array_equal(changed.labels, regions.labels)
    layers_of(task, view, video, **how | {"width": 144})
    layers_of(task, view, video, **how | {"key_points": None})
    assert asked == [6, 6, 6]


def test_key_points_by_the_same_settings_are_the_same():
    a, b = (CommandHand(command=f"x {{video}} {{keypoints}} {i}") for i in (1, 2))
    assert key_points_by(a) == key_points_by(dataclasses.replace(a)) != key_points_by(b)
