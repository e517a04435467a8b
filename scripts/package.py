"""Builds `build/telcoloc-<version>.zip`: what a user needs of the tracked files; the same files make the same bytes.

Run `python3 scripts/package.py [--output FOLDER]`; standard library and git only. Prints the path of the zip.
"""

from __future__ import annotations

import argparse
import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "telcoloc"  # top folder in the zip, hence the plugin's folder and its id in QGIS
REQUIRED_FILES = ("__init__.py", "metadata.txt", "LICENSE", "README.md", "CHANGELOG.md")
FOLDERS = ("models", "processing_algorithms", "resources", "telcoloc_qgis")
TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the oldest a zip can hold
FILE_MODE = 0o100644  # a regular file nobody can execute


class PackageError(Exception):
    """Why there is no zip, in one sentence."""


def tracked_files(root: Path) -> list[str]:
    """Return the paths git tracks under `root`, relative and with forward slashes."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True)
    except FileNotFoundError:
        raise PackageError("The package is built from the files git tracks, but git was not found.") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise PackageError(f"git could not list the tracked files of {root}: {reason}") from None
    return sorted(name for name in listing.stdout.decode("utf-8").split("\0") if name)


def user_files(root: Path) -> list[str]:
    """Return those of the tracked files that go into the zip, sorted.

    Raises
    ------
    PackageError
        When a required file is missing, or a chosen one is not a plain file in the working tree.
    """
    tracked = tracked_files(root)
    missing = [name for name in REQUIRED_FILES if name not in tracked or not (root / name).is_file()]
    if missing:
        raise PackageError(f"The package needs {', '.join(missing)}, written and added to git; nothing was built.")

    def wanted(name: str) -> bool:
        parts = name.split("/")
        hidden = any(part.startswith(".") for part in parts)
        return not hidden and (name in REQUIRED_FILES or (len(parts) > 1 and parts[0] in FOLDERS))

    chosen = [name for name in tracked if wanted(name)]
    for name in chosen:
        if (root / name).is_symlink() or not (root / name).is_file():
            raise PackageError(f"{name} is tracked by git but is no plain file in the working tree; nothing was built.")
    return chosen


def version(root: Path) -> str:
    """Return the version that metadata.txt states."""
    metadata = configparser.ConfigParser()
    try:
        metadata.read_string((root / "metadata.txt").read_text(encoding="utf-8"))
        return metadata["general"]["version"]
    except (configparser.Error, KeyError) as error:
        raise PackageError(f"metadata.txt has no readable version ({error}); nothing was built.") from None


def build(root: Path, folder: Path) -> Path:
    """Write the zip of the working tree `root` into `folder` and return its path; on failure nothing is left behind."""
    names = user_files(root)
    target = folder / f"{PACKAGE}-{version(root)}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".zip.part")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in names:
                entry = zipfile.ZipInfo(f"{PACKAGE}/{name}", TIMESTAMP)
                entry.create_system = 3  # Unix, so that the mode below counts wherever this runs
                entry.external_attr = FILE_MODE << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, (root / name).read_bytes())
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Build the zip and return the exit code: 0, or 1 after one sentence that says what is missing."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description="Build the zip that QGIS installs.")
    parser.add_argument("--output", type=Path, default=root / "build", metavar="FOLDER", help="where the zip goes")
    try:
        target = build(root, parser.parse_args(arguments).output)
    except PackageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
