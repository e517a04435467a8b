"""Device choice and the environment report, with torch missing, broken, for the CPU and for CUDA, all simulated."""

import importlib.metadata
import platform
import sys
import types
import warnings
from collections import namedtuple
from html.parser import HTMLParser

import pytest
from telcoloc.models import environment
from telcoloc.models.environment import CudaState, collect, cuda_state, resolve_device
from telcoloc.models.errors import DeviceError, InputError

DRIVER_TEXTS = {
    "535.129.03": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC",
    "550.54.15": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs)\n",
}


class FakeTensor:
    """Ones on a pretended GPU; the sum of their product is what the test says."""

    def __init__(self, total):
        self.total = total

    def __matmul__(self, other):
        return self

    def sum(self):
        return self

    def item(self):
        return self.total


class FakeCuda:
    def __init__(self, available=True, warning=None, error=None):
        self.available, self.warning, self.error, self.emptied = available, warning, error, False

    def is_available(self):
        if self.error:
            raise self.error
        if self.warning:
            warnings.warn(self.warning, stacklevel=1)
        return self.available

    def get_device_name(self):
        return "NVIDIA H200"

    def mem_get_info(self):
        return 140_000 * 2**20, 143_000 * 2**20

    def empty_cache(self):
        self.emptied = True


@pytest.fixture(autouse=True)
def driver(monkeypatch, tmp_path):
    """Pretend which NVIDIA driver the kernel reports; none at first."""
    file = tmp_path / "nvidia_version"
    monkeypatch.setattr(environment, "_NVIDIA_DRIVER_FILE", file)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda version: file.write_text(DRIVER_TEXTS[version])


@pytest.fixture
def fake_torch(monkeypatch):
    """Put a small torch in place of the real one."""

    def put(version="2.5.1+cu124", cuda="12.4", hip=None, gpu=None, total=4096.0, error=None):
        torch = types.ModuleType("torch")
        torch.__version__ = version
        torch.version = types.SimpleNamespace(cuda=cuda, hip=hip)
        torch.cuda = gpu or FakeCuda()

        def ones(shape, device):
            assert (shape, device) == ((16, 16), "cuda")
            if error:
                raise error
            return FakeTensor(total)

        torch.ones = ones
        monkeypatch.setitem(sys.modules, "torch", torch)
        return torch

    return put


@pytest.fixture
def torch_that_raises(monkeypatch, tmp_path):
    """Put a torch in front whose import runs the given line."""

    def put(line):
        (tmp_path / "torch.py").write_text(f"{line}\n")
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return put


def unavailable(state):
    """What is told about a GPU that cannot be used."""
    assert not state.available
    assert state.reason == f"The CPU is used because {state.cause}."
    return state.cause, state.advice


# Which sentence for which state


def test_torch_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    state = cuda_state()
    assert state.reason == "The CPU is used because torch is not installed in this Python."
    assert state.advice == (
        "To use an NVIDIA GPU, install torch built for CUDA into the Python of QGIS and restart QGIS."
    )
    assert (state.device_name, state.total_memory_mib, state.driver_version, state.cuda_version) == ("", None, "", "")


def test_torch_lacks_a_package(torch_that_raises):
    torch_that_raises("import package_that_is_not_here")
    assert unavailable(cuda_state()) == (
        "torch cannot be loaded (No module named 'package_that_is_not_here')",
        "Install the missing package package_that_is_not_here into the Python of QGIS and restart QGIS.",
    )


@pytest.mark.parametrize(
    ("system", "advice"),
    [
        (
            "Windows",
            "Install Microsoft's Visual C++ Redistributable (x64) and restart QGIS; if that fails, reinstall torch.",
        ),
        ("Linux", "Reinstall torch in the Python of QGIS, for this Python version and this numpy, and restart QGIS."),
    ],
)
@pytest.mark.parametrize("error", ["OSError", "ImportError"])
def test_torch_fails_to_load(torch_that_raises, monkeypatch, system, advice, error):
    monkeypatch.setattr(platform, "system", lambda: system)
    torch_that_raises(f"raise {error}('[WinError 126] Error loading c10.dll.\\nsecond line')")
    assert unavailable(cuda_state()) == ("torch cannot be loaded ([WinError 126] Error loading c10.dll)", advice)


def test_torch_raises_something_of_its_own(torch_that_raises):
    torch_that_raises("raise RuntimeError")
    cause, advice = unavailable(cuda_state())
    assert cause == "torch cannot be loaded (RuntimeError)"
    assert advice.startswith("Reinstall torch")


def test_torch_is_a_cpu_build(fake_torch, driver):
    fake_torch("2.5.1+cpu", cuda=None)
    driver("535.129.03")
    state = cuda_state()
    assert unavailable(state) == (
        "the installed torch 2.5.1+cpu is a build for the CPU only",
        "To use an NVIDIA GPU, replace this torch by one built for CUDA and restart QGIS.",
    )
    assert (state.driver_version, state.cuda_version) == ("535.129.03", "")


def test_no_driver(fake_torch):
    fake_torch(gpu=FakeCuda(available=False))
    state = cuda_state()
    assert unavailable(state) == (
        "torch is built for CUDA 12.4, but no NVIDIA driver or GPU was found",
        "If this computer has an NVIDIA GPU, install its driver and restart QGIS.",
    )
    assert state.cuda_version == "CUDA 12.4"


def test_driver_too_old(fake_torch, driver):
    driver("535.129.03")
    warning = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).\nPlease update"
    fake_torch(gpu=FakeCuda(available=False, warning=warning))
    assert unavailable(cuda_state()) == (
        "torch, built for CUDA 12.4, finds no GPU it can use with the NVIDIA driver 535.129.03"
        " (CUDA initialization: The NVIDIA driver on your system is too old (found version 11040))",
        "Update the NVIDIA driver to one that supports CUDA 12.4, or install torch built for an older CUDA.",
    )


@pytest.mark.parametrize("value", ["", "-1"])
def test_gpus_are_hidden(fake_torch, monkeypatch, value):
    fake_torch(gpu=FakeCuda(available=False))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert unavailable(cuda_state()) == (
        f"the environment variable CUDA_VISIBLE_DEVICES is '{value}', which hides every GPU",
        "Unset CUDA_VISIBLE_DEVICES and restart QGIS.",
    )


def test_asking_for_a_gpu_raises(fake_torch):
    fake_torch(gpu=FakeCuda(error=RuntimeError("driver gone")))
    cause, _ = unavailable(cuda_state())
    assert cause == "torch is built for CUDA 12.4, but no NVIDIA driver or GPU was found (driver gone)"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            "CUDA error: no kernel image is available for execution on the device",
            "Update the NVIDIA driver, or install torch built for this GPU, and restart QGIS.",
        ),
        ("CUDA out of memory. Tried to allocate", "Close other programs that use the GPU and try again."),
    ],
)
def test_gpu_fails_the_test_computation(fake_torch, error, advice):
    fake_torch(error=RuntimeError(f"{error}\nmore lines"))
    state = cuda_state()
    assert unavailable(state) == (f"a small test computation on the GPU NVIDIA H200 failed ({error})", advice)
    assert (state.device_name, state.total_memory_mib, state.free_memory_mib) == ("NVIDIA H200", 143_000, 140_000)


def test_gpu_computes_wrong(fake_torch):
    fake_torch(total=float("nan"))
    cause, advice = unavailable(cuda_state())
    assert cause == "a small test computation on the GPU NVIDIA H200 gave nan instead of 4096"
    assert advice == "Update the NVIDIA driver and check the GPU."


@pytest.mark.parametrize("version", DRIVER_TEXTS)
def test_gpu_works(fake_torch, driver, version):
    driver(version)
    torch = fake_torch()
    state = cuda_state()
    assert state == CudaState(True, "", "", "NVIDIA H200", 143_000, 140_000, version, "CUDA 12.4")
    assert state.reason == "The GPU NVIDIA H200 is used (CUDA 12.4; memory: 140000 of 143000 MiB free)."
    assert torch.cuda.emptied


def test_rocm_counts_as_a_gpu(fake_torch):
    fake_torch("2.5.1+rocm6.2", cuda=None, hip="6.2")
    assert (cuda_state().available, cuda_state().cuda_version) == (True, "ROCm 6.2")


# Choosing the device


def test_auto_takes_the_gpu_where_it_works(fake_torch):
    fake_torch()
    reason = "The GPU NVIDIA H200 is used (CUDA 12.4; memory: 140000 of 143000 MiB free)."
    assert resolve_device("auto") == ("cuda", reason)
    assert resolve_device("cuda") == resolve_device("auto")


def test_auto_falls_back_with_the_reason(fake_torch):
    fake_torch("2.5.1+cpu", cuda=None)
    reason = "The CPU is used because the installed torch 2.5.1+cpu is a build for the CPU only."
    assert resolve_device("auto") == ("cpu", reason)


def test_cpu_does_not_look_at_torch(torch_that_raises):
    torch_that_raises("raise SystemExit('imported')")
    assert resolve_device("cpu") == ("cpu", "The CPU is used because the device cpu was asked for.")


def test_cuda_without_a_gpu_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(DeviceError) as caught:
        resolve_device("cuda")
    advice = "To use an NVIDIA GPU, install torch built for CUDA into the Python of QGIS and restart QGIS."
    assert str(caught.value) == (
        "The device cuda cannot be used because torch is not installed in this Python."
        f" {advice} Or choose the device auto or cpu."
    )


@pytest.mark.parametrize("wanted", ["gpu", "CUDA", "", "cuda:0", None, 2])
def test_other_devices_are_refused(wanted):
    with pytest.raises(InputError) as caught:
        resolve_device(wanted)
    assert str(caught.value) == f"The device must be one of auto, cpu, cuda, not {wanted!r}."


# The report


def versions(report):
    return {package.name: package.version for package in report.packages}


def test_report_of_a_machine_with_a_gpu(fake_torch, driver):
    driver("550.54.15")
    fake_torch()
    report = collect({"QGIS": "3.40.6-Bratislava", "Qt": "5.15.8"})
    rows = dict(report.rows())
    assert list(rows)[:3] == ["QGIS", "Qt", "Python"]
    assert rows["Device"] == report.cuda.reason
    assert rows["GPU memory"] == "140000 of 143000 MiB free"
    assert rows["NVIDIA driver"] == "550.54.15"
    assert rows["torch built for"] == "CUDA 12.4"
    assert versions(report)["torch"] == "2.5.1+cu124"
    assert list(versions(report)) == ["numpy", "scipy", "gdal", "torch", "safetensors", "scikit-learn", "matplotlib"]
    assert report.next_steps == ("Nothing is missing for the methods that run on the CPU.",)


def test_report_without_torch_is_good_news(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    report = collect()
    assert versions(report)["torch"] == "not installed"
    assert report.next_steps == (
        "Nothing is missing for the methods that run on the CPU.",
        "To use an NVIDIA GPU, install torch built for CUDA into the Python of QGIS and restart QGIS.",
    )
    assert dict(report.rows())["GPU"] == "none found"


def test_report_names_what_is_missing(fake_torch, monkeypatch):
    fake_torch()
    for module in ("scipy", "safetensors"):
        monkeypatch.setitem(sys.modules, module, None)
    assert collect().next_steps == (
        "Install scipy into the Python of QGIS (nearest stations and sparse maps, for every method) and restart QGIS.",
        "To use trained neural networks, install safetensors into the Python of QGIS and restart QGIS.",
    )


def test_version_of_a_package_that_hides_it(monkeypatch, fake_torch):
    fake_torch(version=None)
    monkeypatch.setitem(sys.modules, "sklearn", types.ModuleType("sklearn"))  # no __version__ and no __spec__
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)

    def no_metadata(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", no_metadata)
    found = versions(collect())
    assert (found["torch"], found["scikit-learn"], found["matplotlib"]) == ("unknown", "unknown", "unknown")


def test_report_never_raises(torch_that_raises, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError

    torch_that_raises("raise ValueError('é <b>')")
    monkeypatch.setattr(environment, "_MEMORY_FILE", tmp_path / "none")
    monkeypatch.setattr(environment.os, "sysconf", refuse)
    monkeypatch.setattr(platform, "freedesktop_os_release", refuse, raising=False)
    monkeypatch.delattr(environment.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(environment.os, "cpu_count", lambda: None)
    monkeypatch.setattr(sys, "executable", None)
    report = collect()
    rows = dict(report.rows())
    assert (rows["Memory"], rows["CPU cores"], rows["Program"]) == ("unknown", "unknown", "unknown")
    assert "torch cannot be loaded (é <b>)" in report.as_text()
    assert "torch cannot be loaded (é &lt;b&gt;)" in report.as_html()


def test_memory_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_MEMORY_FILE", tmp_path / "none")
    monkeypatch.setattr(environment.os, "sysconf", {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 4096}.__getitem__)
    report = collect()
    assert (report.memory_total_mib, report.memory_available_mib) == (4096, None)
    assert dict(report.rows())["Memory"] == "4096 MiB"


def test_memory_from_proc(monkeypatch, tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       24105984 kB\nMemFree:  1 kB\nMemAvailable:   20480000 kB\n")
    monkeypatch.setattr(environment, "_MEMORY_FILE", file)
    assert dict(collect().rows())["Memory"] == "20000 of 23541 MiB free"


def test_report_does_not_name_the_user(monkeypatch, torch_that_raises):
    monkeypatch.setenv("HOME", "/home/maria")
    monkeypatch.setattr(sys, "executable", "/home/maria/qgis/bin/python3")
    torch_that_raises("raise OSError('/home/maria/torch/lib/libtorch.so: cannot open shared object file')")
    report = collect()
    assert report.executable == "~/qgis/bin/python3"
    assert "~/torch/lib/libtorch.so: cannot open shared object file" in report.as_text()
    assert "maria" not in report.as_text() + report.as_html()


def test_long_errors_are_cut(torch_that_raises):
    torch_that_raises("raise OSError('x' * 1000)")
    assert cuda_state().cause == f"torch cannot be loaded ({'x' * 199}…)"


def test_text_is_a_compact_aligned_block(fake_torch):
    fake_torch()
    text = collect({"QGIS": "3.40.6"}).as_text()
    lines = text.splitlines()
    assert lines[0] == "TelcoLoc environment"
    assert lines[1] == f"{'QGIS':<17}3.40.6"
    assert f"{'torch':<17}{'2.5.1+cu124':<14} neural networks, and computing on a GPU" in lines
    assert lines[-2:] == ["Next steps", "- Nothing is missing for the methods that run on the CPU."]
    assert text.endswith("\n")
    assert len(lines) < 32


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order, and keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, _attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_balanced_and_escaped(fake_torch):
    fake_torch("<script>alert('x')</script>")
    report = collect({"Q & A": "<i>3.40</i>"})
    page = report.as_html()
    assert "<script" not in page
    assert "<i>" not in page
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert report.as_text() in reader.text
    assert all(step in reader.text for step in report.next_steps)


def test_report_of_this_very_machine():
    report = collect({"When": namedtuple("Version", "major minor")(3, 40)})
    assert report.python_version == platform.python_version()
    assert report.cpu_cores >= 1
    assert versions(report)["numpy"] != "not installed"
    assert report.extra == (("When", "Version(major=3, minor=40)"),)


def test_auto_does_not_import_torch_where_there_is_no_driver(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(environment, "_driver_files", lambda: [tmp_path / "none"])
    monkeypatch.setattr(environment, "_import_torch", lambda: pytest.fail("torch was imported"))
    assert resolve_device("auto") == ("cpu", "The CPU is used because no GPU driver was found on this computer.")


def test_auto_looks_closer_where_there_is_a_driver(monkeypatch, tmp_path):
    (tmp_path / "driver").touch()
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(environment, "_driver_files", lambda: [tmp_path / "driver"])
    monkeypatch.setattr(environment, "_import_torch", lambda: ("torch is missing", "Install it."))
    assert resolve_device("auto") == ("cpu", "The CPU is used because torch is missing.")
