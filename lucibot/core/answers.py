"""The answers that the paper asks a VLM for (section 3.3), with what was measured beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

APART_S = 0.2
"""Two answers about one moment that lie closer agree."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The part of a video in which the task is done."""

    first_contact: int
    """Frame where a hand first interacts with an object."""
    goal: int
    """Frame where the goal is achieved and, if that ever happens, hand and tool are out of the way."""
    reasons: dict[str, str]
    """What each rests on, one sentence each."""
    by: str = "pixels"
    """Who answered."""
    beside: Span | None = None
    """What was measured beside it."""
    notes: tuple[str, ...] = ()
    """What the run is to say of it."""


@dataclass(frozen=True, kw_only=True)
class Contacts:
    """What touches at the K keyframes."""

    contact: np.ndarray
    """(K, pairs) bool, of `Events.contact_pairs`."""
    reasons: dict[str, str]
    """What that rests on, one sentence for each pair by "contact A, B"."""
    by: str = "pixels"
    """Who answered."""
    beside: Contacts | None = None
    """What was measured beside it."""
    notes: tuple[str, ...] = ()
    """What the run is to say of it."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What another answerer says of the same video, and the chosen one does not go by."""

    by: str
    first_contact: int
    goal: int
    contact: np.ndarray
    """(K, pairs) bool."""
    reasons: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answers:
    first_contact: int
    """See `Span`."""
    goal: int
    """See `Span`."""
    contact_pairs: tuple[tuple[str, str], ...]
    """(object, target) pairs."""
    contact: np.ndarray
    """(K, pairs) bool: the two touch at this keyframe."""
    around_pairs: tuple[tuple[str, str], ...]
    """(target, thing) pairs; the thing stands still in the background."""
    around: np.ndarray
    """(pairs,) bool: in the goal frame the target goes around the thing, as a ring does."""
    reasons: dict[str, str]
    """What each answer rests on, one sentence each."""
    by: str = "pixels"
    """Who answered."""
    beside: Beside | None = None
    notes: tuple[str, ...] = ()
    """What the run is to say of it; not kept with the rest."""

    @classmethod
    def joined(cls, span: Span, contacts: Contacts, reasons: dict[str, str], **told) -> Answers:
        """From the answers one by one.

        Args:
            reasons: of what is measured whoever answers.
        """
        beside = None
        if span.beside is not None or contacts.beside is not None:
            s, c = span.beside or span, contacts.beside or contacts
            beside = Beside(
                by=s.by, first_contact=s.first_contact, goal=s.goal, contact=c.contact,
                reasons=s.reasons | c.reasons,
            )  # fmt: skip
        by = span.by if span.beside is not None else contacts.by
        return cls(
            first_contact=span.first_contact, goal=span.goal, contact=contacts.contact, by=by,
            beside=beside, reasons=span.reasons | contacts.reasons | reasons,
            notes=tuple(dict.fromkeys((*span.notes, *contacts.notes))), **told,
        )  # fmt: skip

    def disputes(self, fps: float) -> list[str]:
        """Where the answers beside are others, a sentence each."""
        b, out = self.beside, []
        if b is None:
            return out
        for name in ("first_contact", "goal"):
            mine, theirs = getattr(self, name), getattr(b, name)
            if abs(mine - theirs) > APART_S * fps:
                what = name.replace("_", " ")
                out.append(f"{what}: frame {mine} by {self.by}, frame {theirs} by {b.by}")
        for pair, mine, theirs in zip(self.contact_pairs, self.contact.T, b.contact.T, strict=True):
            if (other := np.flatnonzero(mine != theirs)).size:
                said = ", ".join(f"{k} ({'yes' if mine[k] else 'no'})" for k in other)
                out.append(
                    f"{' touches '.join(pair)}: by {self.by} otherwise than by {b.by} at keyframes "
                    f"{said}"
                )
        return out
