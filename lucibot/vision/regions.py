"""What each changed pixel of a video is: hand, a known object, background under a shadow, or none.

A pixel that looks as in the first frame is what it was there. A changed one is explained, in this
order, by the background at that place (lit or shaded), by an object's colours, by a hand, or by
nothing. A hand is what has come in over the picture's border and is no known object, whatever it
looks like: its colours are learned in the video from where that is beyond doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from einops import reduce

from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.vision.appearance import (
    UNIFORM,
    BackgroundPlate,
    ColourModel,
    any_colour,
    colour_bins,
)
from lucibot.vision.hands import border_of, covered_by, held_from_outside
from lucibot.vision.labelling import mean_field, most_likely, signed_distance, warp

HAND = 254
UNKNOWN = 255
STILL = 0.002
"""Motion of the camera up to which nothing is done about it [picture widths]."""
FEATURES = 250
TRACKED = 0.15
"""Least share of the background's features from which the camera's motion is read."""
OWN = 5.0
"""From how many times an unknown colour's density on a colour is an object's own."""
SPREADS = 1.6
"""How much more of the picture than at first a rigid object may cover."""
LENT = 0.2
"""Share of an object's own density below which the hand's on the same colour is taken for a loan."""
SHADE = 0.035
"""How far from an object its shadow may be worth a look [picture widths]."""
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
    hand_colours: ColourModel = field(default_factory=any_colour)
    """What this video's hands look like."""

    def object(self, i: int) -> np.ndarray:
        """(K, h, w) bool, visible pixels of object i."""
        return self.labels == i + 1

    @property
    def hand(self) -> np.ndarray:
        return self.labels == HAND


def pixels_of(masks: np.ndarray) -> np.ndarray:
    """How many pixels are set in each of masks (K, h, w) bool: (K,)."""
    return reduce(masks, "k h w -> k", "sum")


KeyPoints = Callable[[np.ndarray], list[list[np.ndarray]]]
"""Of frames (T, H, W, 3) uint8 the key points (21, 2) [px] of the hands in each."""


def classify(
    view: SceneView, video: Video, *, width: int, step: int,
    rigid: tuple[bool, ...] | None = None, key_points: KeyPoints | None = None,
) -> Regions:  # fmt: skip
    """Classify every `step`-th frame and the last ten at `width` pixels across.

    Args:
        rigid: of each object whether it keeps its size and is not drawn out of another one.
        key_points: where there is a hand model, every other of these frames is shown to it.
    """
    h0, w0 = view.labels.shape
    size = (width, round(width * h0 / w0))
    tail = np.arange(max(len(video) - 10, 0), len(video))
    frames = np.unique(np.concatenate([np.arange(0, len(video), step), tail]))
    small = [cv2.resize(video.frames[i], size, interpolation=cv2.INTER_AREA) for i in frames]
    labels0 = cv2.resize(view.labels, size, interpolation=cv2.INTER_NEAREST)

    small, shift, tracked = _stabilise(small, labels0)
    noise, model = _quiet_model(small, _empty(view, small[0], labels0), labels0)
    if rigid is not None:
        model.limit(rigid)
    flows = _flows(small)
    certain = _certain(video.frames, frames, shift, labels0.shape, key_points)
    lab, labels, before = [], [], labels0
    for frame, flow, known in zip(small, flows, certain, strict=True):
        image = model.lab(model.same_light(frame, before))
        before = model.foreign(image, model.moved(before, flow), known)
        lab.append(image)
        labels.append(before)
    model.learn_hand(lab, labels, certain)
    hands = np.stack([x == HAND for x in labels])
    labels, before = [], labels0
    for k, (image, flow, known) in enumerate(zip(lab, flows, certain, strict=True)):
        near = hands[max(k - 1, 0) : k + 2].any(0)
        before = model.classify(image, model.moved(before, flow), near, known)
        labels.append(before)
    return Regions(
        frames=frames, labels=np.stack(labels), lab=np.stack(lab), shift=shift, tracked=tracked,
        hand_colours=model.hand, noise=noise,
    )  # fmt: skip


def _certain(
    pictures: np.ndarray, frames: np.ndarray, shift: np.ndarray, size: tuple[int, int],
    key_points: KeyPoints | None,
) -> np.ndarray:  # fmt: skip
    """(K, h, w) bool: what a hand model takes for hands; where a camera still moves, none."""
    out = np.zeros((len(frames), *size), bool)
    asked = np.flatnonzero((np.arange(len(frames)) % 2 == 0) & (shift <= STILL))
    if key_points is None or not len(asked):
        return out
    scale = size[1] / pictures.shape[2]
    for k, hands in zip(asked, key_points(pictures[frames[asked]]), strict=True):
        for points in hands:
            if np.isfinite(points).all():
                out[k] |= covered_by(scale * points, size)
    return out


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


def _flows(frames: list[np.ndarray]) -> list[np.ndarray]:
    """(h, w, 2) optical flow to each frame from the one before it [px]; zero to the first."""
    gray = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    still = np.zeros((*gray[0].shape, 2), np.float32)
    return [still] + [dis.calc(a, b, None) for a, b in pairwise(gray)]


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
        if shift[k] > STILL:
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
    """Appearance of background, objects and hand, learned from the first frame and the video."""

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
        self.border = border_of(labels0.shape)
        self.plate = BackgroundPlate(_bytes(self.empty), np.ones(labels0.shape, bool))
        self.unmoved = BackgroundPlate(_bytes(first), np.ones(labels0.shape, bool))
        self.beside = {
            i: [int(j) for j in np.unique(labels0[grown(labels0 == i, 5)]) if j not in (0, i)]
            for i in range(1, self.objects + 1)
        }  # fmt: skip
        bins = colour_bins(_bytes(first))
        self.colours = [ColourModel(bins[labels0 == i + 1]) for i in range(self.objects)]
        self.most = np.full(self.objects, np.inf)
        """(N,) pixels that each object may cover."""
        self.hand = any_colour()
        """The hand's colours; any before they were learned."""

    def limit(self, rigid: tuple[bool, ...]) -> None:
        """Give those objects a largest region: they may turn and come nearer, but not spread."""
        area = np.bincount(self.labels0.ravel(), minlength=self.objects + 1)[1:]
        self.most = np.where(rigid, SPREADS * area, np.inf)

    def _kept_small(self, labels: np.ndarray, bins: np.ndarray) -> np.ndarray:
        """`labels` (h, w), what is too much of a rigid object given to a hand: what looks least
        like the object."""
        for i in range(1, self.objects + 1):
            mine = labels == i
            excess = int(mine.sum() - self.most[i - 1]) if np.isfinite(self.most[i - 1]) else 0
            if excess > 0:
                like = self.colours[i - 1].density(bins[mine])
                own = np.full(len(like), i, labels.dtype)
                own[np.argsort(like, kind="stable")[:excess]] = HAND
                labels[mine] = own
        return labels

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

    def same_light(self, rgb: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Divide out a slow change of exposure and colour: median ratios over blocks of what was
        background in the sample before, smoothed, and bounded so that no new thing is divided
        out."""
        h, w = before.shape
        # Every other pixel tells as much.
        some = np.s_[::2, ::2]
        background = ((before == 0) & (self.labels0 == 0))[some]
        ratio = (rgb[some] + np.float32(8)) / (self.first_rgb[some] + 8)
        whole = np.median(ratio[background], axis=0) if background.any() else np.ones(3)
        rows, columns = 6, 8
        gain = np.tile(whole.astype(np.float32), (rows, columns, 1))
        y, x = (
            np.linspace(0, n, m + 1).astype(int)
            for n, m in zip(background.shape, (rows, columns), strict=True)
        )
        for i in range(rows):
            for j in range(columns):
                block = np.s_[y[i] : y[i + 1], x[j] : x[j + 1]]
                inside = background[block]
                if inside.mean() > 0.4:
                    local = np.median(ratio[block][inside], axis=0)
                    gain[i, j] = np.clip(local, 0.85 * whole, 1.18 * whole)
        gain = cv2.resize(cv2.blur(gain, (3, 3)), (w, h), interpolation=cv2.INTER_LINEAR)
        return np.clip((rgb + np.float32(8)) / gain - 8, 0, 255).astype(np.uint8)

    def moved(self, labels: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """(h, w) labels carried along a flow (h, w, 2) [px] where that is more than noise."""
        out = np.zeros_like(labels)
        for i in [*range(1, self.objects + 1), HAND]:
            mine = labels == i
            if not mine.any():
                continue
            moves = mine & (np.abs(flow[..., 0]) + np.abs(flow[..., 1]) > 0.5)
            if not moves.any():
                out[mine] = i
                continue
            way = np.where(mine[..., None], flow, np.float32(0))
            weight = cv2.blur(mine.astype(np.float32), (15, 15))
            way = cv2.blur(way, (15, 15)) / np.maximum(weight, 1e-3)[..., None]
            out[warp(mine, way) > 0.5] = i
        return out

    def foreign(self, image: np.ndarray, before: np.ndarray, certain: np.ndarray) -> np.ndarray:
        """(h, w) labels of one frame on the first look, when nobody knows what a hand looks like:
        `HAND` is all that hangs together with the border and is no background, lit or shaded, and
        in no object's colours next to it.

        Args:
            image: (h, w, 3) from `lab`.
            before: (h, w) labels of the sample before, after their motion.
            certain: (h, w) bool, what a hand model takes for hands.
        """
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
        background = (ratio > 0.42) & (ratio < 1.25) & (hue < 1.2 * chroma)
        density = np.stack([m.density(colour_bins(_bytes(lab[None]))[0]) for m in self.colours])
        known = grown((before > 0) & (before < HAND), 9)[ys, xs]
        label = np.where(background, 0, HAND).astype(np.uint8)
        own = known & (density.max(0) > OWN * UNIFORM)
        label[own] = (1 + density.argmax(0))[own]
        label[certain[ys, xs]] = HAND
        labels[ys, xs] = label
        labels = self._kept_small(labels, colour_bins(_bytes(image)))
        return self._clean(labels, before, certain)

    def classify(
        self, image: np.ndarray, before: np.ndarray, near: np.ndarray, certain: np.ndarray
    ) -> np.ndarray:
        """(h, w) labels of one frame, when the hand's colours are known.

        Args:
            image: (h, w, 3) from `lab`.
            before: (h, w) labels of the sample before, after their motion.
            near: (h, w) bool, what the first look took for hands about this moment.
            certain: (h, w) bool, what a hand model takes for hands.
        """
        changed = self._differs(image - self.first)
        if not changed.any():
            return self.labels0.copy()
        lab = _bytes(image)
        bins = colour_bins(lab)
        background, _ = self.plate.density(lab, bins)
        # A thing that stays where it was is shaded like the background is.
        unmoved, _ = self.unmoved.density(lab, bins)
        unary = np.empty((self.objects + 3, *changed.shape), np.float32)
        unary[0] = np.log(0.6 * background + 0.02 * UNIFORM)
        unary[1] = np.log(self.hand.density(bins)) + self._hand_prior(near)
        for i in range(1, self.objects + 1):
            away = np.maximum(-signed_distance(before == i), 0)
            prior = -0.7 - 0.25 * np.maximum(away - 4, 0)
            prior = np.maximum(prior, np.where(self.labels0 == i, -2.5, -6.0))
            density = self.colours[i - 1].density(bins)
            stayed = (self.labels0 == i) & (before == i)
            density = np.where(stayed, np.maximum(density, unmoved), density)
            unary[1 + i] = np.log(density) + prior
        unary[2:-1, certain] -= 3.0
        unary[-1] = np.log(0.05 * UNIFORM)
        # What looks as it did at first is what it was.
        unary[:, ~changed] = -30
        classes = np.where(self.labels0 > 0, self.labels0 + 1, 0)
        np.put_along_axis(unary, classes[None], np.where(changed, np.take_along_axis(
            unary, classes[None], 0)[0], 0)[None], 0)  # fmt: skip
        found = most_likely(mean_field(unary, lab, changed))
        names = np.array([0, HAND, *range(1, self.objects + 1), UNKNOWN], np.uint8)
        labels = self._kept_small(names[found], bins)
        # Where things meet, their colours mix to what may look like the background.
        known = np.where((labels > 0) & (labels < HAND), labels, 0).astype(np.uint8)
        seam = cv2.morphologyEx((known > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5))) > 0
        seam &= changed & ((labels == 0) | (labels == UNKNOWN))
        labels[seam] = cv2.dilate(known, np.ones((5, 5)))[seam]
        return self._clean(labels, before, certain)

    def _hand_prior(self, near: np.ndarray) -> np.ndarray:
        """(h, w) log-probability that a hand is there."""
        far = cv2.distanceTransform((~near).astype(np.uint8), cv2.DIST_L2, 3)
        return np.log(0.02 + 0.4 * np.exp(-far / 8)).astype(np.float32)

    def learn_hand(
        self, lab: list[np.ndarray], labels: list[np.ndarray], certain: np.ndarray
    ) -> None:
        """Learn the hand's colours from what has come in over the border, in pictures `lab` that
        were classified without knowing them, and from what is `certain` (K, h, w) bool."""
        seen, sure = [], []
        for image, what, held in zip(lab, labels, certain, strict=True):
            known = grown((what > 0) & (what < HAND), 5)
            inner = cv2.erode((what == HAND).astype(np.uint8), np.ones((3, 3))) > 0
            seen.append(colour_bins(_bytes(image[inner & ~known & ~held][None]))[0])
            sure.append(colour_bins(_bytes(image[(what == HAND) & held][None]))[0])
        bins, sure = np.concatenate(seen), np.concatenate(sure)
        if len(bins):
            # An object that moved too fast to be known has lent some of its colours.
            own = np.max([m.density(bins) for m in self.colours], axis=0)
            bins = bins[ColourModel(bins).density(bins) > LENT * own]
        if len(sure) and len(bins):
            # What a hand model saw is little, but sure: it counts as much as all the rest.
            sure = np.repeat(sure, max(1, round(len(bins) / len(sure))))
        bins = np.concatenate([bins, sure])
        if len(bins):
            self.hand = ColourModel(bins, outliers=0.05, shading=0.15)

    def _differs(self, delta: np.ndarray) -> np.ndarray:
        chroma = np.hypot(delta[..., 1], delta[..., 2])
        return (np.abs(delta[..., 0]) > self.light) | (chroma > self.chroma)

    def _clean(self, labels: np.ndarray, before: np.ndarray, certain: np.ndarray) -> np.ndarray:
        """Continuity: what is no object and no background is a hand where it is held from outside
        the picture, an object's colours count where they touch its region
        before, a hand, or what it lay in or on at first, from which it may come out again; anything
        else in those colours is unknown."""
        known = (before > 0) & (before < HAND)
        hands = held_from_outside(labels == HAND, self.border, known, certain & (labels == HAND))
        labels[(labels == HAND) & ~hands] = UNKNOWN
        hand = grown(labels == HAND, 7)
        for i in range(1, self.objects + 1):
            mine = labels == i
            seed = grown(before == i, 9) | (hand & grown(before == i, 41)) | (self.labels0 == i)
            for j in self.beside[i]:
                seed |= grown(labels == j, 7)
            labels[mine & ~_touching(mine.astype(np.uint8), seed)] = UNKNOWN
        return labels


def _bytes(lab: np.ndarray) -> np.ndarray:
    """CIE Lab (..., 3) as 8-bit Lab, as the colour models have it."""
    return np.clip(
        np.round(lab * np.float32([2.55, 1, 1]) + np.float32([0, 128, 128])), 0, 255
    ).astype(np.uint8)


def grown(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0


def grown_all(masks: np.ndarray, size: int) -> np.ndarray:
    """`grown` of each of masks (K, h, w)."""
    return np.stack([grown(m, size) for m in masks])


def _touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected parts of `mask` that meet `seed`."""
    count, parts = cv2.connectedComponents(mask)
    keep = np.zeros(count, bool)
    keep[parts[seed & (mask > 0)]] = True
    keep[0] = False
    return keep[parts]
