"""What each changed pixel of a video is: hand, a known object, background under a shadow, or none.

A pixel that looks as in the first frame is what it was there. A changed one is explained, in this
order, by the background at that place (lit or shaded), by a hand (skin that has come in over the
border), by an object's colours, or by nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from einops import reduce

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video

HAND = 254
UNKNOWN = 255
FEATURES = 250
TRACKED = 0.15
"""Least share of the background's features from which the camera's motion is read."""
SHADE = 0.035
"""How far from an object its shadow may be worth a look [picture widths]."""
BINS = (14, 16, 16)
"""Histogram bins in L, a, b."""
LIGHT, CHROMA = 8.0, 5.5
"""Least differences in lightness and in hue that count: coding moves whole blocks by less."""
SPREAD = 4.0
"""Where noise is larger: how many of its standard deviations a difference must reach."""
SOFT = 0.8, 1.2, 1.6, 2.2
"""Standard deviations of the blur over hues [pixels]: eyes, coders and film see them coarsely too."""
HEAD = 24
"""Samples from which a video's noise is read."""
QUIET = 0.25
"""Share of the samples that are quiet: noise is the same in all, hands and shadows come and go."""
LEAST_TONE = 0.02
"""Share of the picture from which on a tone's noise can be measured."""
TONES = 6
"""Ranges of lightness in which noise is measured apart: dark places show more of it."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The classified video at a reduced size. K sampled frames, h x w pixels."""

    frames: np.ndarray
    """(K,) indices into the video."""
    labels: np.ndarray
    """(K, h, w) uint8: 0 background, i + 1 objects, `HAND`, `UNKNOWN`."""
    lab: np.ndarray
    """(K, h, w, 3) float32 CIE Lab, stabilised and light-compensated."""
    shift: np.ndarray
    """(K,) global motion since the first frame: the mean displacement of the corners / width."""
    tracked: np.ndarray
    """(K,) share of background features behind that figure."""
    noise: float
    """Standard deviation of the lightness against the first frame where nothing moves."""

    def object(self, i: int) -> np.ndarray:
        """(K, h, w) bool, visible pixels of object i."""
        return self.labels == i + 1

    @property
    def hand(self) -> np.ndarray:
        return self.labels == HAND


def pixels_of(masks: np.ndarray) -> np.ndarray:
    """How many pixels are set in each of masks (K, h, w) bool: (K,)."""
    return reduce(masks, "k h w -> k", "sum")


def classify(view: SceneView, video: Video, *, width: int, step: int) -> Regions:
    """Classify every `step`-th frame and the last ten at `width` pixels across."""
    h0, w0 = view.labels.shape
    size = (width, round(width * h0 / w0))
    tail = np.arange(max(len(video) - 10, 0), len(video))
    frames = np.unique(np.concatenate([np.arange(0, len(video), step), tail]))
    small = [cv2.resize(video.frames[i], size, interpolation=cv2.INTER_AREA) for i in frames]
    labels0 = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)

    small, shift, tracked = _stabilise(small, labels0)
    noise, model = _quiet_model(small, _empty(view, small[0], labels0), labels0)
    labels, lab, before = [], [], labels0
    for frame in small:
        image = model.lab(model.same_light(frame, before))
        before = model.classify(image, before)
        labels.append(before)
        lab.append(image)
    return Regions(
        frames=frames, labels=np.stack(labels), lab=np.stack(lab), shift=shift, tracked=tracked,
        noise=noise,
    )  # fmt: skip


def _empty(view: SceneView, first_rgb: np.ndarray, labels0: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: the scene without its objects; where nobody has a picture of that, as what
    surrounds them would go on behind them."""
    if view.background_frame is not None:
        size = labels0.shape[::-1]
        return cv2.resize(view.background_frame, size, interpolation=cv2.INTER_AREA)
    hidden = cv2.dilate((labels0 > 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    return cv2.inpaint(np.ascontiguousarray(first_rgb), hidden, 5, cv2.INPAINT_TELEA)


def _quiet_model(frames: list[np.ndarray], empty: np.ndarray, labels0: np.ndarray):
    """The model of a video's first frame, its colours averaged over as little as makes the noise
    pass below the least difference that counts; and that noise, the lightness's."""
    for soft in SOFT:
        model = _Model(frames[0], empty, labels0, soft)
        noise = model.measure_noise(frames[1:HEAD])
        if (SPREAD * noise[:, 1] <= CHROMA).all():
            break
    return float(noise[:, 0].max()), model


def _stabilise(frames: list[np.ndarray], labels0: np.ndarray):
    """Undo the camera's own motion, measured on background features (hands are outliers)."""
    h, w = labels0.shape
    first = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    background = (cv2.dilate((labels0 > 0).astype(np.uint8), np.ones((9, 9))) == 0).astype(np.uint8)
    points = cv2.goodFeaturesToTrack(first, FEATURES, 0.01, 5, mask=background)
    shift, tracked = np.zeros(len(frames)), np.zeros(len(frames))
    if points is None or len(points) < 12:
        return frames, shift, tracked
    corners = np.array([[0, 0], [w, 0], [0, h], [w, h]], float)
    out = []
    last = np.eye(2, 3)
    guess = points.copy()
    lk = {"winSize": (17, 17), "maxLevel": 3}
    for k, frame in enumerate(frames):
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        seen, ok, _ = cv2.calcOpticalFlowPyrLK(
            first, gray, points, guess.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **lk
        )
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(gray, first, seen, None, **lk)
        good = (ok & ok_back).ravel() > 0
        good &= np.linalg.norm((back - points).reshape(-1, 2), axis=1) < 1.0
        A, inliers = None, np.zeros(0)
        if good.sum() >= 12:
            A, inliers = cv2.estimateAffinePartial2D(
                points[good], seen[good], method=cv2.RANSAC, ransacReprojThreshold=1.5
            )
        tracked[k] = 0.0 if A is None else inliers.sum() / len(points)
        if tracked[k] < TRACKED or inliers.sum() < 0.3 * good.sum():
            # Too little background is seen; the camera is taken to stand as it did before.
            A, tracked[k] = last, 0.0
        last = A
        moved = corners @ A[:, :2].T + A[:, 2]
        shift[k] = np.linalg.norm(moved - corners, axis=1).mean() / w
        guess = (points.reshape(-1, 2) @ A[:, :2].T + A[:, 2]).astype(np.float32)[:, None]
        if shift[k] > 0.002:
            frame = cv2.warpAffine(
                frame, A, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
        out.append(frame)
    return out, shift, tracked


def _as_lit(empty_rgb: np.ndarray, first_rgb: np.ndarray, labels0: np.ndarray, shade: int):
    """The picture of the empty scene (h, w, 3) in the light of the video's first frame: at and
    around each object, within `shade` pixels, as it falls just outside of that."""
    empty = empty_rgb.astype(np.float32) + 8.0
    ratio, lit = (first_rgb + 8.0) / empty, empty.copy()
    shaded = grown(labels0 > 0, 2 * shade + 1)
    for i in range(1, int(labels0.max()) + 1):
        mine = labels0 == i
        ring = grown(mine, 2 * shade + 15) & ~shaded
        if ring.any():
            near = grown(mine, 2 * shade + 1)
            lit[near] = empty[near] * np.median(ratio[ring], axis=0)
    return np.clip(lit - 8.0, 0, 255).astype(np.uint8)


def _lab(rgb: np.ndarray, soft: float) -> np.ndarray:
    """(h, w, 3) float32 CIE Lab of (h, w, 3) uint8, hues blurred by `soft` pixels."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    out = cv2.GaussianBlur(lab, (0, 0), 0.8)
    if soft > 0.8:
        out[..., 1:] = cv2.GaussianBlur(lab[..., 1:], (0, 0), soft)
    return out


class _Model:
    """Appearance of background and objects, learned from the first frame."""

    def __init__(
        self, first_rgb: np.ndarray, empty_rgb: np.ndarray, labels0: np.ndarray, soft: float
    ):
        self.first_rgb, self.labels0 = first_rgb.astype(np.float32), labels0
        self.soft = soft
        self.first = first = self.lab(first_rgb)
        self.objects = int(labels0.max())
        self.light = np.full(labels0.shape, LIGHT, np.float32)
        self.chroma = np.full(labels0.shape, CHROMA, np.float32)
        # Around an object the first frame shows its shadow, which goes with it.
        shade = round(SHADE * labels0.shape[1])
        empty = self.lab(_as_lit(empty_rgb, first_rgb, labels0, shade))
        shaded = grown(labels0 > 0, 2 * shade + 1)
        self.empty = np.where(shaded[..., None], empty, first).astype(np.float32)
        self.beside = {
            i: [int(j) for j in np.unique(labels0[grown(labels0 == i, 5)]) if j not in (0, i)]
            for i in range(1, self.objects + 1)
        }  # fmt: skip
        self.histograms = np.stack([self._histogram(labels0 == i + 1) for i in range(self.objects)])

    def lab(self, rgb: np.ndarray) -> np.ndarray:
        return _lab(rgb, self.soft)

    def measure_noise(self, frames: list[np.ndarray]) -> np.ndarray:
        """Raise what counts as a difference by the noise of the background in `frames`.

        Returns:
            (tones, 2) standard deviations of lightness and of a hue's axis against the first frame.
        """
        tone = np.clip(self.first[..., 0] / (100 / TONES), 0, TONES - 1).astype(int)
        background = self.labels0 == 0
        noise = np.zeros((TONES, 2))
        if frames:
            delta = np.abs(np.stack([
                self.lab(self.same_light(f, self.labels0)) - self.first for f in frames
            ]))  # fmt: skip
            chroma = np.hypot(delta[..., 1], delta[..., 2])
            for i in range(TONES):
                at = background & (tone == i)
                if at.sum() < LEAST_TONE * at.size:
                    continue
                # What moves, or is shaded, covers less than half of a tone in the quieter samples.
                middle = [
                    np.quantile(np.median(d[:, at], axis=1), QUIET) for d in (delta[..., 0], chroma)
                ]
                # Of a half normal's and of a Rayleigh distribution's median.
                noise[i] = middle[0] / 0.674, middle[1] / 1.177
        # A tone that the background has not is as noisy as the noisiest.
        noise[noise[:, 0] == 0] = noise.max(0)
        self.light = np.maximum(LIGHT, SPREAD * noise[tone, 0]).astype(np.float32)
        self.chroma = np.maximum(CHROMA, SPREAD * noise[tone, 1]).astype(np.float32)
        return noise

    def _bins(self, lab: np.ndarray) -> tuple[np.ndarray, ...]:
        """Bin indices of colours (n, 3)."""
        at = ((lab - np.float32([0, -80, -80])) / np.float32([100, 160, 160]) * BINS).astype(int)
        return tuple(np.clip(at[:, k], 0, BINS[k] - 1) for k in range(3))

    def _histogram(self, mask: np.ndarray) -> np.ndarray:
        """Density over Lab bins, widened along lightness: a thing that moves is lit otherwise."""
        from scipy.ndimage import gaussian_filter

        counts = np.zeros(BINS, np.float32)
        np.add.at(counts, self._bins(self.first[mask]), 1.0)
        wide = gaussian_filter(counts, (1.5, 0.6, 0.6), mode="nearest")
        return wide / max(wide.sum(), 1e-9)

    def same_light(self, rgb: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Divide out a slow change of exposure and colour: median ratios over blocks of what was
        background in the sample before, smoothed, and bounded so that no new thing is divided
        out."""
        h, w = before.shape
        background = (before == 0) & (self.labels0 == 0)
        ratio = (rgb + np.float32(8)) / (self.first_rgb + 8)
        whole = np.median(ratio[background], axis=0) if background.any() else np.ones(3)
        rows, columns = 6, 8
        gain = np.tile(whole.astype(np.float32), (rows, columns, 1))
        for i in range(rows):
            for j in range(columns):
                block = np.s_[
                    i * h // rows : (i + 1) * h // rows, j * w // columns : (j + 1) * w // columns
                ]
                inside = background[block]
                if inside.mean() > 0.4:
                    local = np.median(ratio[block][inside], axis=0)
                    gain[i, j] = np.clip(local, 0.85 * whole, 1.18 * whole)
        gain = cv2.resize(cv2.blur(gain, (3, 3)), (w, h), interpolation=cv2.INTER_LINEAR)
        return np.clip((rgb + np.float32(8)) / gain - 8, 0, 255).astype(np.uint8)

    def classify(self, image: np.ndarray, before: np.ndarray) -> np.ndarray:
        """(h, w) labels of one frame, given the labels of the sample before."""
        labels = self.labels0.copy()
        ys, xs = np.nonzero(self._differs(image - self.first))
        if len(ys) == 0:
            return labels
        lab, empty, chroma = image[ys, xs], self.empty[ys, xs], self.chroma[ys, xs]
        # A shadow or a highlight changes lightness within bounds and hardly any hue; hue scales
        # with lightness, so the expected hue is scaled along.
        ratio = (lab[:, 0] + 3) / (empty[:, 0] + 3)
        scaled = np.clip(ratio, 0.3, 1.5)[:, None] * empty[:, 1:]
        hue = np.linalg.norm(lab[:, 1:] - scaled, axis=1)
        behind = (ratio > 0.42) & (ratio < 1.25) & (hue < 1.2 * chroma)
        density = self.histograms[(slice(None), *self._bins(lab))]
        best, like = density.argmax(0), density.max(0)
        known = (before > 0) & (before < HAND)
        near = cv2.dilate(known.astype(np.uint8), np.ones((9, 9)))[ys, xs] > 0
        # Skin colours spread over some hundred bins, so about one in a hundred is their density.
        skin = _skin(lab) & (like < np.where(near, 0.008, 0.03))
        own = like > np.where(near, 0.0015, 0.004)
        # Where an object was, or next to it, its colours count for more than a shadow.
        background = behind & ~(near & (like > 0.01))
        label = np.full(len(ys), UNKNOWN, np.uint8)
        label[own] = (best + 1)[own]
        label[skin] = HAND
        label[background] = 0
        labels[ys, xs] = label
        return self._clean(labels, before)

    def _differs(self, delta: np.ndarray) -> np.ndarray:
        chroma = np.hypot(delta[..., 1], delta[..., 2])
        return (np.abs(delta[..., 0]) > self.light) | (chroma > self.chroma)

    def _clean(self, labels: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Continuity: skin counts as hand where it hangs together with the border or with the hand
        before, an object's colours where they touch its region before, a hand, or what it lay in or
        on at first, from which it may come out again; anything else in those colours is unknown."""
        labels = cv2.medianBlur(labels, 3)
        skin = cv2.morphologyEx((labels == HAND).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
        border = _border_mask(labels.shape)
        keep = _touching(skin, border)
        if keep.any():
            # Blur and shadow may part a hand from its arm; without any arm it is no hand.
            keep |= _touching(skin, grown(before == HAND, 15))
        labels[(labels == HAND) & ~keep] = UNKNOWN
        hand = grown(labels == HAND, 7)
        for i in range(1, self.objects + 1):
            mine = labels == i
            seed = grown(before == i, 9) | (hand & grown(before == i, 41)) | (self.labels0 == i)
            for j in self.beside[i]:
                seed |= grown(labels == j, 7)
            labels[mine & ~_touching(mine.astype(np.uint8), seed)] = UNKNOWN
        return labels


def _skin(lab: np.ndarray) -> np.ndarray:
    """Skin of any lightness under warm to neutral light; wood is yellower, red paint redder."""
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    return (
        (lightness > 18) & (lightness < 93) & (a > 6) & (a < 42) & (b > 0) & (b < 36)
        & (b < 2.1 * a + 3) & (a < 3.0 * b + 10)
    )  # fmt: skip


def grown(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0


def grown_all(masks: np.ndarray, size: int) -> np.ndarray:
    """`grown` of each of masks (K, h, w)."""
    return np.stack([grown(m, size) for m in masks])


def _border_mask(shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[:2], out[-2:], out[:, :2], out[:, -2:] = True, True, True, True
    return out


def _touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected parts of `mask` that meet `seed`."""
    count, parts = cv2.connectedComponents(mask)
    keep = np.zeros(count, bool)
    keep[parts[seed & (mask > 0)]] = True
    keep[0] = False
    return keep[parts]
