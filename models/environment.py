"""What this Python can do: which packages are here, whether a GPU can be used, and if not, why not and what to do.

Nothing here needs more than the standard library; torch is looked at only when a function is called, and may be missing
or broken.
"""

from __future__ import annotations

import html
import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from .errors import DeviceError, InputError

NOT_INSTALLED = "not installed"
UNKNOWN = "unknown"
DEVICES = ("auto", "cpu", "cuda")

_MIB = 2**20
_NVIDIA_DRIVER_FILE = Path("/proc/driver/nvidia/version")  # Linux only; elsewhere the driver's version stays unknown
_MEMORY_FILE = Path("/proc/meminfo")
_PACKAGES = (  # shown as, imported as, distributed as, for what, whether QGIS must have it
    ("numpy", "numpy", "numpy", "arrays, for every method", True),
    ("scipy", "scipy", "scipy", "nearest stations and sparse maps, for every method", True),
    ("gdal", "osgeo", "GDAL", "reading and writing rasters", True),
    ("torch", "torch", "torch", "neural networks, and computing on a GPU", False),
    ("safetensors", "safetensors", "safetensors", "trained weights of the neural networks", False),
    ("scikit-learn", "sklearn", "scikit-learn", "forests and other learned baselines", False),
    ("matplotlib", "matplotlib", "matplotlib", "figures in notebooks and benchmarks", False),
)


@dataclass(frozen=True)
class CudaState:
    """Whether an NVIDIA GPU can be used, and everything a person needs to know about it.

    Parameters
    ----------
    available
        True when a test computation on the GPU gave the right result.
    cause
        Why no GPU can be used, as the end of "because …" and without a full stop; empty when one can.
    advice
        What to do to use one, as a sentence; empty when one can be used.
    device_name
        Name of the GPU; empty when none was found.
    total_memory_mib, free_memory_mib
        Memory of the GPU [MiB]; None when unknown.
    driver_version
        Version of the NVIDIA driver; empty when unknown.
    cuda_version
        What torch was built for, such as "CUDA 12.4"; empty for a CPU build or no torch.
    """

    available: bool
    cause: str = ""
    advice: str = ""
    device_name: str = ""
    total_memory_mib: int | None = None
    free_memory_mib: int | None = None
    driver_version: str = ""
    cuda_version: str = ""

    @property
    def reason(self) -> str:
        """One sentence: which GPU is used, or why the CPU is."""
        if not self.available:
            return f"The CPU is used because {self.cause}."
        memory = _memory_text(self.total_memory_mib, self.free_memory_mib)
        return f"The GPU {self.device_name} is used ({self.cuda_version}; memory: {memory})."


@dataclass(frozen=True)
class Package:
    """A Python package and what it is for; `version` is a version, "not installed", or "unknown" when it hides it."""

    name: str
    version: str
    purpose: str
    required: bool

    @property
    def installed(self) -> bool:
        """Whether the package is there."""
        return self.version != NOT_INSTALLED


@dataclass(frozen=True)
class EnvironmentReport:
    """What this Python can do, for a person to read and to paste in a bug report.

    Parameters
    ----------
    python_version, executable, platform
        The interpreter and the machine. Paths have the home folder replaced by ``~``.
    cpu_cores
        Cores this process may use; None when unknown.
    memory_total_mib, memory_available_mib
        Main memory [MiB]; None when unknown.
    packages
        The packages that matter here, present or not.
    cuda
        Whether a GPU can be used.
    next_steps
        What to do, in sentences; never empty.
    extra
        (name, value) pairs from the caller, such as the version of QGIS; shown first.
    """

    python_version: str
    executable: str
    platform: str
    cpu_cores: int | None
    memory_total_mib: int | None
    memory_available_mib: int | None
    packages: tuple[Package, ...]
    cuda: CudaState
    next_steps: tuple[str, ...]
    extra: tuple[tuple[str, str], ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) of everything but the packages and the next steps."""
        rows = [
            *self.extra,
            ("Python", self.python_version),
            ("Program", self.executable),
            ("Platform", self.platform),
            ("CPU cores", UNKNOWN if self.cpu_cores is None else str(self.cpu_cores)),
            ("Memory", _memory_text(self.memory_total_mib, self.memory_available_mib)),
            ("Device", self.cuda.reason),
            ("GPU", self.cuda.device_name or "none found"),
        ]
        if self.cuda.device_name:
            rows.append(("GPU memory", _memory_text(self.cuda.total_memory_mib, self.cuda.free_memory_mib)))
        rows.append(("NVIDIA driver", self.cuda.driver_version or UNKNOWN))
        rows.append(("torch built for", self.cuda.cuda_version or "no GPU"))
        return rows

    def as_text(self) -> str:
        """Return a compact block of plain text to paste in a bug report."""
        packages = [(package.name, f"{package.version:<14} {package.purpose}") for package in self.packages]
        width = max(len(name) for name, _ in [*self.rows(), *packages]) + 2
        lines = ["TelcoLoc environment", *(f"{name:<{width}}{value}" for name, value in self.rows())]
        lines += ["", "Packages", *(f"{name:<{width}}{value}" for name, value in packages)]
        lines += ["", "Next steps", *(f"- {step}" for step in self.next_steps)]
        return "\n".join(lines) + "\n"

    def as_html(self) -> str:
        """Return a self-contained HTML page for the result viewer, ending in the text of `as_text`."""

        def table(rows: list[tuple[str, ...]]) -> str:
            cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
            return f'<table cellpadding="3">{"".join(f"<tr>{row}</tr>" for row in cells)}</table>'

        packages: list[tuple[str, ...]] = [(item.name, item.version, item.purpose) for item in self.packages]
        steps = "".join(f"<li>{html.escape(step)}</li>" for step in self.next_steps)
        return (
            '<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>TelcoLoc environment</title></head><body>\n'
            f"<h2>TelcoLoc environment</h2>\n<p><b>{html.escape(self.cuda.reason)}</b></p>\n"
            f"<h3>Next steps</h3>\n<ul>{steps}</ul>\n"
            f"<h3>Packages</h3>\n{table(packages)}\n"
            f"<h3>System</h3>\n{table([*self.rows()])}\n"
            f"<h3>To paste in a bug report</h3>\n<pre>{html.escape(self.as_text())}</pre>\n</body></html>\n"
        )


def cuda_state() -> CudaState:
    """Look for an NVIDIA GPU through torch and try it with a small computation; never raises.

    The first call in a process imports torch, which takes a second or more.
    """
    driver = _driver_version()
    torch = _import_torch()
    if isinstance(torch, tuple):
        return CudaState(False, *torch, driver_version=driver)
    version = getattr(torch, "version", None)
    cuda, rocm = getattr(version, "cuda", None), getattr(version, "hip", None)
    if not cuda and not rocm:
        return CudaState(False, *_cpu_build(getattr(torch, "__version__", "")), driver_version=driver)
    built_for = f"CUDA {cuda}" if cuda else f"ROCm {rocm}"
    problem = _availability_problem(torch, built_for, driver)
    if problem is not None:
        return CudaState(False, *problem, driver_version=driver, cuda_version=built_for)
    name, total, free, problem = _try_gpu(torch)
    return CudaState(problem is None, *(problem or ("", "")), name, total, free, driver, built_for)


def resolve_device(wanted: str) -> tuple[str, str]:
    """Choose the device to compute on.

    Parameters
    ----------
    wanted
        "auto" (a GPU where one works, else the CPU), "cpu" (torch is not even looked at) or "cuda".

    Returns
    -------
    device, reason
        "cpu" or "cuda", and one sentence that says why.

    Raises
    ------
    DeviceError
        When "cuda" was asked for and cannot be used; the message says why and what to do.
    InputError
        When `wanted` is something else.
    """
    if wanted not in DEVICES:
        raise InputError(f"The device must be one of {', '.join(DEVICES)}, not {wanted!r}.")
    if wanted == "cpu":
        return "cpu", "The CPU is used because the device cpu was asked for."
    if wanted == "auto" and "torch" not in sys.modules and not any(path.exists() for path in _driver_files()):
        return "cpu", "The CPU is used because no GPU driver was found on this computer."
    state = cuda_state()
    if state.available:
        return "cuda", state.reason
    if wanted == "cuda":
        raise DeviceError(
            f"The device cuda cannot be used because {state.cause}. {state.advice} Or choose the device auto or cpu."
        )
    return "cpu", state.reason


def collect(extra: Mapping[str, object] | None = None) -> EnvironmentReport:
    """Return what this Python can do; never raises.

    Parameters
    ----------
    extra
        What only the caller knows, by name, such as ``{"QGIS": "3.40.6", "Qt": "5.15.8"}``; shown first.
    """
    state = cuda_state()
    packages = tuple(
        Package(name, _version(module, distribution), purpose, required)
        for name, module, distribution, purpose, required in _PACKAGES
    )
    total, available = _main_memory_mib()
    return EnvironmentReport(
        python_version=platform.python_version(),
        executable=_without_home(sys.executable or UNKNOWN),
        platform=_platform(),
        cpu_cores=_cpu_cores(),
        memory_total_mib=total,
        memory_available_mib=available,
        packages=packages,
        cuda=state,
        next_steps=_next_steps(packages, state),
        extra=tuple((str(name), str(value)) for name, value in (extra or {}).items()),
    )


def _next_steps(packages: tuple[Package, ...], state: CudaState) -> tuple[str, ...]:
    missing = [package for package in packages if package.required and not package.installed]
    steps = [
        f"Install {package.name} into the Python of QGIS ({package.purpose}) and restart QGIS." for package in missing
    ]
    if not missing:
        steps.append("Nothing is missing for the methods that run on the CPU.")
    if not state.available:
        steps.append(state.advice)
    elif not next(package for package in packages if package.name == "safetensors").installed:
        steps.append("To use trained neural networks, install safetensors into the Python of QGIS and restart QGIS.")
    return tuple(steps)


def _driver_files() -> list[Path]:
    """Return files one of which exists where a GPU driver is installed.

    Looking for them spares everybody else the import of torch, which takes a second and stops a window for half of it.
    """
    windows = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "nvcuda.dll"
    return [_NVIDIA_DRIVER_FILE, Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"), windows]


def _cpu_build(version: str) -> tuple[str, str]:
    """Cause and advice where torch is built without CUDA."""
    return (
        f"the installed torch {version} is a build for the CPU only",
        "To use an NVIDIA GPU, replace this torch by one built for CUDA and restart QGIS.",
    )


def _import_torch() -> ModuleType | tuple[str, str]:
    """Return torch, or the cause and the advice when it cannot be imported."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name == "torch":
            return (
                "torch is not installed in this Python",
                "To use an NVIDIA GPU, install torch built for CUDA into the Python of QGIS and restart QGIS.",
            )
        return (
            f"torch cannot be loaded ({_first_line(error)})",
            f"Install the missing package {error.name} into the Python of QGIS and restart QGIS.",
        )
    except Exception as error:  # a broken build raises OSError, ImportError, or whatever its own start-up code raises
        if platform.system() == "Windows" and isinstance(error, (OSError, ImportError)):
            advice = (
                "Install Microsoft's Visual C++ Redistributable (x64) and restart QGIS; if that fails, reinstall torch."
            )
        else:
            advice = "Reinstall torch in the Python of QGIS, for this Python version and this numpy, and restart QGIS."
        return (f"torch cannot be loaded ({_first_line(error)})", advice)
    return torch


def _availability_problem(torch: ModuleType, built_for: str, driver: str) -> tuple[str, str] | None:
    """Return cause and advice when torch, built for a GPU, reports none."""
    try:
        with warnings.catch_warnings(record=True) as caught:  # torch warns about why it finds no GPU
            warnings.simplefilter("always")
            if torch.cuda.is_available():
                return None
        detail = _first_line(caught[0].message) if caught else ""
    except Exception as error:  # the report must not fail where torch does
        detail = _first_line(error)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in {"", "-1"}:
        return (
            f"the environment variable CUDA_VISIBLE_DEVICES is '{hidden}', which hides every GPU",
            "Unset CUDA_VISIBLE_DEVICES and restart QGIS.",
        )
    told = f" ({detail})" if detail else ""
    if driver:
        return (
            f"torch, built for {built_for}, finds no GPU it can use with the NVIDIA driver {driver}{told}",
            f"Update the NVIDIA driver to one that supports {built_for}, or install torch built for an older CUDA.",
        )
    return (
        f"torch is built for {built_for}, but no NVIDIA driver or GPU was found{told}",
        "If this computer has an NVIDIA GPU, install its driver and restart QGIS.",
    )


def _try_gpu(torch: ModuleType) -> tuple[str, int | None, int | None, tuple[str, str] | None]:
    """Compute a small product on the GPU; return name, total and free memory [MiB], and cause and advice on failure."""
    name, total, free = "", None, None
    try:
        name = str(torch.cuda.get_device_name())
        free_bytes, total_bytes = torch.cuda.mem_get_info()
        total, free = int(total_bytes) // _MIB, int(free_bytes) // _MIB
        ones = torch.ones((16, 16), device="cuda")
        result = float((ones @ ones).sum().item())
        del ones
        torch.cuda.empty_cache()  # QGIS stays open for days, and others may need the memory
    except Exception as error:  # drivers and builds fail in many ways; each must end in a sentence
        text = _first_line(error)
        if "out of memory" in str(error).lower():
            advice = "Close other programs that use the GPU and try again."
        else:
            advice = "Update the NVIDIA driver, or install torch built for this GPU, and restart QGIS."
        return name, total, free, (f"a small test computation on the GPU {name or 'found'} failed ({text})", advice)
    if result != 16**3:
        return (
            name,
            total,
            free,
            (
                f"a small test computation on the GPU {name} gave {result:g} instead of {16**3}",
                "Update the NVIDIA driver and check the GPU.",
            ),
        )
    return name, total, free, None


def _driver_version() -> str:
    """Return the version of the loaded NVIDIA driver, where the kernel tells."""
    try:
        text = _NVIDIA_DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"Kernel Module\b.*?\s(\d+\.\d+(?:\.\d+)*)\b", text)
    return match.group(1) if match else ""


def _version(module: str, distribution: str) -> str:
    """Return the version of a package without importing it, "not installed" or "unknown"."""
    if module in sys.modules:
        loaded = sys.modules[module]
        if loaded is None:  # how Python marks a blocked import
            return NOT_INSTALLED
        if getattr(loaded, "__version__", None):
            return str(loaded.__version__)
    try:
        if importlib.util.find_spec(module) is None:
            return NOT_INSTALLED
    except (ImportError, ValueError):  # a loaded module without a spec: it is there
        return UNKNOWN
    try:
        return importlib.metadata.version(distribution) or UNKNOWN
    except Exception:  # no metadata, or unreadable metadata: the package is there all the same
        return UNKNOWN


def _cpu_cores() -> int | None:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _main_memory_mib() -> tuple[int | None, int | None]:
    """Return total and available main memory [MiB], None where the system does not tell."""
    try:
        text = _MEMORY_FILE.read_text(encoding="ascii", errors="replace")
        kib = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB", text, flags=re.MULTILINE)}
    except OSError:
        kib = {}
    if "MemTotal" in kib:
        return kib["MemTotal"] // 1024, kib["MemAvailable"] // 1024 if "MemAvailable" in kib else None
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB, None
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        return None, None


def _platform() -> str:
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"] + ", "
    except (AttributeError, KeyError, OSError):  # Python 3.9, or not a Linux
        system = ""
    return system + platform.platform()


def _memory_text(total_mib: int | None, free_mib: int | None) -> str:
    if total_mib is None:
        return UNKNOWN
    return f"{total_mib} MiB" if free_mib is None else f"{free_mib} of {total_mib} MiB free"


def _first_line(error: object) -> str:
    """Return the first line of an error or warning, short, without full stop and home folder."""
    lines = str(error).strip().splitlines()
    text = _without_home(lines[0].strip().rstrip(".")) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def _without_home(text: str) -> str:
    """Replace the home folder by ``~``: a bug report need not name its author."""
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text
