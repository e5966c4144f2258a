"""Whose file is it? Sort paths into the project's, the system's, the interpreter's, installed packages' and other.

Only ``project``, ``other`` and ``temporary`` files can be inputs or outputs. System files, the interpreter and installed
distributions are described by versions instead; ``own`` is what Lichen itself keeps; ``bytecode`` follows from sources.

The lists err on the side of ``other``: a system file that is taken for an input only costs a missed hit.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

__all__ = ["Place", "Places", "normalise"]

Place = Literal[
    "project", "other", "temporary", "system", "interpreter", "site", "own", "bytecode", "device", "cache"
]

_SYSTEM_TREES = (
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/libx32", "/usr/bin", "/usr/sbin", "/usr/include",
    "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/boot", "/nix/store", "/gnu/store",
    "/var/lib/dpkg", "/var/lib/apt", "/var/cache/fontconfig", "/var/cache/ldconfig", "/run/systemd", "/run/udev", "/run/nscd",
    "/var/run/nscd", "/run/resolvconf",
)  # fmt: skip
"""What a package manager lays out. Not ``/usr/local``, where people put what is their own, nor most of ``/usr/share``."""
_SYSTEM_SHARED = (
    "zoneinfo", "locale", "i18n", "terminfo", "fonts", "fontconfig", "X11", "icons", "themes", "mime", "misc", "file", "ca-certificates",
    "ca-certificates-java", "glib-2.0", "glvnd", "vulkan", "egl", "drirc.d", "libdrm", "hwdata", "nvidia", "alsa", "p11-kit",
    "crypto-policies", "perl", "perl5", "python3", "nodejs", "ruby", "tcltk", "bash-completion", "git-core", "doc", "man", "info",
    "lintian", "dpkg", "keyrings", "applications", "pkgconfig", "aclocal", "gcc", "gdb", "cmake", "ghostscript", "java",
)  # fmt: skip
"""Folders of ``/usr/share`` that belong to system software; data laid beside them counts by content."""
_SYSTEM_SETTINGS = (
    "ld.so", "nsswitch.conf", "passwd", "group", "shadow", "hosts", "hostname", "resolv.conf", "localtime", "timezone", "ssl", "pki",
    "ca-certificates", "mime.types", "magic", "os-release", "lsb-release", "debian_version", "redhat-release",
    "system-release", "machine-id", "locale", "fonts", "gai.conf", "host.conf", "services", "protocols", "security",
    "inputrc", "bash.bashrc", "bashrc", "profile", "alternatives", "OpenCL", "nvidia", "vulkan", "pam.d", "login.defs",
    "networks", "ethers", "rpc", "terminfo", "crypto-policies", "gnutls", "krb5.conf", "default", "environment", "shells",
    "skel", "sudo", "selinux", "apparmor", "dpkg", "apt", "gitconfig", "matplotlibrc", "python3", "perl", "R",
)  # fmt: skip
_DEVICE_TREES = ("/proc", "/sys", "/dev")
_INTERPRETER_FOLDERS = (
    "lib",
    "lib64",
    "bin",
    "include",
    "share",
    "etc",
    "ssl",
    "conda-meta",
    "libexec",
    "pyvenv.cfg",
)
_DERIVED_CACHES = (
    "matplotlib/fontlist-", "matplotlib/tex.cache", "fontconfig/", "torch/kernels/", "torch_extensions/", "nv/ComputeCache/",
    "mesa_shader_cache", "numba/", "triton/", "pip/", "uv/",
)  # fmt: skip
"""Under the user's cache directory: derived from installed software alone, so neither input nor output."""


_OURS = ("project", "other", "temporary")


def normalise(path: str) -> str:
    """Tidy a path as text: no doubled or trailing slashes, no ``.``; ``..`` was resolved when the path was seen."""
    if "/." in path or "//" in path or path.endswith("/"):
        path = os.path.normpath(path)
        return path[1:] if path.startswith("//") else path
    return path


def _is_environment(site: str) -> bool:
    """Say whether a ``site-packages`` is that of a virtual environment: ``<prefix>/lib/python3.x/site-packages``."""
    parents = Path(site).parents
    return len(parents) > 2 and (parents[2] / "pyvenv.cfg").is_file()


def _files_of_interpreter(stdlib: str) -> list[str]:
    """Name what an interpreter owns in a prefix that it shares with everything else, but for its library of modules."""
    name = Path(stdlib).name  # such as python3.11
    version = name.removeprefix("python")
    if not name.startswith("python") or not version[:1].isdigit():
        return []
    binary = ["bin/python", "bin/python3", f"bin/{name}", "bin/pyvenv.cfg", "pyvenv.cfg"]
    zipped = f"python{version.replace('.', '')}"
    return [
        *binary, f"bin/{zipped}._pth", f"bin/{name}._pth", f"lib/{zipped}.zip", f"include/{name}", "lib/libpython3.so",
        f"lib/lib{name}.so", f"lib/lib{name}.so.1.0", f"lib/lib{name}.a",
    ]  # fmt: skip


class Places:
    """Knows the roots.

    Args:
        project_root: Absolute path of the project.
        own: Directories Lichen keeps for itself; nothing below them is ever reported.
        environ: Environment of the run, for the user's cache and temporary directories.

    Attributes:
        project_root: Normalised.
        ours_by_directory: What `is_ours` has found out: whether all files of a directory are ours; None when each must be asked for.
    """

    def __init__(self, project_root: str, own: Iterable[str], environ: Mapping[str, str]) -> None:
        self.project_root = normalise(project_root)
        self._roots: dict[str, Place] = {}
        for tree in _SYSTEM_TREES:
            self._roots[tree] = "system"
        for name in _SYSTEM_SHARED:
            self._roots[f"/usr/share/{name}"] = "system"
        for name in _DEVICE_TREES:
            self._roots[name] = "device"
        self._roots["/dev/shm"] = "temporary"  # noqa: S108 - shared memory is where the run may put temporary files
        for variable in ("TMPDIR", "TEMP", "TMP"):
            if environ.get(variable, "").startswith("/"):
                self._roots[normalise(environ[variable])] = "temporary"
        for temporary in ("/tmp", "/var/tmp", tempfile.gettempdir()):  # noqa: S108 - named, never written
            self._roots.setdefault(temporary, "temporary")
        self._roots[self.project_root] = "project"
        home = environ.get("HOME") or "/nonexistent"
        self.home = normalise(home)
        self.cache = normalise(environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
        config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        for path in (*own, environ.get("LICHEN_HOME") or f"{config}/lichen", f"{self.cache}/lichen"):
            self._roots[normalise(path)] = "own"
        self.site_directories: list[str] = []
        self._places: dict[str, Place] = {}
        self._above_roots: frozenset[str] | None = None
        self.ours_by_directory: dict[str, bool | None] = {}

    def add_interpreter(self, prefixes: Iterable[str], stdlib: str, path: Iterable[str]) -> None:
        """Learn an interpreter's own directories.

        Args:
            prefixes: ``sys.prefix`` and ``sys.base_prefix``.
            stdlib: Directory of the standard library.
            path: ``sys.path``; of its ``site-packages`` those inside a prefix, the user's own, and those of another
                virtual environment (laid under this one by a ``.pth`` file, as ``uv run --with`` does) count as installed.
        """
        prefixes = [normalise(prefix) for prefix in prefixes if prefix]
        for prefix in prefixes:
            if prefix in ("/", "/usr", "/usr/local"):
                for name in _files_of_interpreter(stdlib):
                    self._roots.setdefault(f"{prefix.rstrip('/')}/{name}", "interpreter")
                continue
            for folder in _INTERPRETER_FOLDERS:
                self._roots.setdefault(f"{prefix}/{folder}", "interpreter")
        if stdlib:
            self._roots.setdefault(normalise(stdlib), "interpreter")
        user_site = f"{self.home}/.local/lib/"
        for entry in map(normalise, path):
            if entry.endswith(("/site-packages", "/dist-packages")) and (
                entry.startswith((user_site, "/usr/"))
                or any(entry.startswith(prefix + "/") for prefix in prefixes)
                or _is_environment(entry)
            ):
                self._roots[entry] = "site"
                if entry not in self.site_directories:
                    self.site_directories.append(entry)
        self._places.clear()
        self._above_roots = None
        self.ours_by_directory.clear()

    def add_bytecode_tree(self, path: str) -> None:
        """Learn where an interpreter keeps bytecode apart from sources."""
        self._roots[normalise(path)] = "bytecode"
        self._places.clear()
        self._above_roots = None
        self.ours_by_directory.clear()

    def of(self, path: str) -> Place:
        """Say whose a normalised absolute path is."""
        directory = path[: path.rfind("/")]
        place = self._places.get(directory)
        if place is None:
            place = self._places[directory] = self._of_directory(directory)
        if path in self._roots:
            return self._roots[path]
        if place == "other" and path.startswith("/etc/"):
            return self._of_setting(path)
        return place

    def _of_directory(self, directory: str) -> Place:
        if "/__pycache__/" in directory + "/":
            return "bytecode"
        if "/.lichen/" in directory + "/":
            return "own"
        probe = directory or "/"
        while probe and probe != "/":
            place = self._roots.get(probe)
            if place is not None:
                return place
            probe = probe[: probe.rfind("/")]
        if directory.startswith(self.cache + "/") and f"{directory[len(self.cache) + 1 :]}/".startswith(
            _DERIVED_CACHES
        ):
            return "cache"
        return "other"

    @staticmethod
    def _of_setting(path: str) -> Place:
        name = path[5:].partition("/")[0]
        return "system" if name.startswith(_SYSTEM_SETTINGS) else "other"

    def is_ours(self, path: str) -> bool:
        """Say whether a path can be an input or output of a run."""
        directory = path[: path.rfind("/")]
        if directory not in self.ours_by_directory:
            self.ours_by_directory[directory] = self._all_ours(directory)
        ours = self.ours_by_directory[directory]
        if ours is not None:
            return ours
        if path.startswith(self.cache) and path[len(self.cache) + 1 :].startswith(_DERIVED_CACHES):
            return False
        return self.of(path) in _OURS

    def _all_ours(self, directory: str) -> bool | None:
        """Say whether all, or no, files in a directory are ours; None when each must be asked for."""
        if self._above_roots is None:
            self._above_roots = frozenset(root.rpartition("/")[0] for root in self._roots)
        if directory.startswith((self.cache, "/etc")) or directory in self._above_roots:
            return None
        return self.of(f"{directory}/x") in _OURS
