"""How each pixel of one frame is explained, by what the first frame and the video taught.

A pixel that looks as in the first frame is what it was there. A changed one is explained by what was
there in another light, by an object's colours, by a hand, or by nothing. The place's grain tells
light from what lies in front, see `grain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.vision.appearance import (
    UNIFORM,
    BackgroundPlate,
    ColourModel,
    any_colour,
    cie_lab,
    colour_bins,
)
from lucibot.vision.exposure import same_light
from lucibot.vision.grain import REACH, WINDOW, Grain
from lucibot.vision.hands import border_of, held_from_outside, held_through, still_held
from lucibot.vision.labelling import (
    box_around,
    distance_to,
    mean_field,
    most_likely,
    warp,
)

HAND = 254
UNKNOWN = 255
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
QUIET = 0.1
"""Share of the samples that are quiet: noise is the same in all, hands and shadows come and go, and
light that changes goes on changing."""
LEAST_TONE = 0.02
"""Share of the picture from which on a tone's noise can be measured."""
TONES = 6
"""Ranges of lightness in which noise is measured apart: dark places show more of it."""
SHADED, LIT = 0.42, 1.25
"""Lightness of a place in the shade and in a highlight, as a share of what it was at first."""
DARKEST, BRIGHTEST = 0.2, 1.6
"""The same where its grain is still there."""
AROUND = 11
"""Side of the surroundings that must show their grain for any light to be believed [pixels]."""
GONE = 0.6
"""How surely, on the whole, the grain of surroundings must be gone to tell of a cover alone."""
GAPS = 11
"""Widest gap in a hand that is closed where its place's grain is gone [pixels]."""
LIGHTS = 200.0
"""Lightnesses that a place in another light may have, all alike [8 bits]."""
TINT = 3.0
"""By how many times the least difference in hue a light may tint a place that keeps its grain."""
SURE_GRAIN = 0.5
"""How sure the grain must be to decide alone, in [0, 1]."""
GRAIN = 2.0
"""What grain that is surely kept or lost says [nats]: on drawings, of other places one in five to ten
looks like it."""
SHADING = 0.1
"""Share of an object's pixels that are much lighter or darker than any at first."""
ENCLOSED = 0.9
"""Share of the ring around a part from which on it lies in what that ring shows."""


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


def _soft_lab(lab: np.ndarray, soft: float) -> np.ndarray:
    """(h, w, 3) float32 CIE Lab, hues blurred by `soft` pixels."""
    out = cv2.GaussianBlur(lab, (0, 0), 0.8)
    if soft > 0.8:
        out[..., 1:] = cv2.GaussianBlur(lab[..., 1:], (0, 0), soft)
    return out


@dataclass(frozen=True, kw_only=True)
class Look:
    """A frame, as `SceneModel.look` prepares it; (h, w) each."""

    image: np.ndarray
    """(h, w, 3) float32 CIE Lab."""
    kept: np.ndarray
    """From `grain`, where it is the place's."""
    differs: np.ndarray
    """Bool: what cannot pass for what it was at first."""
    lab: np.ndarray
    """(h, w, 3) uint8, `image` in 8 bits."""
    bins: np.ndarray
    """Of these, as the colour models have them."""


class SceneModel:
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
        self.grain = Grain(first_rgb)
        self.beside_all = grown(labels0 > 0, 2 * (WINDOW // 2 + REACH) + 1)
        """(h, w) bool: at and close to where objects were at first, whose grain is not the place's."""
        self.plate = BackgroundPlate(as_bytes(self.empty), np.ones(labels0.shape, bool))
        self.unmoved = BackgroundPlate(as_bytes(first), np.ones(labels0.shape, bool))
        self.beside = {
            i: [int(j) for j in np.unique(labels0[grown(labels0 == i, 5)]) if j not in (0, i)]
            for i in range(1, self.objects + 1)
        }  # fmt: skip
        bins = colour_bins(as_bytes(first))
        self.colours = [
            ColourModel(bins[labels0 == i + 1], shading=SHADING) for i in range(self.objects)
        ]
        self.most = np.full(self.objects, np.inf)
        """(N,) pixels that each object may cover."""
        self.span = [0.0] * self.objects
        """Of each object how far apart its parts may be seen [pixels]; 0 where that is not known."""
        self.reach: tuple[np.ndarray | None, ...] = (None,) * self.objects
        """Of each object where it can be seen at all."""
        self.posts: Sequence[np.ndarray] = ()
        """(h, w) bool each, narrow things that stand still: a hand may be on both sides of one."""
        self.hidden_arm = False
        """Whether an arm may be in the colours of what is behind it, in the shade, in all of the video."""
        self.hand = any_colour()
        """The hand's colours; any before they were learned."""

    def limit(
        self, rigid: tuple[bool, ...] | None, reach: tuple[np.ndarray | None, ...] | None
    ) -> None:
        """Give rigid objects a largest region, for they may turn and come nearer, but not spread;
        and others a place (h, w) bool where they are."""
        if rigid is not None:
            area = np.bincount(self.labels0.ravel(), minlength=self.objects + 1)[1:]
            self.most = np.where(rigid[: self.objects], SPREADS * area, np.inf)
            self.span = [
                np.sqrt(SPREADS) * _across(self.labels0 == i + 1) if rigid[i] else 0.0
                for i in range(self.objects)
            ]
        if reach is not None:
            self.reach = reach

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
        return _soft_lab(cie_lab(rgb), self.soft)

    def measure_noise(self, frames: list[np.ndarray]) -> np.ndarray:
        """Raise what counts as a difference by the noise of the background in `frames`, which are in the
        first one's light.

        Returns:
            (tones, 2) standard deviations of lightness and of a hue's axis against the first frame.
        """
        tone = np.clip(self.first[..., 0] / (100 / TONES), 0, TONES - 1).astype(int)
        background = self.labels0 == 0
        noise = np.zeros((TONES, 2))
        if frames:
            delta = np.abs(np.stack([self.lab(f) - self.first for f in frames]))
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
        """(h, w, 3) uint8: a frame in the first one's light, by what was background in the sample before
        (labels (h, w))."""
        return same_light(rgb, self.first_rgb, (before == 0) & (self.labels0 == 0))

    def look(self, rgb: np.ndarray) -> Look:
        """What is asked of a frame (h, w, 3) uint8, in the first one's light, more than once."""
        sharp = cie_lab(rgb)
        image = _soft_lab(sharp, self.soft)
        kept = self._of_place(image, self.grain.kept(rgb, sharp))
        lab = as_bytes(image)
        return Look(
            image=image, kept=kept, differs=self._differs(image - self.first, kept), lab=lab,
            bins=colour_bins(lab),
        )  # fmt: skip

    def moved(self, labels: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """(h, w) labels carried along a flow (h, w, 2) [px] where that is more than noise."""
        out = np.zeros_like(labels)
        for i in [*range(1, self.objects + 1), HAND]:
            box = box_around(labels == i, 16)
            if box is None:
                continue
            mine, way = labels[box] == i, flow[box]
            if not (mine & (np.abs(way[..., 0]) + np.abs(way[..., 1]) > 0.5)).any():
                out[box][mine] = i
                continue
            way = np.where(mine[..., None], way, np.float32(0))
            weight = cv2.blur(mine.astype(np.float32), (15, 15))
            way = cv2.blur(way, (15, 15)) / np.maximum(weight, 1e-3)[..., None]
            out[box][warp(mine, way) > 0.5] = i
        return out

    def foreign(self, seen: Look, before: np.ndarray, certain: np.ndarray) -> np.ndarray:
        """(h, w) labels of one frame on the first look, when nobody knows what a hand looks like:
        `HAND` is all that hangs together with the border and is no background, lit or shaded, and
        in no object's colours next to it.

        Args:
            before: (h, w) labels of the sample before, after their motion.
            certain: (h, w) bool, what a hand model takes for hands.
        """
        labels, kept = self.labels0.copy(), seen.kept
        ys, xs = np.nonzero(seen.differs)
        if len(ys) == 0:
            return labels
        lab, empty, chroma = seen.image[ys, xs], self.empty[ys, xs], self.chroma[ys, xs]
        # A shadow or a highlight changes lightness within bounds and hardly any hue.
        ratio, hue = relit(lab, empty)
        background = (ratio > SHADED) & (ratio < LIT) & (hue < 1.2 * chroma)
        grain = kept[ys, xs]
        # Much the same light needs no grain to be believed, unless that is gone all around.
        background &= (grain > -SURE_GRAIN) | (np.abs(lab[:, 0] - empty[:, 0]) < LIGHT)
        background &= ~_gone(kept)[ys, xs]
        density = np.stack([m.density(seen.bins[ys, xs]) for m in self.colours])
        known = grown((before > 0) & (before < HAND), 9)[ys, xs]
        label = np.where(background, 0, HAND).astype(np.uint8)
        for i, reach in enumerate(self.reach):
            if reach is not None:
                density[i, ~reach[ys, xs]] = 0
        own = known & (density.max(0) > OWN * UNIFORM)
        label[own] = (1 + density.argmax(0))[own]
        same = grain > SURE_GRAIN
        label[same] = self.labels0[ys, xs][same]
        label[certain[ys, xs]] = HAND
        labels[ys, xs] = label
        labels = self._kept_small(_filled(labels, kept), seen.bins)
        return self._clean(labels, before, certain, seen.differs)

    def classify(
        self, seen: Look, before: np.ndarray, near: np.ndarray, certain: np.ndarray
    ) -> np.ndarray:
        """(h, w) labels of one frame, when the hand's colours are known.

        Args:
            before: (h, w) labels of the sample before, after their motion.
            near: (h, w) bool, what the first look took for hands about this moment.
            certain: (h, w) bool, what a hand model takes for hands.
        """
        kept, changed = seen.kept, seen.differs
        if not changed.any():
            return self.labels0.copy()
        # What looks as it did at first is what it was.
        unary = np.full((self.objects + 3, *changed.shape), -30, np.float32)
        np.put_along_axis(unary, np.where(self.labels0 > 0, self.labels0 + 1, 0)[None], 0, 0)
        at = np.nonzero(changed)
        unary[:, *at] = self._evidence(seen, before, near, certain, at)
        found = most_likely(mean_field(unary, seen.lab, changed))
        names = np.array([0, HAND, *range(1, self.objects + 1), UNKNOWN], np.uint8)
        labels = self._kept_small(_filled(names[found], kept), seen.bins)
        # Where things meet, their colours mix to what may look like the background.
        known = np.where((labels > 0) & (labels < HAND), labels, 0).astype(np.uint8)
        seam = cv2.morphologyEx((known > 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5))) > 0
        seam &= changed & ((labels == 0) | (labels == UNKNOWN))
        labels[seam] = cv2.dilate(known, np.ones((5, 5)))[seam]
        return self._clean(labels, before, certain, seen.differs)

    def _evidence(self, seen: Look, before, near, certain, at) -> np.ndarray:
        """(3 + N, P) log-likelihoods and log-priors of background, hand, objects and anything else at P
        pixels `at`; the rest as in `classify`."""
        bins, lab, kept = seen.bins[at], seen.lab[at], seen.kept[at]
        first, chroma = self.labels0[at], self.chroma[at]
        background, _ = self.plate.density(lab, bins, at)
        # What keeps its grain may be in any light.
        ratio, hue = relit(seen.image[at], self.empty[at])
        other = np.exp(-0.5 * (hue / (2 * chroma)) ** 2) / (2 * np.pi * (2 * chroma) ** 2)
        # Single windows may be alike by chance.
        around = cv2.blur(np.maximum(seen.kept, 0), (AROUND, AROUND))[at]
        other *= np.clip(2 * around - 1, 0, 1) * (ratio > DARKEST) * (ratio < BRIGHTEST) / LIGHTS
        background = np.maximum(background, np.where(first == 0, other, 0))
        # A thing that stays where it was is shaded like the background is.
        unmoved, _ = self.unmoved.density(lab, bins, at)
        out = np.empty((self.objects + 3, len(bins)), np.float32)
        out[0] = np.log(0.6 * background + 0.02 * UNIFORM)
        out[0] += GRAIN * np.where(first == 0, kept, 0)
        out[1] = np.log(self.hand.density(bins)) + self._hand_prior(near)[at]
        for i in range(1, self.objects + 1):
            away = distance_to(before == i)[at]
            prior = -0.7 - 0.25 * np.maximum(away - 4, 0)
            prior = np.maximum(prior, np.where(first == i, -2.5, -6.0))
            density = self.colours[i - 1].density(bins)
            stayed = (first == i) & (before[at] == i)
            density = np.where(stayed, np.maximum(density, unmoved), density)
            out[1 + i] = np.log(density) + prior
            # What has gone from its place may still be there, otherwise turned.
            out[1 + i] += GRAIN * np.where(first == i, np.maximum(kept, 0), 0)
            if self.reach[i - 1] is not None:
                out[1 + i] -= np.where(self.reach[i - 1][at], np.float32(0), np.float32(20))
        out[2:-1] -= np.where(certain[at], np.float32(3), np.float32(0))
        out[-1] = np.log(0.05 * UNIFORM)
        return out

    def _hand_prior(self, near: np.ndarray) -> np.ndarray:
        """(h, w) log-probability that a hand is there."""
        far = cv2.distanceTransform((~near).astype(np.uint8), cv2.DIST_L2, 3)
        return np.log(0.02 + 0.4 * np.exp(-far / 8)).astype(np.float32)

    def learn_hand(
        self, pictures: list[Look], labels: list[np.ndarray], certain: np.ndarray
    ) -> None:
        """Learn the hand's colours from what has come in over the border, in pictures that
        were classified without knowing them, and from what is `certain` (K, h, w) bool."""
        seen, sure = [], []
        for picture, what, held in zip(pictures, labels, certain, strict=True):
            known = grown((what > 0) & (what < HAND), 5)
            inner = cv2.erode((what == HAND).astype(np.uint8), np.ones((3, 3))) > 0
            seen.append(picture.bins[inner & ~known & ~held])
            sure.append(picture.bins[(what == HAND) & held])
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

    def _of_place(self, image: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """(h, w) from `grain`, without what an object took with it when it left, and without what is
        alike by chance: no light makes another hue of a place."""
        ratio, hue = relit(image, self.first)
        lit = (hue < TINT * self.chroma) & (ratio > DARKEST) & (ratio < BRIGHTEST)
        kept = np.where(lit, kept, np.minimum(kept, 0))
        return np.where(self.beside_all, np.maximum(kept, 0), kept)

    def _differs(self, delta: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """(h, w) bool: what cannot pass for what it was at first; half of a difference will do where
        the grain is gone, and none where it is all around."""
        chroma = np.hypot(delta[..., 1], delta[..., 2])
        part = np.where(kept < -SURE_GRAIN, np.float32(0.5), np.float32(1))
        differs = (np.abs(delta[..., 0]) > part * self.light) | (chroma > part * self.chroma)
        return differs | _gone(kept)

    def _clean(
        self, labels: np.ndarray, before: np.ndarray, certain: np.ndarray, differs: np.ndarray
    ) -> np.ndarray:
        """Continuity: what is no object and no background is a hand where it is held from outside
        the picture, by what looks like shade where it was so held before; an object's colours count where they touch its region
        before, a hand that is near that or holds it, or what it lay in or on at first, from which it
        may come out again; anything else in those colours is unknown."""
        known = (before > 0) & (before < HAND)
        self._within(labels, certain)
        hands = held_from_outside(
            labels == HAND, self.border, known, certain & (labels == HAND), self.posts
        )
        if not hands.any():
            hands = still_held(labels == HAND, before == HAND, differs, self.border)
        if not hands.any() and self.hidden_arm:
            hands = held_through(labels == HAND, differs, self.border)
        labels[(labels == HAND) & ~hands] = UNKNOWN
        hand = grown(labels == HAND, 7)
        for i in range(1, self.objects + 1):
            mine = labels == i
            seed = grown(before == i, 9) | (hand & grown(before == i, 41)) | (self.labels0 == i)
            for j in self.beside[i]:
                seed |= grown(labels == j, 7)
            own = _touching(mine.astype(np.uint8), seed)
            rest = mine & ~own
            if self.span[i - 1] and (rest & hand).any():
                # What a hand holds comes out on its other side, and may have moved too fast to follow.
                near = distance_to(own) <= self.span[i - 1] if own.any() else hand
                own |= _touching(rest.astype(np.uint8), hand & near)
            labels[mine & ~own] = UNKNOWN
        return labels

    def _within(self, labels: np.ndarray, certain: np.ndarray) -> None:
        """Give parts that pass for a hand to the object that they lie in, all around: a drawer shows
        its inside when it opens, and a finger joins its hand at an object's edge."""
        _, parts, stats, _ = cv2.connectedComponentsWithStats((labels == HAND).astype(np.uint8))
        ends = np.zeros(len(stats), bool)
        ends[parts[self.border | certain]] = True
        for p in np.flatnonzero(~ends)[0 if ends[0] else 1 :]:
            x, y, w, h = (int(v) for v in stats[p, :4])
            around = np.s_[max(y - 3, 0) : y + h + 3, max(x - 3, 0) : x + w + 3]
            part = parts[around] == p
            ring = labels[around][grown(part, 5) & ~part]
            which = int(np.bincount(ring).argmax()) if len(ring) else 0
            if 0 < which < HAND and (ring == which).mean() > ENCLOSED:
                labels[around][part] = which


def _gone(kept: np.ndarray) -> np.ndarray:
    """(h, w) bool: where the grain is gone, and nearly all around as well."""
    return cv2.blur(np.minimum(kept, 0), (AROUND, AROUND)) < -GONE


def _filled(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`labels` (h, w), gaps in hands closed where the grain is not to be seen."""
    hand = cv2.morphologyEx(
        (labels == HAND).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((GAPS, GAPS), np.uint8)
    )
    labels[(hand > 0) & (labels == 0) & (kept < -0.5 * SURE_GRAIN)] = HAND
    return labels


def relit(lab: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of CIE Lab (..., 3) that was `first`: its lightness as a share, and how far its hue lies off.
    Hue scales with lightness, so the expected one is scaled along."""
    ratio = (lab[..., 0] + 3) / (first[..., 0] + 3)
    scale = np.clip(ratio, 0.3, 1.5)
    a, b = (lab[..., i] - scale * first[..., i] for i in (1, 2))
    return ratio, np.sqrt(a * a + b * b)


_TO_BYTES = np.float32([[2.55, 0, 0, 0], [0, 1, 0, 128], [0, 0, 1, 128]])
"""CIE Lab to 8-bit Lab, with what is added in the last column."""


def as_bytes(lab: np.ndarray) -> np.ndarray:
    """CIE Lab (..., 3) as 8-bit Lab, as the colour models have it."""
    if not lab.size:
        return np.zeros(lab.shape, np.uint8)
    scaled = np.rint(cv2.transform(lab.reshape(-1, 1, 3), _TO_BYTES))
    return np.clip(scaled, 0, 255).astype(np.uint8).reshape(lab.shape)


def _across(mask: np.ndarray) -> float:
    """The longest side of the narrowest box, however turned, around `mask` (h, w) bool [pixels]."""
    return max(cv2.minAreaRect(np.argwhere(mask).astype(np.float32))[1]) if mask.any() else 0.0


def grown(mask: np.ndarray, size: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0


def _touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected parts of `mask` that meet `seed`."""
    count, parts = cv2.connectedComponents(mask)
    keep = np.zeros(count, bool)
    keep[parts[seed & (mask > 0)]] = True
    keep[0] = False
    return keep[parts]
