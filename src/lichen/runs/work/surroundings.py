"""What a manifest's items look like now, on this machine, in this project.

The same functions describe an item when a run has been watched and when a later request is compared with it, so the
two can only differ when the world does. A comparison that cannot be made (an unreadable file, an interpreter that
does not answer) is a difference, never a match.
"""

# There can be 100,000 paths.
# ruff: noqa: PTH116

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.content.columns import MANY
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.errors import LichenError
from lichen.runs.trace.variables import ALL_NAMES, all_names, foreign_libraries
from lichen.runs.work.concealment import Concealer
from lichen.runs.work.declared import Declared
from lichen.runs.work.digest_texts import column_of, digest_texts, texts_of_column
from lichen.runs.work.interpreter import Interpreter, distribution_versions
from lichen.runs.work.listing import Listing, read_listing, without_slashes
from lichen.runs.work.manifest import Manifest
from lichen.runs.workspace.project import Project

if TYPE_CHECKING:
    from lichen.runs.trace.trace import PlainReads

__all__ = ["ALWAYS_VARIABLES", "STDIN", "Surroundings"]

STDIN = "{stdin}"
_SEARCHES = frozenset({"program", "library"})
"""First words of environment facts that say where a search leads: ``program cat`` on PATH, ``library libm.so``."""
MISSING = "missing"
OTHER_BYTECODE = "hidden by bytecode of another text"
LINK_MARK = "link "
FILE_MARK = "file"
MODE_MARK = " mode "
TIME_MARK = " at "
EDITED = "(edited files)"
ALWAYS_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "LC_ALL", "LD_AUDIT", "LD_PRELOAD", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "PYTHONOPTIMIZE",
    "PYTHONDEVMODE", "PYTHONINTMAXSTRDIGITS", "PYTHONIOENCODING", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUTF8", "PYTHONWARNINGS", "TZ",
)  # fmt: skip
"""Variables that interpreters and numerical libraries read where no trace sees it; part of every manifest."""


_ENTRIES_MAX = 20_000  # of a directory outside the project, looked at for links

State = tuple[int, ...]
HashFiles = Callable[[Sequence[str], "Sequence[State | None] | None"], "Sequence[bytes | None]"]
HashColumns = Callable[[bytes, int, "bytes | None"], "tuple[bytes, bytes] | None"]


@dataclass
class Surroundings:
    """What is there now.

    Args:
        project: Names paths.
        hash_file: Returns the SHA-256 of a regular file, 32 bytes; raises LichenError or OSError.
        interpreter: What the command's interpreter says of itself; None when it is no Python or does not answer.
        environ: Environment the command will see.
        stdin_digest: SHA-256 of piped input; None when there is none.
        concealer: Masks variables that hold secrets.
        hash_files: Does so for many at once: given paths and, for each, the state that is meant or None, returns 32 bytes or
            None for each; see ``DigestCache.digest_states``. Without it each is hashed by itself.
        hash_columns: Does so for very many; see ``DigestCache.digest_columns``.
        declared: What the request names beside its command line.
    """

    project: Project
    hash_file: Callable[[str], bytes]
    interpreter: Interpreter | None
    environ: Mapping[str, str]
    stdin_digest: bytes | None = None
    concealer: Concealer = field(default_factory=Concealer)
    hash_files: HashFiles | None = None
    hash_columns: HashColumns | None = None
    declared: Declared = field(default_factory=Declared)
    _digests: dict[str, str] = field(default_factory=dict)
    _listings: dict[str, Listing | None] = field(default_factory=dict)

    def afresh(self) -> Surroundings:
        """Return the same with nothing looked at yet."""
        return replace(self, _digests={}, _listings={})

    def digest_of(self, name: str) -> str:
        """Return the digest text of a file by manifest name, or ``missing``."""
        if name not in self._digests:
            self._digests[name] = self._hash(name)
        return self._digests[name]

    def digests_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the digest text of many files by manifest name, as :meth:`digest_of` gives each."""
        names = list(names)
        if self.hash_files is not None and len(names) > 1:
            unknown = [name for name in names if name not in self._digests and name != STDIN]
            if len(unknown) >= MANY:
                unknown = self._learn_columns(unknown)
            with contextlib.suppress(LichenError):  # no path has such a name: then each is looked at alone
                found = self.hash_files(self.project.paths_of(unknown), None)
                if None in found:
                    unknown = [
                        name for name, digest in zip(unknown, found, strict=True) if digest is not None
                    ]
                texts = digest_texts([digest for digest in found if digest is not None])
                self._digests.update(zip(unknown, texts, strict=True))
        known = self._digests
        return {name: known[name] if name in known else self.digest_of(name) for name in names}

    def code_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return the digest text of sources by manifest name; ``OTHER_BYTECODE`` where Python would run something else than the source."""
        found = self.digests_of(names)
        python = self.interpreter
        for name in found if python is not None else ():
            if name.endswith(".py") and found[name] != MISSING and self._is_hidden(name):
                found[name] = OTHER_BYTECODE
        return found

    def _is_hidden(self, name: str) -> bool:
        from lichen.runs.trace.bytecode import is_hidden

        assert self.interpreter is not None
        try:
            path = self.project.path_of(name)
        except LichenError:
            return False
        return is_hidden(path, self.interpreter.cache_tag, f"{self.interpreter.prefix}/bin/python")

    def _learn_columns(self, names: list[str]) -> list[str]:
        """Learn the digests of very many files; return the names of those of which it could not be told."""
        with contextlib.suppress(LichenError):  # no path has such a name
            paths = self.project.paths_of(names)
            answer = self.hash_columns and self.hash_columns(column_of(paths), len(paths), None)
            if answer:
                digests, told = answer
                texts = texts_of_column(digests)
                if told.count(1) == len(names):
                    self._digests.update(zip(names, texts, strict=True))
                    return []
                self._digests.update(
                    (name, text) for name, text, is_told in zip(names, texts, told, strict=True) if is_told
                )
                return [name for name, is_told in zip(names, told, strict=True) if not is_told]
        return names

    def digest_columns(self, reads: PlainReads) -> tuple[bytes, bytes]:
        """Return what :meth:`digest_states` says of very many files, as ``DigestCache.digest_columns`` returns it."""
        paths = b"".join(
            column_of([f"{directory}/" + f"\0{directory}/".join(names)])
            for directory, names in reads.names.items()
        )
        answer = self.hash_columns and self.hash_columns(paths, len(reads), reads.states)
        if answer:
            return answer
        keys = [key for _, key in reads.reads()]
        told = self.digest_states(list(reads.paths()), keys)
        column = b"".join((digest or bytes(32)) + b"\0" for digest in told)
        return column, bytes(digest is not None for digest in told)

    def digest_states(self, paths: Sequence[str], states: Sequence[State | None]) -> list[bytes | None]:
        """Return the SHA-256 of files by absolute path, in the states that are meant; None where that cannot be told.

        Args:
            paths: Of regular files.
            states: For each its device, inode, size, mtime and ctime; None for any.
        """
        if self.hash_files is not None:
            return list(self.hash_files(paths, states))
        found: list[bytes | None] = []
        for path, state in zip(paths, states, strict=True):
            try:
                is_file = stat.S_ISREG(os.stat(path).st_mode)
                digest = self.hash_file(path) if is_file else None
                if state is not None and _state_of(path) != tuple(state):
                    digest = None
            except (OSError, LichenError):
                digest = None
            found.append(digest)
        return found

    def _hash(self, name: str) -> str:
        if name == STDIN:
            return b64u(self.stdin_digest) if self.stdin_digest is not None else MISSING
        try:
            path = self.project.path_of(name)
            if not stat.S_ISREG(os.stat(path).st_mode):
                return MISSING
            return b64u(self.hash_file(path))
        except (OSError, LichenError):
            return MISSING

    def presence_of(self, name: str) -> str:
        """Say what stands at a name without reading it: ``directory``, ``other``, a size in bytes, or ``missing``."""
        try:
            info = os.stat(self.project.path_of(name))
        except (OSError, LichenError):
            return MISSING
        if stat.S_ISDIR(info.st_mode):
            return "directory"
        return str(info.st_size) if stat.S_ISREG(info.st_mode) else "other"

    def link_of(self, name: str) -> str:
        """Say where a symbolic link points, after ``LINK_MARK``, or ``missing``."""
        try:
            return LINK_MARK + self.project.generalise(str(Path(self.project.path_of(name)).readlink()))
        except (OSError, ValueError, LichenError):
            return MISSING

    def status_of(self, name: str, *, times: bool) -> str:
        """Say what stands at a name, with permission bits and, if asked, modification time: ``512 mode 644 at 17…`` (ns)."""
        try:
            info = Path(self.project.path_of(name)).stat()
        except (OSError, LichenError):
            return MISSING
        mode = f"{self.presence_of(name)}{MODE_MARK}{stat.S_IMODE(info.st_mode):o}"
        return f"{mode}{TIME_MARK}{info.st_mtime_ns}" if times else mode

    def _presence_like(self, name: str, before: str) -> str:
        """Say what stands at a name in the terms in which it was described before."""
        if before.startswith(LINK_MARK):
            return self.link_of(name)
        if MODE_MARK in before:
            return self.status_of(name, times=TIME_MARK in before)
        now = self.presence_of(name)
        return FILE_MARK if before == FILE_MARK and now.isdigit() else now

    def _scan(self, path: str) -> Listing | None:
        """List a directory by absolute path, once."""
        if path not in self._listings:
            try:
                self._listings[path] = read_listing(path)
            except OSError:
                self._listings[path] = None
        return self._listings[path]

    def _listing(self, name: str) -> Listing | None:
        try:
            return self._scan(self.project.path_of(name))
        except LichenError:
            return None

    def folders_of(self, directory: str) -> list[str]:
        """Return the sorted names of the directories in a directory by absolute path; none if it cannot be read."""
        listing = self._scan(directory)
        return [] if listing is None else listing.folders

    def names_in(self, directory: str) -> list[str]:
        """Return the sorted names in a directory by absolute path; none if it cannot be read."""
        listing = self._scan(directory)
        return [] if listing is None else listing.bare

    def links_in(self, directory: str, *, whole: bool = False) -> set[str] | None:
        """Return the names of symbolic links in a directory.

        Args:
            directory: Absolute path.
            whole: Nothing short of the whole directory will do.

        Returns:
            Names; of those among the first 20,000 entries only when the directory lies outside the project, holds more and the
            whole was not asked for. None when it cannot be read, or not whole.
        """
        if directory in self._listings or self.project.contains(directory):
            listing = self._scan(directory)
            return None if listing is None else listing.links
        try:
            with os.scandir(directory) as entries:
                found = {
                    entry.name for entry in itertools.islice(entries, _ENTRIES_MAX) if entry.is_symlink()
                }
                return None if whole and next(entries, None) is not None else found
        except OSError:
            return None

    def listing_of(self, name: str, made: Iterable[str]) -> str:
        """Digest a directory's names, leaving out what the run itself made and what is ignored.

        Args:
            name: Manifest name of the directory.
            made: Manifest names of the run's outputs and directories.
        """
        listing = self._listing(name)
        if listing is None:
            return MISSING
        return b64u(hashlib.sha256(_names_json(*self._foreign(name, made, listing.names))).digest())

    def ignored_entries(self, name: str, entries: Iterable[str]) -> list[str]:
        """Return the absolute paths of those entries of a directory, then or now, that a listing leaves out.

        Args:
            name: Manifest name of the directory.
            entries: Names as they once were, with or without a slash behind directories.
        """
        path = self.project.path_of(name)
        now = self._listing(name)
        names = without_slashes(list(entries))
        if now is not None and now.bare != names:
            names = sorted({*names, *now.bare})
        return [f"{path.rstrip('/')}/{entry}" for entry in self.project.ignored_in(path, names)]

    def has_listed(self, name: str, made: Iterable[str], entries: Iterable[str]) -> bool:
        """Say whether a directory holds the names it once held, apart from what the run made and what is ignored.

        Args:
            name: Manifest name of the directory.
            made: Manifest names of the run's outputs and directories.
            entries: Names as they once were, with or without a slash behind directories.
        """
        now = self._listing(name)
        if now is None:
            return False
        before = without_slashes(list(entries))
        if now.bare == sorted(before):
            return True
        listed = [set(without_slashes(self._foreign(name, made, names)[1])) for names in (now.names, before)]
        return listed[0] == listed[1]

    def _foreign(self, name: str, made: Iterable[str], entries: Iterable[str]) -> tuple[str, list[str]]:
        """Return what the manifest names of entries begin with, and how those that are not the run's own and not ignored go on."""
        path = self.project.path_of(name)
        own = made if isinstance(made, Set) else set(made)
        entries = sorted(entries)
        ignored = self.project.ignored_in(path, without_slashes(entries))
        if ignored:
            entries = [entry for entry in entries if entry.rstrip("/") not in ignored]
        start, ends = self.project.ends_in(path, entries)
        if len(own) > len(ends):
            return start, [end for end in ends if f"{start}{end.rstrip('/')}" not in own]
        below = {made_name[len(start) :] for made_name in own if made_name.startswith(start)}
        return start, [end for end in ends if end.rstrip("/") not in below] if below else list(ends)

    def modules_in(self, name: str, imports: frozenset[str]) -> str:
        """Name the modules among ``imports`` that a directory could supply, comma separated."""
        listing = self._listing(name)
        entries = listing.names if listing is not None else []
        stems = {entry.rstrip("/").partition(".")[0] for entry in entries if _is_importable(entry)}
        return ",".join(sorted(stems & imports))

    def variable(self, name: str) -> str | None:
        """Return a variable with the project root generalised, or None when unset."""
        value = self.environ.get(name)
        if name == ALL_NAMES and value is None:
            return all_names(self.environ)
        if name == "PYTHONPATH" and value:
            value = os.pathsep.join(part for part in value.split(os.pathsep) if part)
        if name == "LD_PRELOAD" and value:
            value = foreign_libraries(value)
        if value is None:
            return None
        return self.project.generalise(self.concealer.values({name: value})[name])

    def versions_of(self, names: Collection[str]) -> dict[str, str]:
        """Return the installed versions of distributions, ``-`` for those not there.

        A version is followed by the digest of the build. Installed files that were edited after installation stand together under
        ``EDITED``, since no version tells of them. ``ALL_INSTALLED`` names what a run saw that asked which distributions there
        are; names after ``LISTED`` have the digest of an installed folder that it listed.
        """
        from lichen.runs.trace import distributions as installed

        listed = [
            name for name in names if name == installed.ALL_INSTALLED or name.startswith(installed.LISTED)
        ]
        wanted = [name for name in names if name != EDITED and name not in listed]
        directories = self.interpreter.path if self.interpreter else ()
        found = {name: self._listed(name, directories) for name in listed}
        if not wanted:
            return found
        sites = [installed.SiteDirectory.read(path, wanted) for path in directories if Path(path).is_dir()]
        builds = installed.builds_of(sites, wanted)
        for name, version in distribution_versions(wanted, directories).items():
            found[name] = f"{version} (build {builds[name]})" if name in builds else version
        changed = installed.changed_installed_files(sites, wanted, self.hash_file)
        return {**found, EDITED: self._edited(changed)}

    def _edited(self, changed: Iterable[str]) -> str:
        """Digest edited installed files by name and content."""
        texts = [f"{Path(path).name}\0{self.digest_of(self.project.name_of(path))}\0" for path in changed]
        return _short_digest("".join(texts)) if texts else "none"

    def _listed(self, name: str, directories: Iterable[str]) -> str:
        """Name all distributions and their versions, or digest the names in an installed folder, bytecode left out."""
        from lichen.runs.trace.distributions import ALL_INSTALLED, LISTED, is_own

        if name == ALL_INSTALLED:
            found = []
            for directory in directories:
                for entry in _names_in(directory):
                    stem, dot, kind = entry.rpartition(".")
                    if dot and kind in ("dist-info", "egg-info") and not is_own(f"{directory}/{entry}"):
                        found.append(_shown(stem.replace("-", " ", 1)))
            return ", ".join(sorted(found))
        relative = name.removeprefix(LISTED)
        folders = [f"{directory}/{relative}".removesuffix("/.") for directory in directories]
        folder = next((folder for folder in folders if Path(folder).is_dir()), None)
        if folder is None:
            return MISSING
        entries = [
            entry for entry in _names_in(folder) if entry != "__pycache__" and not entry.endswith(".pyc")
        ]
        return _short_digest("\0".join(sorted(entries)))

    def start_of(self) -> str:
        """Name what every start of the interpreter obeys, path files and customizations among installed packages, with digests."""
        from lichen.runs.trace.distributions import start_files

        directories = self.interpreter.path if self.interpreter else ()
        found = []
        for path in start_files(entry for entry in directories if entry.endswith(("-packages",))):
            try:
                text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
            except OSError:
                text = MISSING  # a folder, whose content counts once it is imported
            found.append(f"{_shown(Path(path).name)} {_short_digest(self.project.generalise(text))}")
        if self.interpreter is not None and not _has_packages(self.interpreter):
            found.append("no folder for packages")  # so none of them was looked for there
        return ", ".join(found) or "none"

    def encoding_of(self) -> str:
        """Say which character encoding the locale asks for: its name, ``C``, or ``default``."""
        for name in ("LC_ALL", "LC_CTYPE", "LANG"):
            if value := self.environ.get(name):
                _, dot, codeset = value.partition("@")[0].partition(".")
                return codeset.lower().replace("-", "") if dot else value
        return "default"

    def environment_of(self, keys: Collection[str]) -> dict[str, str]:
        """Return interpreter, architecture and driver facts by name."""
        known = self.interpreter.to_environment() if self.interpreter else {"machine": os.uname().machine}
        if "start" in keys:
            known["start"] = self.start_of()
        known["encoding"] = self.encoding_of()
        if (driver := _nvidia_driver()) is not None:
            known["nvidia_driver"] = driver
        for key in keys:
            kind, _, name = key.partition(" ")
            if name and kind in _SEARCHES:
                known[key] = self._found(kind, name)
        return {key: known.get(key, MISSING) for key in keys}

    def _found(self, kind: str, name: str) -> str:
        """Say where a search leads for a program or a library."""
        from lichen.runs.trace.programs import find_library, find_program

        found = (find_program if kind == "program" else find_library)(name, "/", self.environ)
        return self.project.generalise(found) if found else MISSING

    def redo(self, manifest: Manifest) -> Manifest:
        """Describe every item of a manifest as it is now.

        Args:
            manifest: An earlier run's.

        Returns:
            The same items with today's values. An absent name that now exists is kept only when it is something the run itself
            made; the caller then compares its content with what the run made.
        """
        made = {output.name for output in manifest.outputs} | set(manifest.directories)
        imports = frozenset(manifest.imports)
        still_absent = tuple(
            name for name in manifest.absent if name in made or self.presence_of(name) == MISSING
        )
        return replace(
            manifest,
            code=self.code_of(manifest.code),
            data=self.digests_of(manifest.data),
            absent=still_absent,
            present={name: self._presence_like(name, value) for name, value in manifest.present.items()},
            listings={name: self.listing_of(name, made) for name in manifest.listings},
            modules={name: self.modules_in(name, imports) for name in manifest.modules},
            variables={name: self.variable(name) for name in manifest.variables},
            environment=self.environment_of(manifest.environment),
            distributions=self.versions_of(manifest.distributions),
            executables={name: self.digest_of(name) for name in manifest.executables},
        ).sharing(manifest)

    def own_outputs_found(self, manifest: Manifest) -> list[str]:
        """Return the output files that the run looked for in vain before it made them, and that stand there now.

        Where they are as the run left them, the run answers; a script that goes on from such a file would do so when run again.
        """
        made = {output.name for output in manifest.outputs}
        return [name for name in manifest.absent if name in made and self.presence_of(name) != MISSING]

    def contradicts_own_outputs(self, manifest: Manifest) -> str | None:
        """Return the first name that the run found absent, made, and that is now something else.

        Such a name decided something while it was absent; it may stand there again only as the run left it.
        """
        outputs = {output.name: output for output in manifest.outputs}
        for name in manifest.absent:
            presence = self.presence_of(name)
            if presence == MISSING:
                continue
            output = outputs.get(name)
            if output is None and presence == "directory":
                continue
            if output is None or self.digest_of(name) != b64u(output.sha256):
                return name
        return None


def _has_packages(interpreter: Interpreter) -> bool:
    """Say whether the folder is there in which an interpreter's own packages are installed."""
    own = (f"{interpreter.prefix}/", f"{interpreter.base_prefix}/")
    return any(
        entry.endswith("-packages") and entry.startswith(own) and Path(entry).is_dir()
        for entry in interpreter.path
    )


def _names_in(folder: str) -> list[str]:
    """Names in a folder; none when it cannot be read."""
    try:
        return os.listdir(folder)  # noqa: PTH208 - installed folders have thousands of names
    except OSError:
        return []


def _shown(name: str) -> str:
    """A name as a manifest can hold it, whatever its bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _names_json(start: str, ends: Sequence[str]) -> bytes:
    """Write names, of which all begin alike, as a canonical JSON list; where none needs an escape that is a matter of joining."""
    text = start + f'","{start}'.join(ends)
    plain = text.isascii() and text.isprintable() and "\\" not in text
    if not ends or not plain or text.count('"') != 2 * (len(ends) - 1):
        return canonical_json([start + end for end in ends])
    return f'["{text}"]'.encode("ascii")


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _state_of(path: str) -> State:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_importable(entry: str) -> bool:
    return entry.endswith((".py", ".pyc", ".so", ".pyd", "/"))


def _nvidia_driver() -> str | None:
    try:
        return (
            Path("/proc/driver/nvidia/version")
            .read_text(encoding="utf-8", errors="replace")
            .splitlines()[0][:120]
        )
    except (OSError, IndexError):
        return None
