"""The embedded verifier: the paper's rubric (section 3.2) measured from pixels, without a VLM.

It sees the video, the known first frame with its masks, the roles and the goal relations; never
what a video model planned. Each deduction carries the value that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from lucibot.core.scene_view import SceneView
from lucibot.core.similarity import scene_similarity
from lucibot.core.video import Video
from lucibot.providers.hand import key_points_by
from lucibot.providers.verifier import goals
from lucibot.providers.verifier.base import NO_GOAL, Shown, Verdict
from lucibot.providers.verifier.config import PixelVerifier
from lucibot.providers.verifier.hues import Hues
from lucibot.providers.verifier.motion import carried, exchanged, shifted, untouched
from lucibot.task import Task
from lucibot.vision.clip import seen_background
from lucibot.vision.hands import HAND_SEEN
from lucibot.vision.regions import (
    Regions,
    classify_task,
    grown_all,
    looked_at,
    pixels_of,
    step_of,
)
from lucibot.vision.scene_model import CHROMA, HAND, SHADED, UNKNOWN, grown, relit
from lucibot.vision.standing import outlines
from lucibot.vision.steady import FREE, CameraMotion, follow_camera, taken_out

EVEN, MOSTLY = 0.08, 0.7
"""How far light that is even may lie from its median, as a share of it; and the share of a shadow that is
lit evenly: the rest is its soft edge."""


class Judge:
    def __init__(self, config: PixelVerifier):
        self.config = config
        self._key_points = key_points_by(config.hand)

    def judge(self, task: Task, view: SceneView, video: Video) -> Verdict:
        """The rubric's points for one video on the task camera's grid."""
        c = self.config
        video, motion, looked = self._steadied(view, video)
        regions = classify_task(
            task, view, video, width=c.width, samples_per_s=c.samples_per_s,
            key_points=self._key_points,
        )  # fmt: skip
        seconds = regions.frames / video.fps
        reasons: list[str] = []
        evidence: dict[str, float] = {"noise": regions.noise}
        shown: list[Shown] = []

        match = 6.0 - self._first_frame(view, video, reasons, evidence)
        match -= self._drift(motion, looked, reasons, evidence, shown)
        if _moves_alone(task, regions):
            slides = evidence["self_motion"] = evidence["self_shift"] = 0.0
        else:
            slides = self._self_motion(task, regions, seconds, reasons, evidence, shown)
        match -= 2.0 * slides
        motion = 3.0 - 2.0 * slides - self._hands(task.spec.hands, regions, reasons, evidence)
        h, w = regions.labels.shape[1:]
        standing = outlines(task, view.camera.resized(w, h))
        new_object = self._new_object(regions, standing, seconds, reasons, evidence, shown)
        goal = self._goal(task, view, video, regions, seconds, reasons, evidence)
        doubt = max(
            evidence["self_motion"] / self.config.self_motion,
            evidence["self_shift"] / self.config.self_shift,
            evidence["unexplained_area"] / self.config.new_object_area,
            evidence["unexplained_strength"] / self.config.new_object_area,
            evidence["background_drift"] / self.config.drift_free,
        )
        return Verdict(
            match=float(np.clip(match, 2, 6)), motion=float(np.clip(motion, 1, 3)),
            goal=float(np.clip(goal, 2, 6)), new_object=new_object, reasons=tuple(reasons),
            doubt=doubt, evidence=evidence, shown=tuple(shown),
        )  # fmt: skip

    def _first_frame(self, view, video: Video, reasons, evidence) -> float:
        similarity = scene_similarity(video.frames[0], view)
        worst = min(similarity, key=similarity.get)
        evidence["first_frame_similarity"] = similarity[worst]
        # Other scenes give 0.5 at most; there the video is of something else.
        lost = 4.0 * float(np.clip((self.config.same_scene - similarity[worst]) / 0.25, 0, 1))
        if lost > 0:
            reasons.append(
                f"the first frame shows {worst!r} otherwise than the scene does (similarity "
                f"{similarity[worst]:.2f}, wanted {self.config.same_scene:.2f})"
            )
        return lost

    def _steadied(self, view: SceneView, video: Video):
        """The video, its camera at rest in the frames that are looked at; what that did; and those
        frames. What is measured of things must not be the camera's."""
        looked = looked_at(len(video), step_of(video, self.config.samples_per_s))
        motion = follow_camera(video.frames[looked], seen_background(video, view))
        if motion.largest > FREE:
            frames = video.frames.copy()
            for t, A in zip(looked, motion.A, strict=True):
                frames[t] = taken_out(frames[t], A)
            video = replace(video, frames=frames)
        return video, motion, looked

    def _drift(self, motion: CameraMotion, looked: np.ndarray, reasons, evidence, shown) -> float:
        """Deductions for a camera that moves; as a clip is read, what can be is taken out before."""
        c = self.config
        drift = evidence["background_drift"] = motion.largest
        lost = 4.0 * float(np.clip((drift - c.drift_free) / (c.drift_bad - c.drift_free), 0, 1))
        if lost > 0:
            reasons.append(f"the camera moves: the background drifts by {drift:.1%} of the width")
            t = int(np.where(motion.known, motion.displacement, 0).argmax())
            shown.append(Shown(frame=int(looked[t]), words=reasons[-1], over=0))
        return lost

    def _self_motion(
        self, task: Task, regions: Regions, seconds, reasons, evidence, shown
    ) -> float:
        """How sure it is, in [0, 1], that an object moves although nothing touches it.

        It moves when its region does, or what is seen on it: a block that turns keeps its outline.
        """
        c, hues = self.config, Hues(regions, len(task.objects))
        measures = {
            "self_motion": (exchanged, c.self_motion, "{:.0%} of its region changes"),
            "self_shift": (
                partial(shifted, hues=hues),
                c.self_shift,
                "it shifts by {:.1%} of the picture's width",
            ),
        }
        worst = {name: (0.0, -1, 0, 0) for name in measures}
        w = regions.labels.shape[2]
        reach = np.ones((2 * round(0.03 * w) + 1,) * 2, np.uint8)
        hand = np.stack([cv2.dilate(m.astype(np.uint8), reach) > 0 for m in regions.hand])
        for i in range(len(task.objects)):
            touched = pixels_of(hand & grown_all(regions.object(i), 3)) > 3
            for after, earlier in untouched(touched, seconds):
                # What shifts has shifted most since the earliest moment.
                pairs = [("self_motion", k) for k in earlier] + [("self_shift", earlier[0])]
                for name, before in pairs:
                    value = measures[name][0](regions, i, before, after)
                    if value > worst[name][0] and not carried(regions, i, before, after, hand):
                        worst[name] = value, i, before, after
        sure = 0.0
        for name, (_, limit, words) in measures.items():
            evidence[name], i, before, after = worst[name]
            above = float(np.clip((evidence[name] / limit - 1) / 0.5, 0, 1))
            if above > 0:
                reasons.append(
                    f"{task.objects[i].name!r} moves without being touched: "
                    f"{words.format(evidence[name])} before {seconds[after]:.1f} s with no hand near"
                )
                box = _box(regions.object(i)[[before, after]].any(0))
                now, then = (int(regions.frames[k]) for k in (after, before))
                shown.append(Shown(frame=now, words=reasons[-1], box=box, over=then))
            sure = max(sure, above)
        return sure

    def _hands(self, wanted: str, regions: Regions, reasons, evidence) -> float:
        """Deductions for a hand that does not come from outside, or is not there at all; and for
        any, where the task wants none."""
        hand = regions.hand
        area = pixels_of(hand) / hand[0].size
        seen = area > HAND_SEEN
        evidence["hand_share_of_frames"] = float(seen.mean())
        if wanted == "none":
            if seen.any():
                reasons.append(
                    f"a hand is seen in {seen.mean():.0%} of the frames, and the task wants none"
                )
            return float(seen.any())
        if not seen.any():
            if wanted == "optional":
                return 0.0
            reasons.append("no hand is seen in the video")
            return 1.0
        border = hand.copy()
        border[:, 2:-2, 2:-2] = False
        first = int(np.argmax(seen))
        comes_in = bool(border[max(first - 1, 0) : first + 2].any())
        # A hand that is there from one sample to the next all over the picture was not moved in.
        leap = float(np.max(np.diff(area), initial=0.0))
        evidence["hand_leap"] = leap
        lost = 0.0
        if not comes_in:
            lost += 1.0
            reasons.append(
                "the hand appears inside the picture instead of coming in over its border"
            )
        if leap > 0.20:
            lost += 0.5
            reasons.append(f"the hand leaps: it covers {leap:.0%} more of the picture at once")
        return lost

    def _new_object(self, regions: Regions, standing, seconds, reasons, evidence, shown) -> bool:
        """A compact region that nothing explains and that stays where it is. A small one has to stand out
        the more, and clear of hands and objects, whose ends and undersides are not always known."""
        c = self.config
        # Where an object stood at first its edge is blurred into what lies under it.
        start = (regions.labels[0] > 0) & (regions.labels[0] < HAND)
        known = cv2.dilate(start.astype(np.uint8), np.ones((5, 5))) > 0
        odd, clear = [], []
        for k in range(len(regions.labels)):
            # What an object's colours have strayed to belongs to the same thing as what lies in it.
            labels = regions.labels[k].copy()
            labels[_strays(labels, standing)] = UNKNOWN
            odd.append(_unexplained(labels) & ~known)
            clear.append(_clear_of((labels > 0) & (labels != UNKNOWN), odd[k]))
        nothing = _Stays(share=0.0, differs=0.0, where=np.zeros(regions.labels.shape[1:], bool))
        large = max([nothing, *self._what_stays(regions, odd, seconds)], key=lambda s: s.share)
        small = max([nothing, *self._what_stays(regions, clear, seconds)], key=lambda s: s.strength)
        evidence["unexplained_area"] = large.share
        evidence["unexplained_strength"] = small.strength
        if large.share >= c.new_object_area:
            new = large
        elif small.share >= c.new_object_least_area and small.strength >= c.new_object_area:
            new = small
        else:
            return False
        x, y = new.middle
        reasons.append(
            f"something appears that was not in the first frame: {new.share:.2%} of the picture near "
            f"({x:.0%}, {y:.0%}) of its width and height"
        )
        seen = [(labels == UNKNOWN)[new.where].sum() for labels in regions.labels]
        t = int(regions.frames[int(np.argmax(seen))])
        shown.append(Shown(frame=t, words=reasons[-1], box=_box(new.where)))
        return True

    def _what_stays(self, regions: Regions, odd: list[np.ndarray], seconds) -> Iterator[_Stays]:
        """The parts of `odd` (h, w) bool at each sample that stay, and differ enough from what was there."""
        c = self.config
        h, w = regions.labels.shape[1:]
        delta = np.linalg.norm(regions.lab - regions.lab[0], axis=-1)
        run = np.zeros((h, w), np.float32)
        longest, contrast = run.copy(), run.copy()
        when = np.zeros((h, w), int)
        for k in range(1, len(regions.labels)):
            covered = regions.labels[k] == HAND
            gap = seconds[k] - seconds[k - 1]
            # A hand in front neither ends nor lengthens the stay.
            run = np.where(odd[k], run + gap, np.where(covered, run, 0)).astype(np.float32)
            better = run > longest
            longest[better], contrast[better] = run[better], delta[k][better]
            when[better] = k
        stays = (longest >= c.new_object_s).astype(np.uint8)
        stays = cv2.morphologyEx(stays, cv2.MORPH_OPEN, np.ones((5, 5)))
        _, parts, stats, _ = cv2.connectedComponentsWithStats(stays)
        for p in range(1, len(stats)):
            part = parts == p
            differs = float(contrast[part].mean()) / c.new_object_contrast
            if differs >= 1 and not _shadow(regions, part, when):
                share = float(stats[p, cv2.CC_STAT_AREA] / (h * w))
                yield _Stays(share=share, differs=differs, where=part)

    def _goal(self, task, view, video, regions, seconds, reasons, evidence) -> float:
        c = self.config
        if not task.spec.goal:
            reasons.append(NO_GOAL.format(folder=task.folder))
            return 4.0  # Half of the points: a video without any other fault is usable.
        last = seconds >= seconds[-1] - c.held_s
        shares = []
        for kind, relation in goals.relations(task):
            holds = goals.measure(task, view, video, regions, kind, relation)
            judged = holds[last & np.isfinite(holds)]
            name = f"{kind} {relation.object}"
            share = float(judged.mean()) if len(judged) else 0.0
            evidence[f"goal: {name}"] = share
            if not len(judged):
                reasons.append(f"a hand hides whether the goal '{name}' is reached at the end")
            elif share < 0.8:
                ever = np.nanmean(holds) > 0.1
                what = "is not held" if ever else "is not reached"
                reasons.append(
                    f"the goal '{name}' {what}: it holds in {share:.0%} of the last {c.held_s} s"
                )
            shares.append(share)
        return 2.0 + 4.0 * float(np.clip(min(shares) / 0.8, 0, 1))


@dataclass(frozen=True, kw_only=True)
class _Stays:
    """A region that stays where it is."""

    share: float
    """Of the picture."""
    differs: float
    """From what was there [the least that counts]."""
    where: np.ndarray
    """(h, w) bool"""

    @property
    def strength(self) -> float:
        return self.share * self.differs

    @property
    def middle(self) -> tuple[float, float]:
        """Across and down, as shares of the picture."""
        h, w = self.where.shape
        ys, xs = np.nonzero(self.where)
        return round(xs.mean() / w, 2), round(ys.mean() / h, 2)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom edge of a mask (h, w), as shares of the picture."""
    h, w = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, right = columns[[0, -1]] + [0, 1]
    top, bottom = rows[[0, -1]] + [0, 1]
    return float(left / w), float(top / h), float(right / w), float(bottom / h)


def _moves_alone(task: Task, regions: Regions) -> bool:
    """Whether objects that move with no hand near are what the task asks for."""
    seen = (pixels_of(regions.hand) > HAND_SEEN * regions.labels[0].size).any()
    return task.spec.hands == "none" or (task.spec.hands == "optional" and not seen)


def _unexplained(labels: np.ndarray) -> np.ndarray:
    """Unknown regions, but those enclosed by a hand or a known object: highlights on them."""
    odd = cv2.morphologyEx((labels == UNKNOWN).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    count, parts = cv2.connectedComponents(odd)
    out = odd > 0
    something = (labels > 0) & (labels != UNKNOWN)
    for p in range(1, count):
        part = parts == p
        # A thing's blurred edge may take on a known object's colours: look beyond it as well.
        if _enclosed(part, something) and _enclosed(grown(part, 5), something):
            out[part] = False
    return out


def _shadow(regions: Regions, part: np.ndarray, when: np.ndarray) -> bool:
    """Whether `part` (h, w) bool is what it was at first, darkened at the samples `when` (h, w), in most
    of it alike and in its own hue. A thing shows sides in more than one light."""
    inner = np.nonzero(cv2.erode(part.astype(np.uint8), np.ones((3, 3))))
    if not len(inner[0]):
        return False
    ratio, hue = relit(regions.lab[when[inner], *inner], regions.lab[0][inner])
    middle = np.median(ratio)
    even = np.abs(ratio / middle - 1) < EVEN
    return bool(
        SHADED < middle < 1 and even.mean() >= MOSTLY and np.quantile(hue[even], 0.9) < CHROMA
    )


def _clear_of(something: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """The parts of `odd` (h, w) bool around which hardly anything of `something` is."""
    count, parts = cv2.connectedComponents(odd.astype(np.uint8))
    out = np.zeros_like(odd)
    for p in range(1, count):
        part = parts == p
        ring = grown(part, 7) & ~part
        out |= part & (something[ring].mean() < 0.1 if ring.any() else False)
    return out


def _strays(labels: np.ndarray, standing: list[np.ndarray]) -> np.ndarray:
    """Parts in an object's colours that lie clear of the rest of it, with no hand between and
    nothing that stands: a band goes on behind a stick."""
    out = np.zeros(labels.shape, bool)
    reach = 2 * round(0.05 * labels.shape[1]) + 1
    hand = cv2.dilate((labels == HAND).astype(np.uint8), np.ones((7, 7))) > 0
    behind = [cv2.dilate(m.astype(np.uint8), np.ones((7, 7))) > 0 for m in standing]
    for i in np.unique(labels):
        if i in (0, HAND, UNKNOWN):
            continue
        count, parts, stats, _ = cv2.connectedComponentsWithStats((labels == i).astype(np.uint8))
        main = parts == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
        near = cv2.dilate(main.astype(np.uint8), np.ones((reach, reach))) > 0
        hides = np.any([np.zeros_like(main), *(b for b in behind if (b & main).any())], axis=0)
        for p in range(1, count):
            part = parts == p
            # A patch inside another object is that object's, only taken for this one.
            if not (part & (near | hand | hides)).any() and not _enclosed(part, labels > 0):
                out |= part
    return out


def _enclosed(part: np.ndarray, something: np.ndarray) -> bool:
    """Whether more than half of the ring around `part` is `something`."""
    ring = (cv2.dilate(part.astype(np.uint8), np.ones((5, 5))) > 0) & ~part
    return ring.any() and something[ring].mean() > 0.5
