"""Processors recognised from what /proc/cpuinfo says, and the ratings and load curves that follow."""

from __future__ import annotations

import re

import pytest

from lichen.energy.processor import LoadCurve, Processor, load_band, rated_power, recorded_curves
from lichen.energy.tables import read_table


def cpuinfo(
    vendor: str,
    family: int,
    model: int,
    name: str,
    *,
    threads: int,
    sockets: int = 1,
    flags: str = "fpu sse",
) -> str:
    blocks = [
        f"processor\t: {thread}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n"
        f"physical id\t: {thread % sockets}\ncore id\t\t: {thread // 2}\nflags\t\t: {flags}\n"
        for thread in range(threads)
    ]
    return "\n".join(blocks)


def processor(
    vendor: str, family: int, model: int, name: str, threads: int, sockets: int = 1, flags: str = "fpu"
) -> Processor:
    return Processor.from_cpuinfo(
        cpuinfo(vendor, family, model, name, threads=threads, sockets=sockets, flags=flags), threads
    )


ROME = processor("AuthenticAMD", 23, 49, "AMD EPYC 7742 64-Core Processor", 256, 2)
HASWELL = processor("GenuineIntel", 6, 63, "Intel(R) Xeon(R) CPU E5-2620 v3 @ 2.40GHz", 24, 2)
GUEST = processor("AuthenticAMD", 25, 17, "AMD EPYC", 2, flags="fpu hypervisor lahf_lm")


def test_cpuinfo_is_read() -> None:
    assert (
        Processor(
            "AuthenticAMD",
            23,
            49,
            "AMD EPYC 7742 64-Core Processor",
            256,
            core_count=256,
            socket_count=2,
            virtual=False,
        )
        == ROME
    )
    assert GUEST.virtual


def test_labels_are_short_and_name_no_host() -> None:
    assert ROME.label == "AMD EPYC 7742 x256"
    assert HASWELL.label == "Intel Xeon E5-2620 v3 x24"
    assert GUEST.label == "AMD EPYC x2 (virtual)"
    assert Processor.from_cpuinfo("", 4).label == "unknown processor x4"
    assert len(Processor.from_cpuinfo("model name : " + "long " * 50, 4).label) <= 64


def test_an_arm_board_is_read() -> None:
    text = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c\n"
    arm = Processor.from_cpuinfo(text, 80, "aarch64")
    assert (arm.vendor, arm.family, arm.model, arm.name) == ("0x41", 0, 0xD0C, "aarch64")
    assert "Neoverse N1" in rated_power(arm).basis


def test_an_exact_part_has_its_rated_power() -> None:
    rated = rated_power(ROME)
    assert rated.low_watts == pytest.approx(2 * 225 / 256)
    assert rated.high_watts == pytest.approx(2 * 225 / 256 * 1.05)
    assert "rated 225 W" in rated.basis


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("Intel(R) Xeon(R) CPU E5-2620 v3 @ 2.40GHz", 85),
        ("Intel(R) Xeon(R) CPU E5-2699 v4 @ 2.20GHz", 145),
        ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 150),
        ("Intel(R) Core(TM) i5-8400 CPU @ 2.80GHz", 65),
        ("13th Gen Intel(R) Core(TM) i9-13900K", 125),
        ("AMD Ryzen 9 7950X 16-Core Processor", 170),
        ("AMD EPYC 9654 96-Core Processor", 360),
        ("AMD Ryzen Threadripper 1950X 16-Core Processor", 180),
        ("Intel(R) Xeon(R) Platinum 8480+", 350),
        ("AMD Ryzen 7 5800H with Radeon Graphics", 45),
    ],
)
def test_names_as_the_kernel_writes_them_find_their_rating(name: str, watts: float) -> None:
    rated = rated_power(processor("", 0, 0, name, 1))
    assert rated.low_watts == watts


def test_a_guest_gets_the_range_of_its_family_even_when_the_part_is_named() -> None:
    """The threads a guest sees are not those its part is rated for."""
    named = processor("AuthenticAMD", 25, 17, "AMD EPYC 9654 96-Core Processor", 4, flags="hypervisor")
    assert rated_power(named) == rated_power(GUEST)
    assert rated_power(GUEST).low_watts < 360 / 192 < rated_power(GUEST).high_watts


def test_bare_metal_narrows_the_family_by_its_threads() -> None:
    unnamed = processor("AuthenticAMD", 23, 49, "AMD EPYC 9999Z", 128)
    guest = processor("AuthenticAMD", 23, 49, "AMD EPYC 9999Z", 128, flags="hypervisor")
    narrow, wide = rated_power(unnamed), rated_power(guest)
    assert narrow.low_watts >= wide.low_watts
    assert narrow.high_watts <= 280 / 128 * 1.06
    assert narrow.relative_u95 < wide.relative_u95


def test_an_unknown_processor_gets_the_widest_bounds_and_says_so() -> None:
    rated = rated_power(Processor.from_cpuinfo("", 4))
    assert rated.basis == "unknown processor"
    for other in (ROME, HASWELL, GUEST):
        known = rated_power(other)
        assert rated.low_watts < known.low_watts
        assert known.high_watts < rated.high_watts


def test_every_family_row_is_in_order() -> None:
    rows = read_table("cpu_families.csv")
    names = {curve.name for curve in recorded_curves()}
    assert len(rows) > 50
    for row in rows:
        assert int(row["model_first"]) <= int(row["model_last"]), row
        assert 0 < float(row["tdp_low_watts"]) <= float(row["tdp_high_watts"]), row
        assert 0 < float(row["watts_per_thread_low"]) < float(row["watts_per_thread_high"]), row
        assert 1 <= float(row["turbo"]) <= 2, row
        assert row["curve"] in names | {""}, row
    for place, row in enumerate(rows):
        for other in rows[:place]:
            same = (row["vendor"], row["family"]) == (other["vendor"], other["family"])
            overlap = int(row["model_first"]) <= int(other["model_last"]) and int(
                other["model_first"]
            ) <= int(row["model_last"])
            if same and overlap:  # the more special row, told by name, must come first
                assert other["name_contains"], (row, other)


def test_exact_parts_lie_within_their_family() -> None:
    """Two tables from two origins agree on the parts that both know."""
    for known in (ROME, HASWELL):
        guest = Processor(
            known.vendor,
            known.family,
            known.model,
            known.name,
            known.thread_count,
            None,
            known.socket_count,
            virtual=True,
        )
        family, exact = rated_power(guest), rated_power(known)
        assert family.low_watts <= exact.low_watts <= exact.high_watts <= family.high_watts * 1.001


# Parts by their names in the table of ratings, with the CPUID that they have.
PARTS = [
    (r"epyc 7\d\d1p?", "AuthenticAMD", 23, 1), (r"epyc 7[\dfh]\d?\d2p?", "AuthenticAMD", 23, 49),
    (r"epyc 7[\df]?\d?\d?f?3[px]?", "AuthenticAMD", 25, 1), (r"epyc 9\d[0-47-9]4[pfx]?", "AuthenticAMD", 25, 17),
    (r"epyc (97\d4s?|8\d\d4pn?)", "AuthenticAMD", 25, 160), (r"epyc 9\d\d5[pf]?", "AuthenticAMD", 26, 2),
    (r"ryzen threadripper [12]9\d\d\w*", "AuthenticAMD", 23, 1), (r"ryzen threadripper (pro )?39\d\dw?x", "AuthenticAMD", 23, 49),
    (r"ryzen threadripper (pro )?59\d\dw?x", "AuthenticAMD", 25, 8), (r"ryzen threadripper (pro )?79\d\dw?x", "AuthenticAMD", 25, 24),
    (r"ryzen [357] (pro )?1\d00x?", "AuthenticAMD", 23, 1), (r"ryzen [357] 2[5-7]00[xe]?", "AuthenticAMD", 23, 8),
    (r"ryzen [3579] 3[1356789][05]0x?t?", "AuthenticAMD", 23, 113), (r"ryzen [579] 5[689][05]0x(3d|t)?", "AuthenticAMD", 25, 33),
    (r"ryzen [579] 7[6-9][05]0(x|x3d)?", "AuthenticAMD", 25, 97), (r"ryzen [579] 9[6-9][05]0(x|x3d|f)?", "AuthenticAMD", 26, 68),
    (r"ryzen [357] (pro )?[23][2357]\d0[uh]", "AuthenticAMD", 23, 24), (r"ryzen [3579] [78][46]4\d(u|h|hs)", "AuthenticAMD", 25, 116),
    (r"core i[357]-2[1-7]\d\d\w*", "GenuineIntel", 6, 42), (r"core i[357]-3([1-7])\d\d[a-z]*", "GenuineIntel", 6, 58),
    (r"xeon e3-12\d\dl?", "GenuineIntel", 6, 42), (r"xeon e3-12\d\dl?v2", "GenuineIntel", 6, 58), (r"xeon e3-12\d\dl?v3", "GenuineIntel", 6, 60),
    (r"xeon e5-[1246]6\d\d[lw]?", "GenuineIntel", 6, 45), (r"xeon e5-[1246][46]\d\d[lw]?v2", "GenuineIntel", 6, 62),
    (r"xeon e5-[1246][46]\d\d[lw]?v3", "GenuineIntel", 6, 63), (r"xeon e5-[1246]6\d\d[law]?v4", "GenuineIntel", 6, 79),
    (r"core i[357]-4[1-7]\d\d[kst]?", "GenuineIntel", 6, 60), (r"core i[357]-4\d\d\d(u|y|m|mq|hq)", "GenuineIntel", 6, 69),
    (r"xeon d-15\d\dn?", "GenuineIntel", 6, 86), (r"core i[357]-5\d\d\d[uy]", "GenuineIntel", 6, 61),
    (r"core i[357]-6[1-7]\d0[kt]?", "GenuineIntel", 6, 94), (r"xeon (bronze|silver|gold|platinum) \d[12]\d\d[a-z]?", "GenuineIntel", 6, 85),
    (r"xeon platinum 9\d\d\d", "GenuineIntel", 6, 85), (r"xeon w-21\d\d", "GenuineIntel", 6, 85),
    (r"core i[3579]-[789][1-9]\d\d(k|kf|t|f|ks)?", "GenuineIntel", 6, 158), (r"core i[3579]-10[1-9]00(k|kf|t|f)?", "GenuineIntel", 6, 165),
    (r"core i[579]-11[4-9]00(k|kf|t|f)?", "GenuineIntel", 6, 167), (r"xeon (silver|gold|platinum) \d3\d\d[a-z]?", "GenuineIntel", 6, 106),
    (r"xeon (bronze|silver|gold|platinum) \d4\d\d[a-z+]?", "GenuineIntel", 6, 143),
    (r"xeon (bronze|silver|gold|platinum) \d5\d\d[a-z+]?", "GenuineIntel", 6, 207), (r"core i[3579]-13[1-9]00(k|kf|ks|t|f)?", "GenuineIntel", 6, 183),
    (r"celeron g5[34]0", "GenuineIntel", 6, 42), (r"celeron g16[12]0t?", "GenuineIntel", 6, 58), (r"celeron g18[2-5]0t?", "GenuineIntel", 6, 60),
    (r"celeron g39[02]0t?", "GenuineIntel", 6, 94), (r"celeron g49[0-5]0t?", "GenuineIntel", 6, 158), (r"celeron g59[0-2][05]t?", "GenuineIntel", 6, 165),
]  # fmt: skip
# Ratings that other lists contradict: extreme editions of another socket under the same digits, and a part for one buyer.
OTHERWISE_RATED = {"core i7-3970x", "core i7-3960x", "xeon e5-2699pv4"}


def _family_row(name: str, vendor: str, family: int, model: int) -> dict[str, str]:
    shown = f"{name.upper()} {name.title()}".replace("Pro ", "PRO ")
    return next(
        row
        for row in read_table("cpu_families.csv")
        if (row["vendor"], int(row["family"] or 0)) == (vendor, family)
        and int(row["model_first"]) <= model <= int(row["model_last"])
        and row["name_contains"] in shown
    )


@pytest.mark.parametrize(("pattern", "vendor", "family", "model"), PARTS)
def test_every_listed_part_is_rated_within_its_family(
    pattern: str, vendor: str, family: int, model: int
) -> None:
    """Two tables from two origins agree on what packages are rated for."""
    parts = {
        row["name"]: float(row["tdp_watts"])
        for row in read_table("cpu_tdp.csv")
        if re.fullmatch(pattern, row["name"]) and row["name"] not in OTHERWISE_RATED
    }
    assert parts, "the pattern names no part"
    for name, watts in parts.items():
        row = _family_row(name, vendor, family, model)
        assert float(row["tdp_low_watts"]) <= watts <= float(row["tdp_high_watts"]), (
            name,
            watts,
            row["name"],
        )


def test_every_family_row_says_what_it_was_compared_with() -> None:
    rows = read_table("cpu_families.csv")
    compared = {"", "; ratings compared", "; ratings and threads compared"}
    assert {row["source"] for row in rows} == {f"by hand{what}" for what in compared}
    tested = set()
    for pattern, vendor, family, model in PARTS:
        for part in read_table("cpu_tdp.csv"):
            if re.fullmatch(pattern, part["name"]):
                tested.add(_family_row(part["name"], vendor, family, model)["name"])
    x86 = [row for row in rows if row["vendor"] in ("AuthenticAMD", "GenuineIntel")]
    assert {row["name"] for row in x86 if "ratings" in row["source"]} == tested


# Rated watts and hardware threads of parts at the edges of their families, as lists that others publish have them.
EDGES = [
    ("EPYC 7262", "AuthenticAMD", 23, 49, 155, 16), ("EPYC 7742", "AuthenticAMD", 23, 49, 225, 128),
    ("EPYC 72F3", "AuthenticAMD", 25, 1, 180, 16), ("Xeon Platinum 8276", "GenuineIntel", 6, 85, 165, 56),
    ("Xeon Platinum 8352V", "GenuineIntel", 6, 106, 195, 72), ("Xeon Platinum 8488C", "GenuineIntel", 6, 143, 385, 96),
    ("Xeon E5-2651 v2", "GenuineIntel", 6, 62, 95, 24), ("", "0x41", 0, 3336, 40, 16), ("", "0x41", 0, 3340, 150, 64),
    ("", "0x41", 0, 3340, 180, 64), ("", "0x41", 0, 3392, 250, 64), ("Apple M1 Max", "0x61", 0, 34, 90, 10),
]  # fmt: skip


@pytest.mark.parametrize(("name", "vendor", "family", "model", "watts", "threads"), EDGES)
def test_parts_at_the_edge_of_a_family_are_inside_it(
    name: str, vendor: str, family: int, model: int, watts: float, threads: int
) -> None:
    row = _family_row(name, vendor, family, model)
    assert float(row["tdp_low_watts"]) <= watts <= float(row["tdp_high_watts"])
    low, high = float(row["watts_per_thread_low"]), float(row["watts_per_thread_high"])
    assert low <= watts / threads <= high


def test_recorded_curves_begin_at_idle_and_bend() -> None:
    curves = recorded_curves()
    assert len(curves) == 8
    for curve in curves:
        loads = [load for load, _ in curve.points]
        assert loads[0] == 0
        assert loads == sorted(loads)
        assert 0.05 < curve.idle_share < 0.3
        assert curve.power_watts(0) == curve.points[0][1]
        assert curve.power_watts(2) == curve.points[-1][1]
        middle = curve.points[5]
        assert curve.power_watts(middle[0]) == pytest.approx(middle[1])


def test_the_curve_of_a_small_server_is_concave() -> None:
    """Half the load takes far more than half the power that full load adds."""
    for curve in recorded_curves():
        if curve.name == "EPYC 8024P":
            assert curve.slope_share(0.1) > curve.slope_share(0.5) > curve.slope_share(1.0)
            assert curve.power_watts(0.5) - curve.points[0][1] > 0.8 * (
                curve.power_watts(1.0) - curve.points[0][1]
            )


def test_a_relative_narrows_the_band() -> None:
    for load in (0.1, 0.5, 1.0):
        for known, unknown in zip(
            load_band("EPYC 8024P", (load, load)), load_band("", (load, load)), strict=True
        ):
            assert unknown.low <= known.low <= known.high <= unknown.high


def test_a_hidden_load_widens_the_band() -> None:
    _, seen = load_band("EPYC 8024P", (0.5, 0.5))
    _, hidden = load_band("EPYC 8024P", (0.2, 1.0))
    assert hidden.low <= seen.low <= seen.high <= hidden.high


def test_recordings_are_inside_their_own_band() -> None:
    for curve in recorded_curves():
        for load, watts in curve.points[1:]:
            idle, slope = load_band(curve.name, (load, load))
            share = (watts - curve.points[0][1]) / curve.tdp_watts / load
            assert slope.low <= share <= slope.high
            assert idle.low <= curve.idle_share <= idle.high


def test_most_recordings_are_inside_the_band_made_from_other_machines() -> None:
    """The band for an unknown design, made without the machine that is asked about, on work that fills part of it."""
    inside = total = 0
    for curve in recorded_curves():
        others = tuple(other for other in recorded_curves() if other.name != curve.name)
        for load, watts in curve.points[1:]:
            idle, slope = load_band("", (load, load), others)
            truth = (watts - curve.points[0][1]) / curve.tdp_watts + load * curve.idle_share
            low, high = load * (idle.low + slope.low), load * (idle.high + slope.high)
            inside += low <= truth <= high
            total += 1
    assert total == 78
    assert inside / total >= 0.9


def test_a_curve_is_straight_between_points() -> None:
    curve = LoadCurve("x", 100, ((0.0, 20.0), (0.5, 60.0), (1.0, 70.0)))
    assert curve.power_watts(0.25) == 40
    assert curve.slope_share(0.1) == pytest.approx(0.8)  # below the first point, that point's
    assert curve.slope_share(1.0) == pytest.approx(0.5)
