"""What a failure is put down to, by rule: the first stage of which something says that it went wrong."""

from __future__ import annotations

from typing import Any

MISSED = 0.5
"""The target of a rollout that overlaps with the video's by less of their union has not been found."""


def failed_at(
    success: bool, *, usable: bool, terms: dict[str, float | None], robot: dict[str, Any] | None
) -> str | None:
    """
    Args:
        success: of the replay, without an arm.
        usable: whether the judge takes the chosen video to be usable.
        terms: the loss's, of the replay; of a diverged one they are None.
        robot: `Result.robot`.

    Returns:
        - "video": it fails without an arm, and the judge had rejected the video;
        - "search": it fails, and the replay is not what was read from the video: it diverged, or the
          target overlaps with the video's by less than half of their union;
        - "perception": it fails although the replay is what was read from the video;
        - "grasp", "kinematics", "planning": the arm found no way, for want of that;
        - "execution": it was done without an arm, and not with it;
        - None: neither failed.
    """
    if not success:
        if not usable:
            return "video"
        off = terms.get("target_iou")
        return "search" if off is None or off > MISSED else "perception"
    if robot is None or robot["success"]:
        return None
    return robot["failed"] or "execution"
