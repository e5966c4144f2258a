"""Mutations of the stale-hit campaign: each changes a scene's world and returns how to take it back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stale_corpus import Case, Undo
from stale_distributions import Distribution, install, installed_version, remove
from stale_scene import Scene

__all__ = ["IRRELEVANT", "MUTATIONS", "mutations_of"]


def _rewrite(scene: Scene, name: str, content: bytes | None) -> Undo:
    """Write (or remove) a file; return how to put back what was there."""
    path = scene.path(name)
    before = path.read_bytes() if path.is_file() else None
    mode = path.stat().st_mode & 0o7777 if before is not None else 0

    def undo() -> None:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
            path.chmod(mode)

    if content is None:
        path.unlink(missing_ok=True)
    else:
        scene.write(name, content)
    return undo


def _restore_variables(scene: Scene) -> Undo:
    before = dict(scene.variables)

    def undo() -> None:
        scene.variables.clear()
        scene.variables.update(before)

    return undo


# Code.


def _sources(case: Case) -> list[str]:
    return [name for name, source in case.code.items() if "K = 1" in source or "K=1" in source]


def change_code(scene: Scene) -> Undo:
    """Another constant in a source of the project."""
    name = scene.rng.choice(_sources(scene.case))
    value = scene.rng.randrange(2, 9)
    changed = "".join(
        line.split("=")[0] + ("= " if " = " in line else "=") + str(value) + "\n"
        if line.startswith(("K = ", "K=")) and "K +" not in line
        else line
        for line in scene.path(name).read_text().splitlines(keepends=True)
    )
    return _rewrite(scene, name, changed.encode())


def replace_code(scene: Scene) -> Undo:
    """The same by writing a new file and renaming it over the old one, with the old one's times."""
    name = scene.rng.choice(_sources(scene.case))
    path = scene.path(name)
    info, before = path.stat(), path.read_bytes()

    def put(content: bytes) -> None:
        new = path.with_name(f".{path.name}.new")
        new.write_bytes(content)
        new.chmod(info.st_mode & 0o7777)
        os.utime(new, ns=(info.st_atime_ns, info.st_mtime_ns))
        new.replace(path)

    digit = str(scene.rng.randrange(2, 9)).encode()
    put(before.replace(b"K = 1", b"K = " + digit).replace(b"K=1", b"K=" + digit))
    return lambda: put(before)


def shadow_module(scene: Scene) -> Undo:
    """A module of the project that could stand in another's place."""
    name = scene.rng.choice(["hashlib", "pathlib", "json", "helper2", "random"])
    return _rewrite(scene, f"{name}.py", b"raise SystemExit(7)\n" if name != "helper2" else b"")


# Data and names.


def change_data(scene: Scene) -> Undo:
    """Other content."""
    name, writer = scene.rng.choice(sorted(scene.case.data.items(), key=lambda item: item[0]))
    path = scene.path(name)
    undo = _rewrite(scene, name, path.read_bytes() if path.exists() else b"")
    writer(path, scene.rng.randrange(2, 6))
    return undo


def change_data_keeping_times(scene: Scene) -> Undo:
    """Same size when the format allows, and the old modification time: what a sloppy cache key would miss."""
    infos = {name: scene.path(name).stat() for name in scene.case.data if scene.path(name).exists()}
    undo = change_data(scene)
    for name, info in infos.items():
        if scene.path(name).exists():
            os.utime(scene.path(name), ns=(info.st_atime_ns, info.st_mtime_ns))
    return undo


def flip_byte(scene: Scene) -> Undo:
    """One byte of a file, in place, size and times kept."""
    name = scene.rng.choice(sorted(scene.case.data))
    path = scene.path(name)
    if not path.is_file() or not path.stat().st_size:
        return lambda: None
    info, content = path.stat(), bytearray(path.read_bytes())
    undo = _rewrite(scene, name, bytes(content))
    content[scene.rng.randrange(len(content))] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return undo


def swap_data(scene: Scene) -> Undo:
    """Two files change places, keeping their inodes and times."""
    one, two = scene.rng.sample(sorted(scene.case.data), 2)
    first, second = scene.path(one), scene.path(two)
    if not (first.exists() and second.exists()):
        return lambda: None

    def swap() -> None:
        aside = first.with_name(".aside")
        first.rename(aside)
        second.rename(first)
        aside.rename(second)

    swap()
    return swap


def delete_data(scene: Scene) -> Undo:
    """A file is gone."""
    return _rewrite(scene, scene.rng.choice(sorted(scene.case.data)), None)


def add_to_listing(scene: Scene) -> Undo:
    """Another name in a directory that is listed."""
    directory = scene.rng.choice(scene.case.listed)
    ending = "py" if scene.case.name == "plugins" else "txt"
    return _rewrite(scene, f"{directory}/new_{scene.rng.randrange(3)}.{ending}", b"def f(x): return 1\n")


def make_absent(scene: Scene) -> Undo:
    """A path that is looked for in vain is there."""
    name, content = scene.rng.choice(sorted(scene.case.absent.items()))
    return _rewrite(scene, name, content.encode())


def retarget_link(scene: Scene) -> Undo:
    """A symbolic link leads elsewhere."""
    name, targets = scene.rng.choice(sorted(scene.case.links.items()))
    path = scene.path(name)
    if not path.is_symlink():  # a copy stands there since an earlier trial
        return lambda: None
    before = path.readlink()

    def point(target: str | Path) -> None:
        path.unlink()
        path.symlink_to(target)

    point(scene.rng.choice([target for target in targets if target != str(before)]))
    return lambda: point(before)


def link_to_copy(scene: Scene) -> Undo:
    """Irrelevant to most: a link is replaced by a copy of what it led to."""
    name = scene.rng.choice(sorted(scene.case.links))
    path = scene.path(name)
    if not path.is_symlink():
        return lambda: None
    target = path.readlink()
    content = path.resolve()
    path.unlink()
    shutil.copytree(content, path)

    def undo() -> None:
        shutil.rmtree(path)
        path.symlink_to(target)

    return undo


# Variables and standard input.


def set_variable(scene: Scene) -> Undo:
    """A variable that is read has another value, or is set, or unset."""
    name = scene.rng.choice(scene.case.variables)
    undo = _restore_variables(scene)
    if name in scene.variables and scene.rng.random() < 0.3:
        del scene.variables[name]
    elif name == "TZ":
        scene.variables[name] = scene.rng.choice(["EAST-5", "WEST+7", "UTC"])
    else:
        scene.variables[name] = str(
            scene.rng.randrange(4) if not name.startswith("PYTHON") else scene.rng.randrange(2)
        )
    return undo


def change_stdin(scene: Scene) -> Undo:
    """Something else is given on standard input."""
    before = scene.stdin.read_bytes()
    scene.stdin.write_text(f"given {scene.rng.randrange(5)}\n")

    def undo() -> None:
        scene.stdin.write_bytes(before)

    return undo


# Installed distributions.


def _reinstall(scene: Scene, choose: Callable[[Distribution], Distribution | None]) -> Undo:
    """Put another build in the place of one that is or may be installed; None takes it away."""
    known = scene.rng.choice((*scene.case.distributions, *scene.case.optional))
    outside = scene.root / "outside"
    saved = _tree(scene.site), _tree(outside / "src")

    def undo() -> None:
        _put_tree(scene.site, saved[0])
        _put_tree(outside / "src", saved[1])

    wanted = choose(known)
    if wanted is None:
        remove(scene.site, known.name)
    else:
        install(scene.site, wanted, outside=outside)
    return undo


def _tree(root: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def _put_tree(root: Path, saved: dict[Path, tuple[bytes, int]]) -> None:
    if root.exists():
        shutil.rmtree(root)
        root.mkdir()
    for path, (content, modified) in saved.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(modified, modified))


def change_version(scene: Scene) -> Undo:
    """A distribution is upgraded or downgraded, and its code with it."""
    value = scene.rng.randrange(2, 9)
    return _reinstall(scene, lambda known: known.with_constant(value, f"{scene.rng.choice([0, 2])}.{value}"))


def change_version_only(scene: Scene) -> Undo:
    """A release whose code is the same."""
    return _reinstall(scene, lambda known: replace(known, version=f"1.{scene.rng.randrange(1, 5)}"))


def patch_distribution(scene: Scene) -> Undo:
    """A patched build with the same version is forced over the installed one: RECORD agrees with the new files."""
    value = scene.rng.randrange(2, 9)
    return _reinstall(scene, lambda known: known.with_constant(value))


def remove_distribution(scene: Scene) -> Undo:
    """A distribution is uninstalled."""
    return _reinstall(scene, lambda known: None)


def _installed_files(scene: Scene) -> list[Path]:
    roots = [scene.site, scene.root / "outside" / "src"]
    wanted = {path for known in scene.case.distributions for path in known.files}
    return [root / path for root in roots for path in sorted(wanted) if (root / path).is_file()]


def edit_installed(scene: Scene) -> Undo:
    """A file of an installed (perhaps editable) distribution is edited by hand, code or data."""
    found = _installed_files(scene)
    if not found:
        return lambda: None
    path = scene.rng.choice(found)
    before, info = path.read_bytes(), path.stat()
    path.write_bytes(before.replace(b"K = 1", b"K = %d" % scene.rng.randrange(2, 9)))

    def undo() -> None:
        path.write_bytes(before)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))

    return undo


def edit_installed_keeping_times(scene: Scene) -> Undo:
    """The same, size and modification time kept."""
    infos = {path: path.stat() for path in _installed_files(scene)}
    undo = edit_installed(scene)
    for path, info in infos.items():
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return undo


def shadow_distribution(scene: Scene) -> Undo:
    """A loose module of the same name in the project, before the installed one on the search path."""
    known = scene.rng.choice((*scene.case.distributions, *scene.case.optional))
    return _rewrite(scene, f"{known.name}.py", b"def f(x): return -1\n__path__ = []\n")


def remove_packages_folder(scene: Scene) -> Undo:
    """The folder in which distributions are installed is gone, and comes back."""
    saved = _tree(scene.site)
    shutil.rmtree(scene.site)

    def undo() -> None:
        scene.site.mkdir(parents=True, exist_ok=True)  # another mutation may have installed something since
        _put_tree(scene.site, saved)

    return undo


def install_unrelated(scene: Scene) -> Undo:
    """Irrelevant: a distribution that nobody asks for."""
    if installed_version(scene.site, "unrelated"):
        return lambda: None
    saved = _tree(scene.site)
    install(
        scene.site, Distribution("unrelated", files={"unrelated.py": MODULE}), outside=scene.root / "outside"
    )
    return lambda: _put_tree(scene.site, saved)


MODULE = "K = 1\n"


# Irrelevant.


def touch_something(scene: Scene) -> Undo:
    """Irrelevant unless times are looked at: new modification times, same content."""
    for name in (*scene.case.code, *scene.case.data):
        if scene.path(name).exists():
            os.utime(scene.path(name))
    return lambda: None


def add_unrelated(scene: Scene) -> Undo:
    """Irrelevant: files and variables nobody looks at."""
    undo_variables = _restore_variables(scene)
    scene.variables[f"UNRELATED_{scene.rng.randrange(3)}"] = "x"
    undo_file = _rewrite(scene, f"unrelated/{scene.rng.randrange(3)}.md", b"note")

    def undo() -> None:
        undo_file()
        undo_variables()

    return undo


def rewrite_equal(scene: Scene) -> Undo:
    """Irrelevant unless times are looked at: every file written again with the same bytes."""
    for name in (*scene.case.code, *scene.case.data):
        path = scene.path(name)
        if path.exists():
            path.write_bytes(path.read_bytes())
    return lambda: None


def nothing(scene: Scene) -> Undo:
    """Nothing at all."""
    return lambda: None


Mutation = Callable[[Scene], Undo]

MUTATIONS: dict[str, tuple[Mutation, Callable[[Case], bool]]] = {
    "change_code": (change_code, lambda case: bool(_sources(case))),
    "replace_code": (replace_code, lambda case: bool(_sources(case))),
    "shadow_module": (shadow_module, lambda case: case.program is None),
    "change_data": (change_data, lambda case: bool(case.data)),
    "change_data_keeping_times": (change_data_keeping_times, lambda case: bool(case.data)),
    "flip_byte": (flip_byte, lambda case: bool(case.data)),
    "swap_data": (swap_data, lambda case: len(case.data) > 1),
    "delete_data": (delete_data, lambda case: bool(case.data)),
    "add_to_listing": (add_to_listing, lambda case: bool(case.listed)),
    "make_absent": (make_absent, lambda case: bool(case.absent)),
    "retarget_link": (retarget_link, lambda case: bool(case.links)),
    "link_to_copy": (link_to_copy, lambda case: bool(case.links)),
    "set_variable": (set_variable, lambda case: bool(case.variables)),
    "change_stdin": (change_stdin, lambda case: case.reads_stdin),
    "change_version": (change_version, lambda case: bool(case.distributions or case.optional)),
    "change_version_only": (change_version_only, lambda case: bool(case.distributions)),
    "patch_distribution": (patch_distribution, lambda case: bool(case.distributions)),
    "remove_distribution": (remove_distribution, lambda case: bool(case.distributions)),
    "edit_installed": (edit_installed, lambda case: bool(case.distributions)),
    "edit_installed_keeping_times": (edit_installed_keeping_times, lambda case: bool(case.distributions)),
    "shadow_distribution": (shadow_distribution, lambda case: bool(case.distributions or case.optional)),
    "remove_packages_folder": (
        remove_packages_folder,
        lambda case: case.interpreter == "venv" and bool(case.distributions or case.optional),
    ),
    "install_unrelated": (install_unrelated, lambda case: case.interpreter == "venv"),
    "touch_something": (touch_something, lambda _case: True),
    "add_unrelated": (add_unrelated, lambda _case: True),
    "rewrite_equal": (rewrite_equal, lambda _case: True),
    "nothing": (nothing, lambda _case: True),
}
"""Class -> mutation, and which cases it makes sense for."""
IRRELEVANT = frozenset({"touch_something", "add_unrelated", "rewrite_equal", "install_unrelated", "nothing"})
"""Classes that should not cost a hit."""


def mutations_of(case: Case) -> dict[str, Mutation]:
    """Give the mutations that apply to a case by class, its own among them."""
    return {label: mutate for label, (mutate, applies) in MUTATIONS.items() if applies(case)} | case.own
