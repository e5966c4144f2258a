"""Command lines: what makes two of them the same request."""

import sys
from pathlib import Path

import pytest

from lichen.errors import UsageError
from lichen.runs.work.command import SEED_MARK, Command, spelt_out
from lichen.runs.workspace.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "lichen.toml").touch()
    (tmp_path / "train.py").write_text("print()")
    return Project.find(tmp_path)


def parse(
    project: Project, *argv: str, seeds: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> Command:
    return Command.parse(
        argv, project, cwd=project.root, seed_names=seeds, environ=environ or {"PATH": "/usr/bin:/bin"}
    )


def test_same_command_in_two_checkouts_has_one_canonical_form(tmp_path: Path) -> None:
    forms = []
    for name in ("here", "there"):
        root = tmp_path / name
        root.mkdir()
        (root / "lichen.toml").touch()
        project = Project.find(root)
        forms.append(
            parse(project, sys.executable, str(root / "train.py"), "--data", str(root / "d.csv")).canonical
        )
    assert forms[0] == forms[1] == ("python", "{project}/train.py", "--data", "{project}/d.csv")


def test_script_is_found_behind_interpreter_options(project: Project) -> None:
    command = parse(project, "python3", "-u", "-W", "ignore", "./train.py", "--depth", "4")
    assert command.is_python
    assert command.script == str(project.root / "train.py")
    assert command.parameters == {"depth": "4"}


def test_module_and_code_stand_for_a_script(project: Project) -> None:
    assert parse(project, "python", "-m", "pkg.train", "--depth", "4").script == "-m pkg.train"
    assert parse(project, "python", "-c", "print(1)").script == "-c"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--max-depth", "4"], {"max_depth": "4"}),
        (["--max-depth=4"], {"max_depth": "4"}),
        (["--fast", "--depth", "4"], {"fast": "true", "depth": "4"}),
        (["lr=0.1", "+model.depth=3"], {"lr": "0.1", "+model.depth": "3"}),
        (["--shift", "-1.5"], {"shift": "-1.5"}),
        (["input.csv", "4"], {"arg0": "input.csv", "arg1": "4"}),
    ],
)
def test_parameters_are_read_in_the_usual_spellings(
    project: Project, words: list[str], expected: dict[str, str]
) -> None:
    assert parse(project, "python", "train.py", *words).parameters == expected


@pytest.mark.parametrize("words", [["--seed", "7"], ["--seed=7"], ["seed=7"]])
def test_seed_value_is_cut_out_of_the_request(project: Project, words: list[str]) -> None:
    command = parse(project, "python", "train.py", *words, "--depth", "3", seeds=("seed",))
    assert command.seeds == {"seed": "7"}
    assert "7" not in "".join(command.canonical)
    assert any(SEED_MARK in word for word in command.canonical)
    assert command.parameters == {"depth": "3"}


def test_the_spellings_of_a_seed_are_one_request(project: Project) -> None:
    def spelt(*words: str, seeds: tuple[str, ...] = ("seed",)) -> tuple[object, object]:
        command = parse(project, "python", "train.py", "--depth", "3", *words, "last", seeds=seeds)
        return command.canonical, command.seeds

    assert spelt("--seed", "7") == spelt("--seed=7")
    assert spelt("-s", "7", seeds=("s",)) == spelt("-s=7", seeds=("s",))
    assert spelt("-s7", seeds=("s",)) == spelt("-s", "7", seeds=("s",))
    assert spelt("-s-7.5", seeds=("s",)) == spelt("-s", "-7.5", seeds=("s",))
    assert spelt("--seed", "7") != spelt("--seed", "8")
    assert spelt("--seed", "7")[0] == spelt("--seed=8")[0]


@pytest.mark.parametrize(
    ("one", "other", "seeds"),
    [
        (["--rate", "3"], ["--rate=3"], ()),  # it may be a switch and a word
        (["--seed", "7", "--seed", "8"], ["--seed=8"], ("seed",)),
        (["--seed", "7", "--seed", "8"], ["--seed", "9", "--seed", "8"], ("seed",)),
        (["--seed=7"], ["seed=7"], ("seed",)),
        (["-save", "-s", "1"], ["-s", "ave", "-s", "1"], ("s",)),  # it may be one
        (["-s7"], ["-s", "7"], ()),
        (["--my-seed=7"], ["--my_seed=7"], ("my_seed",)),
        (["-seed", "7"], ["--seed", "7"], ("seed",)),
        (["--seed", "7", "8"], ["--seed", "7 8"], ("seed",)),
        (["--seed", "7", "x"], ["x", "--seed", "7"], ("seed",)),
        (["--seed="], ["--seed"], ("seed",)),
    ],
)
def test_what_may_differ_stays_two_requests(
    project: Project, one: list[str], other: list[str], seeds: tuple[str, ...]
) -> None:
    first, second = (parse(project, "python", "train.py", *words, seeds=seeds) for words in (one, other))
    assert (first.canonical, first.seeds) != (second.canonical, second.seeds)


def test_a_seed_named_with_its_digit_is_not_taken_for_a_letter_and_a_number(project: Project) -> None:
    command = parse(project, "python", "train.py", "-s7", "-s", "1", seeds=("s", "s7"))
    assert command.seeds == {"s7": "true", "s": "1"}


@pytest.mark.parametrize(
    ("typed", "seeds", "shown"),
    [
        (["--seed", "7", "--depth", "3"], ("seed",), "--seed=7 --depth 3"),
        (["-s7", "in.csv"], ("s",), "-s=7 in.csv"),
        (["seed=7"], ("seed",), "seed=7"),
        (["--seed", "7", "x", "--seed=8"], ("seed",), "--seed=7 x --seed=8"),
        (["--my-seed", "7"], ("my_seed",), "--my-seed=7"),
        (["a", "7", "8"], ("arg1", "arg2"), "a 7 8"),
        (["--name", "{seed}", "--seed", "7"], ("seed",), "--name {seed} --seed=7"),
        (["--name={seed}"], (), "--name={seed}"),
    ],
)
def test_people_are_shown_the_values_of_seeds(
    project: Project, typed: list[str], seeds: tuple[str, ...], shown: str
) -> None:
    command = parse(project, "python", "train.py", *typed, seeds=seeds)
    assert " ".join(spelt_out(command.canonical, command.seeds)) == f"python {{project}}/train.py {shown}"


def test_people_are_shown_the_values_of_declared_seeds(project: Project) -> None:
    command = parse(project, "python", "train.py").with_declared({"draw": "4", "rate": "2"}, ["draw"])
    assert spelt_out(command.canonical, command.seeds)[2:] == ("{param}rate=2", "{param}draw=4")


def test_an_option_declared_with_its_value_is_known_to_take_one(project: Project) -> None:
    def spelt(*words: str, **declared: str) -> object:
        command = Command.parse(
            ["python", "train.py", *words],
            project,
            cwd=project.root,
            environ={"PATH": "/usr/bin"},
            declared=declared,
        )
        assert command.parameters["rate"] == "3"
        return command.canonical

    assert spelt("--rate", "3", rate="3") == spelt("--rate=3", rate="3")
    assert spelt("--rate", "3", rate="4") != spelt("--rate=3", rate="4"), "declared as something else"
    assert spelt("--rate", "3", other="3") != spelt("--rate=3", other="3")


def test_seed_may_be_a_variable(project: Project) -> None:
    command = parse(project, "python", "train.py", seeds=("SEED",), environ={"PATH": "/usr/bin", "SEED": "3"})
    assert command.seeds == {"$SEED": "3"}


def test_unknown_seed_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="no such option"):
        parse(project, "python", "train.py", seeds=("seed",))


def test_a_seed_of_the_project_is_passed_over_where_a_command_lacks_it(project: Project) -> None:
    def with_seed(*words: str, **environ: str) -> dict[str, str]:
        environ["PATH"] = "/usr/bin"
        command = Command.parse(
            ["python", "train.py", *words],
            project,
            cwd=project.root,
            project_seed_names=["seed", "SEED"],
            environ=environ,
        )
        return dict(command.seeds)

    assert with_seed() == {}
    assert with_seed("--seed", "7", SEED="3") == {"seed": "7", "$SEED": "3"}
    assert with_seed(SEED="3") == {"$SEED": "3"}


def test_declared_parameters_are_part_of_the_request(project: Project) -> None:
    plain = parse(project, "python", "train.py", "--depth", "3")
    declared = plain.with_declared({"rate": "0.1", "fold": "2"})
    assert declared.parameters == {"depth": "3", "rate": "0.1", "fold": "2"}
    assert declared.canonical != plain.canonical
    assert declared.family == plain.family
    assert plain.with_declared({"fold": "2", "rate": "0.1"}).canonical == declared.canonical
    assert plain.with_declared({"fold": "3", "rate": "0.1"}).canonical != declared.canonical
    assert plain.with_declared({}) == plain


def test_a_declared_parameter_may_be_only_a_seed(project: Project) -> None:
    plain = parse(project, "python", "train.py")
    first = plain.with_declared({"fold": "2"}, seed_names=["fold"])
    second = plain.with_declared({"fold": "3"}, seed_names=["fold"])
    assert (first.seeds, second.seeds) == ({"fold": "2"}, {"fold": "3"})
    assert first.canonical == second.canonical


def test_no_command_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="no command"):
        parse(project)


def test_other_programs_are_named_without_their_directory(project: Project) -> None:
    command = parse(project, "/bin/sh", "run.sh", "4")
    assert not command.is_python
    assert command.canonical[0] == "sh"
    assert command.executable == "/bin/sh"


def test_family_does_not_depend_on_arguments(project: Project) -> None:
    one = parse(project, "python", "train.py", "--depth", "3").family
    two = parse(project, "python", "-u", "train.py", "--depth", "4").family
    assert one == ("python", "{project}/train.py")
    assert two[-1] == one[-1]
