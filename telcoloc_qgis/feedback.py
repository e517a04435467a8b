"""The one bridge between `models.progress` and QgsProcessingFeedback."""

from __future__ import annotations

import time

from qgis.core import QgsProcessingFeedback

from ..models.errors import Cancelled
from ..models.progress import Progress


class FeedbackProgress:
    """A `Progress` that moves the bar, at most twenty times a second, and raises `Cancelled` when the user cancels."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self.feedback = feedback
        self._last_shown = 0.0

    def __call__(self, fraction: float) -> None:
        if self.feedback.isCanceled():
            raise Cancelled("Cancelled by the user; no output was written.")
        now = time.monotonic()
        if now - self._last_shown > 0.05:
            self._last_shown = now
            self.feedback.setProgress(100 * min(max(fraction, 0.0), 1.0))

    def phase(self, text: str, start: float, end: float) -> Progress:
        """Announce a phase and return a `Progress` for its share [start, end] of the bar."""
        self(start)
        self.feedback.setProgressText(text)
        return lambda fraction: self(start + (end - start) * fraction)
