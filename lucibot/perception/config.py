"""Configs of perception; light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.schema import Count, Fraction, Positive


@dataclass(frozen=True, kw_only=True)
class PoseConfig(Config):
    """Settings of the pose estimation."""

    width: Annotated[Count, Field(ge=32, le=4096)] = 400
    """Width [px] of the grid that outlines are compared on."""
    outline_points: Annotated[Count, Field(ge=8, le=4096)] = 96
    """Points of each outline."""
    mask_sigma_px: Positive = 1.2
    """Offsets beyond this count less and less."""
    mask_weight: float = 0.5
    """Weight of an outline point; neighbours err together, so each counts less than one."""
    depth_sigma_m: Positive = 0.02
    """Trust in a measured depth, if there is any: far less than in masks."""
    acceleration_m_s2: Positive = 4.0
    """Typical acceleration of an object in a hand."""
    acceleration_rad_s2: Positive = 40.0
    """Typical angular acceleration."""
    scale_sigma: Positive = 0.04
    """How far a generated object's size drifts from what is known of it (0.04: 4%): its mesh's, or on the way to
    a rest the one that it has there."""
    scale_step: Positive = 0.003
    """How much it may change from one frame to the next."""
    still_px: float = 1.5
    """An object that moves less than this in the picture lies still."""
    rest_s: float = 0.25
    """The shortest rest."""
    coarse_rounds: Annotated[Count, Field(le=1000)] = 8
    """Rounds before contact and rest are looked for."""
    fine_rounds: Annotated[Count, Field(le=1000)] = 8
    """Rounds under all constraints."""
    samples: Annotated[Count, Field(le=10_000)] = 32
    """Samples a frame and round where the outline got stuck."""
    lost_below_iou: Fraction = 0.5
    """Frames that fit worse are marked lost."""


@dataclass(frozen=True, kw_only=True)
class EventConfig(Config):
    """When hands hold objects, and when these move, measured in the picture."""

    width: Annotated[Count, Field(ge=32, le=4096)] = 400
    """Width [px] of the grid that pixels are counted on."""
    touch_s: float = 0.1
    """A hand touches what it lies on or beside for this long."""
    grip_px: int = 8
    """Pixels of hand on an object's silhouette that make a grip."""
    grip_change: float = 0.25
    """A hand rests on an object when its layer there changes by less than this share in 0.1 s."""
    still_px: float = 1.5
    """What moves less than this in the picture lies still."""
    still_share: float = 0.04
    """A deformable whose mask changes by less than this share of its area lies still."""


@dataclass(frozen=True, kw_only=True)
class KeyframeConfig(Config):
    """How frames are chosen."""

    count: Annotated[Count, Field(le=200)] = 5
    """Keyframes between first contact and goal when `rate_hz` is 0; a grasp or release may add
    one."""
    rate_hz: float = 0.0
    """Keyframes a second of video; 0 to use `count`."""
    snap: Fraction = 0.2
    """A keyframe may move by this share of the spacing to a frame that is seen better."""
    straight_m: Positive = 0.01
    """Keyframes are added until no actuator's path leaves the straight lines between them by more
    [m]: the simulation moves on these lines, and a shortcut may run into what the video avoids."""
    touching_weight: float = 3.0
    """How much more it counts while objects touch each other."""
    most_added: int = 6
    """At most so many are added."""


@dataclass(frozen=True, kw_only=True)
class SuperviseConfig(Config):
    """The observation grid and the size of clouds."""

    width: Annotated[Count, Field(ge=32, le=4096)] = 320
    """Width [px] of the observation grid; the height keeps the camera's aspect."""
    cloud_points: Count = 1024
    """Points of each cloud."""
    lasting_s: Positive = 0.2
    """The video must go on so long after the goal frame to show that the goal lasts: what nothing carries
    has fallen by 20 cm."""


@dataclass(frozen=True, kw_only=True)
class AffordanceConfig(Config):
    """Where a hand holds an actuator."""

    area_m: Positive = 0.012
    """Radius of the area around a finger tip that counts as gripped [m]."""
    points: Count = 256
    """Points of each actuator, of all its holds together."""
    look_s: Positive = 0.25
    """Tips are read in so many seconds from the moment that a hand takes hold."""
    hand_m: tuple[Positive, Positive, Positive] = (0.10, 0.06, 0.15)
    """Width, thickness and length [m] of the hand or gripper that needs room at the area, going
    outwards from it: a human hand by default; Franka's gripper is 0.20 x 0.06 x 0.13."""
