"""Where a file begins to show a scene, and how the scene lies in its pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from einops import rearrange

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.similarity import scene_similarity
from lucibot.task import Task
from lucibot.vision.footage import Footage
from lucibot.vision.placement import Placement, fit_to_camera, layout, placements
from lucibot.vision.registration import Registration, register

if TYPE_CHECKING:
    from lucibot.vision.intake import IntakeConfig

HEAD_WIDTH = 640
"""Pixels across at which the first pictures are compared with the scene."""
HEAD_RATE = 30.0
"""Pictures a second of the head that are looked at, at most."""
FADED = 0.9
"""Contrast, as a share of what it comes to, below which a first picture is being faded in."""
FAINT = 0.5
"""Below, a first picture is faded without a doubt."""
FADED_IN = 0.98
"""From here on a fade is over."""
ANOTHER = 10.0
"""Mean difference to a picture that was refused from which on one is another picture, of 255."""
WHOLE_PX = 0.2
"""A shift this near to whole pixels is taken as whole: nothing has to be resampled."""


@dataclass(kw_only=True)
class Head:
    """The first pictures, small."""

    times_s: list[float] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    """(h, w, 3) uint8, at most `HEAD_WIDTH` across."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the upright picture."""
    gaps_s: list[float] = field(default_factory=list)
    """Times between all pictures of the head."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How and from when on a file shows the scene."""

    time_s: float
    placement: Placement
    registration: Registration
    T: np.ndarray | None
    """(2, 3) maps the clip's pixels to those of the placed picture; None: they are the same."""
    similarity: dict[str, float]


class Refused(UserError):
    """A file that can be seen and cannot serve."""

    def __init__(self, message: str, picture: np.ndarray):
        super().__init__(message)
        self.picture = picture
        """(H, W, 3) uint8 what was seen of it, on the camera's grid."""


def read_head(footage: Footage, config: IntakeConfig) -> Head:
    """The first pictures, as long as a fade may last and twice the shortest clip."""
    head, looked, before = Head(), -1.0, 0.0
    for picture in footage:
        head.gaps_s.append(picture.time_s - before)
        before = picture.time_s
        if picture.time_s > max(config.lead_s, 2 * config.shortest_s):
            break
        if picture.time_s - looked < 0.999 / HEAD_RATE and head.pictures:
            continue
        looked, rgb = picture.time_s, picture.read()
        h, w = rgb.shape[:2]
        head.size = (w, h)
        if w > HEAD_WIDTH:
            size = (HEAD_WIDTH, max(round(h * HEAD_WIDTH / w), 1))
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        head.times_s.append(picture.time_s)
        head.pictures.append(rgb)
    head.gaps_s = head.gaps_s[1:]
    return head


def find_start(footage, head: Head, task: Task, view: SceneView, config: IntakeConfig):
    """The first picture that shows the scene, wholly faded in.

    Raises:
        UserError: none does, or the scene lies too far from where it should.
    """
    contrast = _contrast_of(head.pictures)
    faded = contrast[0] < FADED
    nearest: Start | None = None
    refused: np.ndarray | None = None
    for k, rgb in enumerate(head.pictures):
        if contrast[k] < (FADED_IN if faded else FADED):
            if k == 0 and contrast[0] > FAINT:
                # Contrast may also go up when things are moved: the scene's own picture tells.
                start = _placed(rgb, head, task.camera, view, head.times_s[0], config)
                if _whole(_as_placed(start, rgb, head, task.camera), view):
                    faded = False
            if faded or k:
                continue
        # What looks like a picture that was refused needs no second look.
        if refused is not None and np.abs(rgb.astype(np.int16) - refused).mean() < ANOTHER:
            continue
        start = _placed(rgb, head, task.camera, view, head.times_s[k], config)
        if min(start.similarity.values()) >= config.least_similarity:
            _refuse_far(footage, start, task, config, rgb)
            return start
        refused = rgb.astype(np.int16)
        if nearest is None or min(start.similarity.values()) > min(nearest.similarity.values()):
            nearest, picture = start, rgb
    name = f"{footage.path} does not start with the scene of {task.name!r}"
    if nearest is None:
        raise Refused(
            f"{name}: nothing is seen in its first {head.times_s[-1]:.1f} s",
            fit_to_camera(head.pictures[-1], task.camera),
        )
    worst = min(nearest.similarity, key=nearest.similarity.get)
    seen = layout(nearest.placement, head.size, task.camera)
    raise Refused(
        f"{name}: no {worst!r} is seen where it should be (similarity "
        f"{nearest.similarity[worst]:.2f}, at least {config.least_similarity:.2f} is needed)"
        + (f"; {seen[0]}" if seen else ""),
        _as_placed(nearest, picture, head, task.camera),
    )  # fmt: skip


def _placed(rgb, head: Head, camera: Camera, view: SceneView, time_s: float, config) -> Start:
    """How a picture shows the scene best: a scene found for certain goes before a likeness."""
    h, w = rgb.shape[:2]
    best, rank = None, ()
    for placement in placements(rgb, camera):
        image = placement.apply(rgb, camera)
        r = register(view.first_frame, image, ignore=placement.empty(camera))
        T = _correction(r, camera, config) if r.certain else None
        similarity = scene_similarity(image if T is None else brought_onto(image, T), view)
        this = r.certain, r.agreeing if r.certain else 0, min(similarity.values())
        # The plainer one stays unless another one is better by more than chance.
        if best is None or this[0] > rank[0] or (this[0] == rank[0] and (
            this[1] > 1.1 * rank[1] + 3 if this[0] else this[2] > rank[2] + 0.05
        )):  # fmt: skip
            full = placement.scaled(head.size[0] / w, head.size[1] / h)
            best = Start(time_s=time_s, placement=full, registration=r, T=T, similarity=similarity)
            rank = this
    return best


def _correction(r: Registration, camera: Camera, config: IntakeConfig) -> np.ndarray | None:
    """(2, 3) from the clip's pixels to the placed picture's, or None if it lies well as it is.

    A plain shift where that is all there is, and in whole pixels where it nearly is.
    """
    if r.displacement_px <= config.shift_free * camera.width:
        return None
    T = r.A.copy()
    turned = np.linalg.norm(T[:, :2] - np.eye(2), 2) * 0.5 * np.hypot(camera.width, camera.height)
    if turned < 0.5:
        shift = np.array(r.shift_px)
        whole = np.abs(shift - np.round(shift)) < WHOLE_PX
        T = np.column_stack([np.eye(2), np.where(whole, np.round(shift), shift)])
        return T if T[:, 2].any() else None
    return T


def brought_onto(image: np.ndarray, T: np.ndarray) -> np.ndarray:
    """`image` (H, W, 3) brought onto the scene: pixel x shows what it shows at T x. Beyond its
    border the border goes on."""
    h, w = image.shape[:2]
    whole = (T[:, :2] == np.eye(2)).all() and (T[:, 2] == np.round(T[:, 2])).all()
    return cv2.warpAffine(
        image, T, (w, h), borderMode=cv2.BORDER_REPLICATE,
        flags=(cv2.INTER_NEAREST if whole else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP,
    )  # fmt: skip


def _as_placed(start: Start, rgb: np.ndarray, head: Head, camera: Camera) -> np.ndarray:
    """A picture of the head (h, w, 3) on the camera's grid, not moved."""
    h, w = rgb.shape[:2]
    return start.placement.scaled(w / head.size[0], h / head.size[1]).apply(rgb, camera)


def _refuse_far(footage, start: Start, task: Task, config: IntakeConfig, rgb) -> None:
    r, w = start.registration, task.camera.width
    if r.certain and r.displacement_px > config.shift_most * w:
        raise Refused(
            f"{footage.path} shows the scene of {task.name!r} elsewhere: {lies(r)}; at most "
            f"{config.shift_most:.0%} of the width ({config.shift_most * w:.0f} pixels) are taken "
            "out: crop or pad it as the scene's picture is",
            fit_to_camera(rgb, task.camera),
        )  # fmt: skip


def lies(r: Registration) -> str:
    """How a scene lies in a picture, in words."""
    x, y = r.shift_px
    out = (
        f"{abs(x):.1f} pixels to the {'right' if x > 0 else 'left'} and {abs(y):.1f} "
        f"{'down' if y > 0 else 'up'}"
    )
    if abs(r.scale - 1) > 5e-4:
        out += f", {r.scale:.3f} times as large"
    if abs(r.turn_deg) > 0.05:
        out += f", turned by {r.turn_deg:.1f} degrees"
    return out


def _whole(image: np.ndarray, view: SceneView) -> bool:
    """Whether a picture (H, W, 3) on the camera's grid has the contrast of the scene's."""
    size = image.shape[1::-1]
    known = cv2.resize(view.first_frame, size, interpolation=cv2.INTER_AREA)
    ours, theirs = (_local_contrast(x) for x in (image, known))
    telling = theirs >= max(np.median(theirs), 1.0)
    return bool(telling.any() and np.median(ours[telling] / theirs[telling]) >= FADED_IN)


def _contrast_of(pictures: list[np.ndarray]) -> np.ndarray:
    """(n,) contrast of each picture as a share of what it comes to: below 1 in a fade, 0 if black.

    The median over places of the local contrast, over its median in the later half: a hand that
    comes in covers a few places only.
    """
    local = np.stack([_local_contrast(rgb) for rgb in pictures])
    later = np.median(local[len(local) // 2 :], axis=0)
    telling = later >= max(np.median(later), 1.0)
    if not telling.any():
        return np.zeros(len(local))
    return np.median(local[:, telling] / later[telling], axis=1)


def _local_contrast(rgb: np.ndarray) -> np.ndarray:
    """(places,) standard deviation of the brightness in each place of a picture."""
    gray = cv2.cvtColor(cv2.resize(rgb, (96, 72), interpolation=cv2.INTER_AREA),
                        cv2.COLOR_RGB2GRAY).astype(np.float32)  # fmt: skip
    return rearrange(gray, "(i a) (j b) -> (i j) (a b)", a=12, b=12).std(-1)
