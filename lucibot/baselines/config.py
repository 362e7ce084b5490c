"""The family `optimize.objective`: what rollouts are judged by. Light to import."""

from __future__ import annotations

from lucibot.objective.config import VideoObjective

ObjectiveConfig = VideoObjective
"""What the search minimises: a family. Every member has the same rollouts to spend."""
