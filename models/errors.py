"""What can go wrong, as types. Each message is one clear sentence: what is wrong, with the value, and what to do."""

from __future__ import annotations


class TelcoLocError(Exception):
    """Root of all errors this package raises on purpose."""


class InputError(TelcoLocError, ValueError):
    """The user's data or parameters cannot be used; the message names the value and the way out."""


class MemoryBudgetError(TelcoLocError, MemoryError):
    """The job would need more memory than it may use; the message says how much and which setting to change."""


class DeviceError(TelcoLocError, RuntimeError):
    """The asked-for compute device cannot be used; the message says why."""


class OutputError(TelcoLocError, OSError):
    """An output could not be written; nothing half-written stays behind."""


class Cancelled(TelcoLocError):  # noqa: N818 - cancelling is no error
    """The user cancelled. Raised by the progress callable, from wherever it was called."""
