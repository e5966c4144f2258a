"""Known secrets in printed output: masked wherever they stand, and said."""

from lichen.runs.work.printed import known_secrets, mask_printed

ENVIRON = {"DB_PASS": "hunter2hunter2", "HOME": "/home/ada", "API_KEY": "abc", "PWD": "/home/ada/project"}
ARGV = ("python", "t.py", "--user=bob:swordfish", "--password", "hunter2", "--depth", "4")


def test_values_are_known_by_variables_and_options_the_longest_first() -> None:
    assert list(known_secrets(ARGV, ENVIRON).items()) == [
        ("hunter2hunter2", "variable DB_PASS"),
        ("swordfish", "argument 2"),
        ("hunter2", "argument 4"),
    ]


def test_they_are_masked_and_where_they_came_from_is_told() -> None:
    data, found = mask_printed(b"pw=hunter2hunter2, hunter2\xff /home/ada 4\n", known_secrets(ARGV, ENVIRON))
    assert data == b"pw=***, ***\xff /home/ada 4\n"
    assert found == ["variable DB_PASS", "argument 4"]


def test_plain_output_stays_as_it_is() -> None:
    assert mask_printed(b"accuracy 0.93\n", known_secrets(ARGV, ENVIRON)) == (b"accuracy 0.93\n", [])
    assert known_secrets(("python", "t.py", "--seed", "7"), {"HOME": "/home/ada"}) == {}
