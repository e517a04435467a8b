"""The localisation methods by name. Their modules are imported when asked for, so that listing them costs nothing."""

from __future__ import annotations

from importlib import import_module

from ..errors import InputError
from .localizer import Localizer

_CLASSES = {
    "auto": ("auto", "Auto"),
    "nbl": ("nbl", "Nbl"),
    "raf": ("forests", "Raf"),
    "ccr": ("forests", "Ccr"),
    "hmm": ("hmm", "Hmm"),
    "cnn": ("neural", "Cnn"),
    "lstm": ("neural", "Lstm"),
    "stacklstm": ("neural", "StackLstm"),
    "seq2seq": ("neural", "Seq2Seq"),
    "convlstm": ("neural", "ConvLstm"),
    "reculstm": ("neural", "RecuLstm"),
    "deeploc": ("neural", "DeepLoc"),
}
#: Methods without a suffix.
PLAIN = tuple(_CLASSES)
#: f: particle-filtered; m: map-matched.
VARIANTS = ("", "f", "m")
#: All names: each method plain, particle-filtered (_f) and map-matched (_m).
METHODS = tuple(f"{name}_{variant}".rstrip("_") for variant in VARIANTS for name in PLAIN)
#: What needs torch.
NEURAL = tuple(name for name, (module, _) in _CLASSES.items() if module == "neural")


def parts_of(method: str) -> tuple[str, str]:
    """Name without suffix, and the variant ("", "f" or "m").

    Raises
    ------
    InputError
        When there is no such method.
    """
    if method not in METHODS:
        raise InputError(f"There is no localisation method '{method}'; choose one of: {', '.join(METHODS)}.")
    name, _, variant = method.partition("_")
    return name, variant


def class_of(name: str) -> type[Localizer]:
    """Return the class of a method without suffix."""
    module, kind = _CLASSES[name]
    found: type[Localizer] = getattr(import_module(f".{module}", __package__), kind)
    return found
