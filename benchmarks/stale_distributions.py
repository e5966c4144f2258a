"""Small distributions for the stale-hit campaign, laid out as an installer would: modules, metadata, RECORD with digests.

Source: Python packaging's "Recording installed projects" and "Direct URL" specifications.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["Distribution", "install", "installed_version", "remove", "site_of"]


@dataclass(frozen=True)
class Distribution:
    """One distribution.

    Args:
        name: Its name.
        version: Its version.
        files: Content by path in the site directory.
        entry_points: Content of its entry point file.
        origin: ``index``; ``local`` (installed from a directory); or ``editable`` (its files stay outside, a path file leads to them).
    """

    name: str
    version: str = "1.0"
    files: dict[str, str] = field(default_factory=dict)
    entry_points: str = ""
    origin: str = "index"

    @property
    def metadata(self) -> str:
        """Name of its metadata directory."""
        return f"{self.name}-{self.version}.dist-info"

    def with_constant(self, value: int, version: str | None = None) -> Distribution:
        """Return another build of it: ``K = 1`` lines have another value, and perhaps the version is another."""
        files = {path: text.replace("K = 1\n", f"K = {value}\n") for path, text in self.files.items()}
        return replace(self, files=files, version=version or self.version)


def site_of(prefix: Path) -> Path:
    """Return the site directory below the root of an environment."""
    return prefix / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def install(site: Path, distribution: Distribution, *, outside: Path) -> None:
    """Install a distribution, replacing whatever version is there.

    Args:
        site: Site directory.
        distribution: What to install.
        outside: Where the files of an editable one stay.
    """
    remove(site, distribution.name)
    files = dict(distribution.files)
    if distribution.origin == "editable":
        for path, text in files.items():
            _write(outside / "src" / path, text)
        files = {f"__editable__.{distribution.name}.pth": f"{outside}/src\n"}
    metadata = distribution.metadata
    files[f"{metadata}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {distribution.name}\nVersion: {distribution.version}\n"
    )
    files[f"{metadata}/top_level.txt"] = "".join(
        f"{top}\n"
        for top in sorted({path.partition("/")[0].removesuffix(".py") for path in distribution.files})
    )
    if distribution.entry_points:
        files[f"{metadata}/entry_points.txt"] = distribution.entry_points
    if distribution.origin != "index":
        direct = {"url": f"file://{outside}/src", "dir_info": {"editable": distribution.origin == "editable"}}
        files[f"{metadata}/direct_url.json"] = json.dumps(direct)
    lines = []
    for path, text in files.items():
        _write(site / path, text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text.encode())}")
    _write(site / metadata / "RECORD", "\n".join([*lines, f"{metadata}/RECORD,,"]) + "\n")


def remove(site: Path, name: str) -> None:
    """Uninstall every version of a distribution, by its RECORD."""
    for metadata in site.glob(f"{name}-*.dist-info"):
        for line in (metadata / "RECORD").read_text().splitlines():
            (site / line.partition(",")[0]).unlink(missing_ok=True)
        shutil.rmtree(metadata, ignore_errors=True)
    for folder in sorted((path for path in site.rglob("*") if path.is_dir()), reverse=True):
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def installed_version(site: Path, name: str) -> str | None:
    """Return the version that is installed, None when it is not."""
    found = next(iter(site.glob(f"{name}-*.dist-info")), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
