"""Answers read from masks and measured events alone, where the paper asks a VLM (section 3.3)."""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.answers import Contacts, Span
from lucibot.core.errors import UserError
from lucibot.core.events import Events
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.answerer.config import PixelAnswerer
from lucibot.task import Task
from lucibot.vision.grid import Grid
from lucibot.vision.spans import drop_short, fill_gaps, runs

AROUND = 2
"""Frames before and after a keyframe that have a say in what touches there."""


class AnswerByPixels:
    def __init__(self, config: PixelAnswerer):
        self.config = config

    def span(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, events: Events
    ) -> Span:
        """See `Answerer`.

        Raises:
            UserError: no hand ever touches an object and none ever moves: nothing is done.
        """
        grid = Grid.from_tracks(view, tracks, self.config.width, hand_margin=0)
        masks = np.stack([grid.masks(i) for i in range(len(task.objects))], 1)
        steady = max(2, round(self.config.steady_s * video.fps))
        first, why_first = _first_contact(task, events)
        goal, why_goal = self._goal(task, grid, masks, events.moving, first, steady)
        reasons = {"first_contact": why_first, "goal": why_goal}
        return Span(first_contact=first, goal=goal, reasons=reasons)

    def contact(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, events: Events,
        keyframes: np.ndarray,
    ) -> Contacts:  # fmt: skip
        """See `Answerer`: what most of the frames about a keyframe show."""
        reasons = {}
        for (a, b), seen in zip(events.contact_pairs, events.contact.T, strict=True):
            n = int(seen.sum())
            when = f"from frame {int(np.argmax(seen))} on, in {n} frames" if n else "never"
            reasons[f"contact {a}, {b}"] = (
                f"The surfaces of {a} and {b} come within {1000 * task.spec.contact_m:.0f} mm {when}."
            )
        contact = [
            events.contact[max(0, t - AROUND) : t + AROUND + 1].mean(0) >= 0.5 for t in keyframes
        ]
        return Contacts(contact=np.stack(contact), reasons=reasons)

    def _goal(self, task, grid, masks, moving, first, steady) -> tuple[int, str]:
        """The goal frame and what it rests on."""
        c = self.config
        targets = [task.label(o.name) - 1 for o in task.targets]
        tools = [task.label(o.name) - 1 for o in task.actuators if o not in task.targets]
        kernel = np.ones((2 * c.clear_px + 1,) * 2, np.uint8)
        frames = len(grid)
        tool_clear, hand_clear = np.ones(frames, bool), np.ones(frames, bool)
        for t in range(first, frames):
            near = masks[t, targets].any(0).astype(np.uint8)
            near = cv2.dilate(near, kernel) > 0
            tool_clear[t] = not (near & masks[t, tools].any(0)).any() if tools else True
            hand_clear[t] = not (near & grid.hand[t]).any()
        hand_gone = grid.hand.mean((1, 2)) < c.hand_share
        still = ~fill_gaps(moving[:, targets].any(1), steady)
        # What is out of sight, a liquid in its bottle, cannot be said to lie still.
        soft = [task.label(o.name) - 1 for o in task.targets if not o.is_rigid]
        still &= masks[:, soft].any((2, 3)).all(1)
        later = np.arange(frames) > first
        # Nothing is reached before something has happened, to the targets if anything does.
        happens = moving[:, targets] if moving[:, targets].any() else moving
        happened = np.cumsum(happens.any(1))
        # Nor before most of it has: what lies still meanwhile is not done yet.
        done = happened > (1 - c.to_come) * happened[-1]
        for flags, words in (
            (still & tool_clear & hand_gone, "the targets lie still, hand and tool are gone"),
            (
                still & tool_clear & hand_clear,
                "the targets lie still, hand and tool are beside them",
            ),
            (still & tool_clear, "the targets lie still and the tool is off them"),
            (still & hand_clear, "the targets lie still and no hand is at them"),
            (still, "the targets lie still"),
        ):
            found = runs(drop_short(flags & later & done, steady))
            if found:
                a, b = found[-1]
                # A little after the last motion, so that blur and shadow have gone as well.
                t = min(a + steady, b - 1)
                return t, f"From frame {a} on {words}."
        return frames - 1, "The targets never come to rest: the last frame is taken."


def _first_contact(task: Task, events: Events) -> tuple[int, str]:
    touch = "A hand lies on or beside {} for several frames from frame {}."
    for flags, names, what in (
        (events.touched, task.objects, touch),
        (events.held, task.actuators, "No hand is seen; {} moves from frame {}."),
        (events.moving, task.objects, "No hand is seen; {} changes from frame {}."),
    ):
        if flags.any():
            t = int(np.argmax(flags.any(1)))
            return t, what.format(names[int(np.argmax(flags[t]))].name, t)
    raise UserError(
        "in this video no hand touches an object and nothing moves; choose another video"
    )
