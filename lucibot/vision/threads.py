"""How many threads OpenCV's functions take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def one_thread_each() -> Iterator[None]:
    """On pictures of the working size, handing a part to a second thread costs more than it saves."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
