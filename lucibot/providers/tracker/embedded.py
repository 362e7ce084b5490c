"""The embedded tracker: no network, no weights, one core (paper, section 3.3).

It knows what every run knows: the meshes, the camera, the first pose and first mask of every object.
Rigid objects are tracked by their mesh (`rigid`; on a joint, `jointed`), deformable ones by flow and
colour (`deformable`), hands as a layer of their own (`hands`); `labelling` then gives every pixel to
one of them. For each frame: `evidence` is looked at, rigid objects are moved (`fitting`), pixels are
given to classes (`beliefs`), and what learns learns (`objects`). What is lost on the way may be found
from the last frame back (`way_back`).
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.geometry import pose_np
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.hand import HandConfig, key_points_by
from lucibot.providers.tracker.beliefs import beliefs, without_holes
from lucibot.providers.tracker.config import EmbeddedTracker
from lucibot.providers.tracker.deformable import DeformableTrack
from lucibot.providers.tracker.evidence import Evidence
from lucibot.providers.tracker.fitting import fit_rigid
from lucibot.providers.tracker.hands import HandLayer
from lucibot.providers.tracker.objects import Followed, RigidObject, learn_colours
from lucibot.providers.tracker.way_back import AGREED_S, Told, WayBack
from lucibot.task import Task
from lucibot.vision.appearance import BackgroundPlate, colour_bins, to_lab
from lucibot.vision.labelling import dilate, erode, most_likely, warp
from lucibot.vision.regions import KeyPoints, layers_of
from lucibot.vision.threads import one_thread_each


class TrackByColour:
    def __init__(self, config: EmbeddedTracker, hand: HandConfig | None = None):
        self.config, self._key_points = config, key_points_by(hand)

    def track(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> Tracks:
        """Masks, hand layer, poses and confidences of every frame.

        Raises:
            UserError: the video is not of the size of the task's camera.
        """
        T, H, W = video.frames.shape[:3]
        if (W, H) != (task.camera.width, task.camera.height):
            raise UserError(
                f"the video is {W}x{H} but the task's camera sees "
                f"{task.camera.width}x{task.camera.height}; resize the video first"
            )
        N = len(task.objects)
        masks = np.zeros((T, N, H, W), bool)
        hand = np.zeros((T, H, W), bool)
        confidence = np.zeros((T, N), np.float32)
        poses = np.full((T, N, 6), np.nan, np.float32)
        shown = []
        with one_thread_each():
            state = _State(self.config, task, view, video, self._key_points)
            for k in range(T):
                masks[k], hand[k], confidence[k], poses[k] = state.step(video.frames[k], k)
                shown.append(state.silhouettes())
                if k % 10 == 0:
                    progress(f"tracking frame {k + 1} of {T}", (k + 1) / T)
            back = WayBack(state, shown, confidence, round(AGREED_S * video.fps))
            for k in reversed(range(T - 1)):
                if back.met:
                    break
                progress(f"tracking back, frame {k + 1} of {T}", 1.0)
                back.step(video.frames[k], k)
            for k, told in back.better().items():
                masks[k], hand[k], confidence[k], poses[k] = told
        return Tracks(
            masks=masks, hand=hand, confidence=confidence,
            lost=confidence < self.config.lost_below, poses=poses,
        )  # fmt: skip

    def hand_layer(
        self, task: Task, view: SceneView, video: Video, *, progress: Progress = silent
    ) -> np.ndarray:
        """See `HandLayer`; what is a hand is told by what the objects are not."""
        return self.track(task, view, video, progress=progress).hand


class _State:
    """Everything that is carried from frame to frame, on the work grid (h, w)."""

    def __init__(
        self, config: EmbeddedTracker, task: Task, view: SceneView, video: Video,
        key_points: KeyPoints | None,
    ):  # fmt: skip
        frame = video.frames[0]
        H, W = frame.shape[:2]
        self.config, self.task, self.full = config, task, (H, W)
        scale = min(1.0, config.work_width / W)
        self.w, self.h = round(W * scale), round(H * scale)
        self.size = (self.h, self.w)
        cam = task.camera.resized(self.w, self.h)
        self.T_world_cam = cam.T_world_cam
        K = np.array([cam.fx, cam.fy, cam.cx, cam.cy])
        small = self._shrink(frame)
        lab = to_lab(small)
        bins = colour_bins(lab)
        labels = cv2.resize(view.labels, (self.w, self.h), interpolation=cv2.INTER_NEAREST)
        rng = np.random.default_rng(config.seed)

        depth = cv2.resize(
            view.background_depth_m, (self.w, self.h), interpolation=cv2.INTER_NEAREST
        )
        seen = np.isfinite(depth) & (depth > 0)
        # Rounding and the picture's grid put resting objects a few millimetres into their support.
        far = np.where(seen, 1 / np.where(seen, depth + 0.006, 1), 0).astype(np.float32)
        # The seam around objects holds mixed colours and small errors of the first masks.
        known = ~dilate(labels > 0, 3)
        plate_lab, known = self._with_rendered_background(view, lab, known)
        self.plate = BackgroundPlate(plate_lab, known)
        # Hands are told by the whole video: what one looks like, and about where it is when.
        layers = None if task.spec.hands == "none" else layers_of(
            task, view, video, width=config.regions_width, samples_per_s=config.samples_per_s,
            key_points=key_points,
        )  # fmt: skip
        self.hand = HandLayer(layers, self.size)
        self.objects: list[Followed] = []
        for i, obj in enumerate(task.objects):
            mask = labels == i + 1
            if not mask.any():
                raise UserError(f"object {obj.name!r} is not visible in the first frame")
            if obj.is_rigid:
                self.objects.append(
                    RigidObject(obj, task, K, far, config, rng, bins, mask, cam.T_cam_world)
                )
            else:
                self.objects.append(DeformableTrack(mask, bins))
        # What a hand moves as it likes may soon be anywhere that looks like it.
        self._handled = [not o.is_rigid and "actuator" in o.roles for o in task.objects]
        # What lies in or on a rigid thing goes with it, out of sight too, and may come out of it.
        self._hosts = {
            i: [
                j for j, host in enumerate(self.objects)
                if isinstance(host, RigidObject) and (dilate(o.visible, 3) & (labels == j + 1)).any()
            ]
            for i, o in enumerate(self.objects) if isinstance(o, DeformableTrack)
        }  # fmt: skip
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        self._count: int | None = None
        """The frame that was looked at last."""

    def silhouettes(self) -> dict[int, np.ndarray]:
        """(h, w) bool of each rigid object, as it was drawn last."""
        return {
            i: o.track.part >= 0 for i, o in enumerate(self.objects) if isinstance(o, RigidObject)
        }

    def moving(self) -> set[int]:
        """The rigid objects that do not rest."""
        return {
            i for i, o in enumerate(self.objects)
            if isinstance(o, RigidObject) and not o.track.resting
        }  # fmt: skip

    def _shrink(self, frame: np.ndarray) -> np.ndarray:
        return cv2.resize(frame, (self.w, self.h), interpolation=cv2.INTER_AREA)

    def _with_rendered_background(self, view, lab, known):
        """Fill what the objects hide from the ray-traced plate, if it agrees with the video."""
        if view.background_frame is None:
            return lab, known
        plate = to_lab(self._shrink(view.background_frame)).astype(np.float32)
        difference = lab.astype(np.float32) - plate
        offset = np.median(difference[known], axis=0)
        off = np.abs(difference - offset)[known].max(-1)
        if np.quantile(off, 0.8) > 8:
            return lab, known
        filled = np.where(known[..., None], lab, np.clip(plate + offset, 0, 255)).astype(np.uint8)
        return filled, np.ones_like(known)

    def step(self, frame: np.ndarray, k: int) -> Told:
        """Of frame `k`, which comes after or before the one that was looked at last: masks (N, H, W),
        hand (H, W), confidences (N,) and poses (N, 6)."""
        first, self._count = self._count is None, k
        seen, guesses, near = self._look(frame, first=first)
        if not first:
            edge = self.plate.new_edges(seen.lab)
            fit_rigid(
                self.objects, seen, self.hand.mask, guesses, near, edge, self.config, self._count
            )
        belief = beliefs(self.objects, seen, self.hand.mask, self._hosts, self._handled)
        return self._finish(belief, seen)

    def _look(self, frame: np.ndarray, *, first: bool):
        """The frame's evidence; of rigid objects the changes of pose that flow suggests, and of all
        objects where they may be (h, w) bool."""
        small = self._shrink(frame)
        lab = to_lab(small)
        bins = colour_bins(lab)
        gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        if first:
            flow = np.zeros((*self.size, 2), np.float32)
        else:
            flow = self._flow.calc(self._gray, gray, None)
        self._gray = gray
        background, deviation = self.plate.density(lab, bins)
        hand_before = warp(self.hand.mask, flow) > 0.5
        guesses, near, parts = {}, {}, []
        for i, o in enumerate(self.objects):
            if isinstance(o, RigidObject):
                guesses[i] = o.track.predict(flow, o.visible)
                parts.append(o.part_densities(bins))
                shift = int(np.ceil(np.abs(guesses[i][:2]).max())) + 4
                near[i] = dilate(o.track.part >= 0, min(shift, 40))
            else:
                o.predict(flow)
                parts.append(o.model.density(bins)[None])
                near[i] = dilate(o.whole > 0.5, 3)
        log_hand = self.hand.log_prior(hand_before, self._count)
        seen = Evidence(
            lab=lab, bins=bins, flow=flow, background=background, deviation=deviation,
            hand=self.hand.density(bins), log_hand=log_hand,
            open=np.minimum(0.5, 1 - np.exp(log_hand)), parts=parts,
        )  # fmt: skip
        return seen, guesses, near

    def _finish(self, belief: np.ndarray, seen: Evidence):
        """Masks at full size; update of everything that learns."""
        H, W = self.full
        N = len(self.objects)
        label = most_likely(belief)
        hand = self.hand.update(label == 1, label >= 2)
        # What was taken for a hand without being one goes to whatever comes second.
        belief[..., 1] *= dilate(hand, 1)
        label = without_holes(belief, self.objects)
        touched = np.zeros(self.size, bool)
        confidence, poses = np.zeros(N, np.float32), np.full((N, 6), np.nan, np.float32)
        for i, o in enumerate(self.objects):
            visible = label == 2 + i
            if isinstance(o, RigidObject):
                o.visible = erode(visible, 1) & (o.track.part >= 0)
                confidence[i] = o.confidence
                T = self.T_world_cam @ o.track.T_cam_object()
                poses[i] = pose_np(T)
                touched |= dilate(o.track.part >= 0, 3)
            else:
                o.update(belief[..., 2 + i], belief[..., 0], visible)
                whole = float((o.whole > 0.5).sum())
                confidence[i] = min(1.0, float(visible.sum()) / max(0.15 * whole, 1.0))
                touched |= dilate(o.whole > 0.5, 3)
        self.plate.learn(seen.lab, erode(belief[..., 0] > 0.9, 2) & ~touched)
        if self._count % 2 == 0:
            for i, o in enumerate(self.objects):
                learn_colours(o, belief[..., 2 + i], seen.parts[i], seen)
        full = most_likely(cv2.resize(belief, (W, H), interpolation=cv2.INTER_LINEAR))
        masks = np.stack([full == 2 + i for i in range(N)])
        return masks, full == 1, confidence, poses
