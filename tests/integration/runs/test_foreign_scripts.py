"""Programs that nobody here wrote, installed with the libraries of others, run unmodified: recorded, and answered the second time."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

pytestmark = pytest.mark.slow

FORTRAN = """\
subroutine add(a, b, c)
  real(8), intent(in) :: a, b
  real(8), intent(out) :: c
  c = a + b
end subroutine
"""


def installed(module: str, *path: str) -> Path:
    """A file of an installed package; the test is skipped where it is not there."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed")
    found = Path(spec.origin).parent.joinpath(*path)
    if not found.exists():
        pytest.skip(f"this {module} has no {'/'.join(path)}")
    return found


def runs_like_new(person: Person, *words: str, makes: tuple[str, ...] = (), prints: str = "") -> None:
    """Run it, take its outputs away, and ask for it again."""
    command = ("--", "python", *words)
    first = person.run(*command)
    printed = person.output
    assert prints in printed
    assert (first["status"], first["reusable"]) == ("trained", True), first["reasons"]
    assert sorted(first["outputs"]) == sorted(f"{{project}}/{name}" for name in makes)
    made = {name: (person.directory / name).read_bytes() for name in makes}
    for name in makes:
        (person.directory / name).unlink()
    again = person.run(*command)
    assert (again["status"], again["record"]) == ("hit", first["record"]), person.told
    assert person.output == printed
    assert {name: (person.directory / name).read_bytes() for name in makes} == made


def test_a_statistician_fits_by_maximum_likelihood(person: Person) -> None:
    script = installed("statsmodels", "miscmodels", "try_mlecov.py")
    runs_like_new(person, str(script))


def test_a_learners_own_examples_are_run_by_a_test_runner(person: Person) -> None:
    """Those in the documentation of naive Bayes, in a process that imports pytest, numpy and scipy."""
    installed("sklearn", "naive_bayes.py")
    words = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--doctest-modules",
        "--pyargs",
        "sklearn.naive_bayes",
    )
    runs_like_new(person, *words, prints="passed")


def test_a_generator_writes_a_c_module(person: Person) -> None:
    installed("numpy.f2py")
    person.write("add.f90", FORTRAN)
    runs_like_new(
        person,
        "-m",
        "numpy.f2py",
        "add.f90",
        "-m",
        "fadd",
        "--lower",
        makes=("fadd-f2pywrappers.f", "faddmodule.c"),
    )


def test_a_font_is_cut_down(person: Person) -> None:
    installed("fontTools", "subset", "__main__.py")
    font = installed("matplotlib", "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
    words = (str(font), "--unicodes=41-5A", "--output-file=subset.ttf")
    runs_like_new(person, "-m", "fontTools.subset", *words, makes=("subset.ttf",))


def test_a_program_is_painted(person: Person) -> None:
    person.write("source.py", installed("pygments", "__init__.py").read_text())
    runs_like_new(person, "-m", "pygments", "-f", "html", "-o", "out.html", "source.py", makes=("out.html",))


def test_the_standard_librarys_own_tools(person: Person) -> None:
    person.write("in.json", '{"b": 1, "a": [1, 2]}')
    runs_like_new(person, "-m", "json.tool", "--sort-keys", "in.json", "out.json", makes=("out.json",))
    runs_like_new(person, "-m", "calendar", "2024", "2", prints="February 2024")


OLS = """\
import statsmodels.api as sm
import statsmodels.formula.api as smf
data = sm.datasets.longley.load_pandas().data
fit = smf.ols("TOTEMP ~ GNP + UNEMP + POP", data).fit()
open("fit.txt", "w").write(str(fit.params.round(6)))
print("rsquared", round(fit.rsquared, 6))
"""


def test_a_regression_on_data_that_came_with_the_library(person: Person) -> None:
    installed("statsmodels", "datasets", "longley", "longley.csv")
    person.write("ols.py", OLS)
    runs_like_new(person, "ols.py", makes=("fit.txt",), prints="rsquared 0.98")


def test_a_learners_own_tests_are_run_by_a_test_runner(person: Person) -> None:
    installed("sklearn", "tree", "tests", "test_export.py")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "sklearn.tree.tests.test_export")
    runs_like_new(person, *words, prints="passed")


def test_archives_hold_times_so_a_touch_makes_another(person: Person) -> None:
    member = person.write("rows/a.csv", "1,2")
    runs_like_new(person, "-m", "zipfile", "-c", "rows.zip", "rows", makes=("rows.zip",))
    runs_like_new(person, "-m", "tarfile", "-c", "rows.tar", "rows", makes=("rows.tar",))
    os.utime(member, ns=(10**18, 10**18))
    for words in (("zipfile", "-c", "rows.zip"), ("tarfile", "-c", "rows.tar")):
        assert person.run("--", "python", "-m", *words, "rows")["status"] == "trained"


def test_programs_of_the_standard_library_that_run_other_programs(person: Person) -> None:
    person.write("sums.py", "import sys\nprint(sum(range(1000)))\n")
    runs_like_new(person, "-m", "timeit", "-n", "5", "-r", "1", "sum(range(100))", prints="per loop")
    runs_like_new(
        person, "-m", "cProfile", "-o", "sums.prof", "sums.py", makes=("sums.prof",), prints="499500"
    )
