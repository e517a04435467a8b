"""Runs the commands of docs/landmarks.md as they stand there and takes its maps from them: part of `make screenshots`.

They run in a copy of the sample city, and what they write to /tmp lands in build/screenshots/landmarks, where `screenshots.py` finds it.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "landmarks.md"
WORK = ROOT / "build" / "screenshots" / "landmarks"


def commands(page: str, folder: Path) -> str:
    """The shell blocks of a page one after the other, with `folder` for /tmp."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)).replace("/tmp/", f"{folder}/")  # noqa: S108


def main() -> None:
    """Run all, then put the maps that the page shows into docs/images."""
    page = PAGE.read_text(encoding="utf-8")
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(ROOT / "resources" / "sample_city", WORK / "resources" / "sample_city")
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}  # torch, as `make run` has it
    done = subprocess.run(["bash", "-e", "-c", commands(page, WORK)], cwd=WORK, env=environment, check=False)
    if done.returncode:
        sys.exit(f"The commands of {PAGE.name} ended with {done.returncode}.")
    for name in re.findall(r"\(images/(\w+\.png)\)", page):
        if (WORK / name).exists():
            shutil.copy(WORK / name, ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main()
