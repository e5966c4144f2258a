"""Laws of measurements: what must hold whatever the joules are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen import units
from lichen.energy.attribution import TreeUsage
from lichen.energy.carbon import compute_carbon
from lichen.energy.grid import Intensity, lookup, zones
from lichen.energy.load_model import LoadModelSource
from lichen.energy.measurement import Boundary, Component, Measurement, Method, combine_factors, combine_terms
from lichen.energy.plausibility import check_carbon, check_claim, check_record
from lichen.energy.processor import Processor, rated_power
from lichen.energy.rapl import RaplSource
from lichen.energy.replay import Trace
from lichen.energy.sources import Load
from lichen.errors import EncodingError, LichenError, UsageError

joules = st.floats(0, 1e12, allow_subnormal=False)
shares = st.floats(0, 1)
u95s = st.floats(0, 3)
methods = st.sampled_from(Method)
boundaries = st.sampled_from(Boundary)
names = st.sampled_from(["cpu", "idle", "ram", "gpu", "disk", "network"])
components = st.builds(Component, joules, u95s, methods)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    parts = draw(st.dictionaries(names, components, min_size=1, max_size=6))
    zone = draw(st.none() | st.sampled_from(sorted(zones())))
    return Measurement(
        parts, draw(st.floats(0, 1e6)), draw(boundaries), draw(st.sampled_from(["EPYC x2", "L4 x1"])), zone
    )


def close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)


class TestSumsAreFullyCorrelated:
    """Absolute uncertainties add: when each part's interval holds the truth, the sum's interval holds it."""

    @given(st.lists(st.tuples(components, st.floats(-1, 1)), min_size=1, max_size=6))
    def test_the_whole_holds_the_truth_when_every_part_does(
        self, drawn: list[tuple[Component, float]]
    ) -> None:
        truth = math.fsum(
            max(0.0, part.energy_joules * (1 + part.relative_u95 * where)) for part, where in drawn
        )
        whole = Measurement(
            {f"p{place}": part for place, (part, _) in enumerate(drawn)}, 1, Boundary.NODE, "x"
        )
        slack = 1e-9 * max(whole.high_joules, 1.0)
        assert whole.low_joules - slack <= truth <= whole.high_joules + slack

    @given(measurements(), measurements())
    def test_adding_measurements_adds_joules_and_absolute_uncertainties(
        self, one: Measurement, other: Measurement
    ) -> None:
        total = one + other
        assert close(total.energy_joules, one.energy_joules + other.energy_joules)
        assert close(
            total.energy_joules * total.relative_u95,
            one.energy_joules * one.relative_u95 + other.energy_joules * other.relative_u95,
        )
        assert total.duration_seconds == one.duration_seconds + other.duration_seconds

    @given(measurements(), measurements())
    def test_order_does_not_matter(self, one: Measurement, other: Measurement) -> None:
        left, right = one + other, other + one
        assert close(left.energy_joules, right.energy_joules)
        assert close(left.relative_u95, right.relative_u95)
        assert (left.method, left.boundary, left.zone, left.device) == (
            right.method,
            right.boundary,
            right.zone,
            right.device,
        )

    @given(measurements(), measurements(), measurements())
    def test_grouping_does_not_matter(self, a: Measurement, b: Measurement, c: Measurement) -> None:
        left, right = (a + b) + c, a + (b + c)
        assert close(left.energy_joules, right.energy_joules)
        assert close(left.energy_joules * left.relative_u95, right.energy_joules * right.relative_u95)
        assert (left.method, left.boundary) == (right.method, right.boundary)

    @given(measurements(), measurements())
    def test_a_sum_is_no_better_than_its_weakest_part(self, one: Measurement, other: Measurement) -> None:
        total = one + other
        paid = [m for m in (one, other) if m.energy_joules > 0]
        if paid:
            assert total.method.rank == max(m.method.rank for m in paid)
        assert total.boundary.rank == max(one.boundary.rank, other.boundary.rank)

    @given(st.lists(st.tuples(joules, u95s), min_size=1, max_size=8))
    def test_the_relative_uncertainty_of_a_sum_lies_between_those_of_its_terms(
        self, terms: list[tuple[float, float]]
    ) -> None:
        combined = combine_terms(terms)
        assert min(u for _, u in terms) - 1e-9 <= combined <= max(u for _, u in terms) + 1e-9


class TestFactorsAreIndependent:
    """Relative uncertainties of factors add in quadrature: at least the largest, at most their sum."""

    @given(st.lists(u95s, max_size=6))
    def test_quadrature_is_bounded(self, u95: list[float]) -> None:
        combined = combine_factors(*u95)
        assert max(u95, default=0) <= combined + 1e-12
        assert combined <= sum(u95) + 1e-12

    @given(measurements(), st.floats(0, 1e3))
    def test_scaling_keeps_relative_uncertainty_and_never_improves_the_method(
        self, one: Measurement, share: float
    ) -> None:
        part = one.scaled(share)
        assert close(part.energy_joules, one.energy_joules * share)
        if part.energy_joules > 0:
            assert close(part.relative_u95, one.relative_u95)
        for name, component in part.components.items():
            assert component.method.rank >= one.components[name].method.rank

    @given(measurements(), shares)
    def test_shares_add_up_to_the_whole(self, one: Measurement, share: float) -> None:
        both = one.scaled(share) + one.scaled(1 - share)
        assert close(both.energy_joules, one.energy_joules)


class TestRecords:
    """Writing and reading a record is stable after the first rounding; every other input is an EncodingError."""

    @given(measurements())
    def test_a_record_reads_back_to_itself(self, one: Measurement) -> None:
        record = one.to_record()
        again = Measurement.from_record(record)
        assert again.to_record() == record
        assert math.isclose(again.energy_joules, one.energy_joules, rel_tol=1e-5, abs_tol=1e-300)
        assert (again.method, again.boundary, again.zone) == (one.method, one.boundary, one.zone)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4)
            ),
            max_leaves=12,
        )
    )
    def test_garbage_is_an_encoding_error(self, garbage: object) -> None:
        with pytest.raises(EncodingError):
            Measurement.from_record(garbage)

    @given(
        measurements(),
        st.sampled_from(
            [
                "joules",
                "u95",
                "method",
                "boundary",
                "seconds",
                "device",
                "parts",
                "zone",
                "notes",
                "intensity",
            ]
        ),
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text()
        | st.lists(st.integers())
        | st.just({}),
    )
    def test_one_wrong_field_is_an_encoding_error_or_still_consistent(
        self, one: Measurement, name: str, value: object
    ) -> None:
        record = {**one.to_record(), name: value}
        try:
            read = Measurement.from_record(record)
        except EncodingError:
            return
        assert math.isfinite(read.energy_joules)
        assert read.energy_joules >= 0
        check_claim(read)

    @given(measurements())
    def test_the_gate_never_raises(self, one: Measurement) -> None:
        for violation in check_record(one.to_record()):
            assert violation.rule.startswith("energy.")
            assert violation.message


class TestGaps:
    """Joules seen for part of a time are within the interval of the whole, whatever came in the rest, up to twice the rate."""

    @given(st.floats(1e-3, 1e9), st.floats(0, 0.5), st.floats(0.01, 1), st.floats(0, 2))
    def test_the_interval_holds_any_rest(self, seen: float, u95: float, share: float, rate: float) -> None:
        part = Component(seen, u95, Method.COUNTER).with_gap(share, 1.0)
        truth = seen + seen / share * (1 - share) * rate
        assert part.low_joules <= truth * (1 + 1e-9)
        assert truth * (1 - 1e-9) <= part.high_joules
        assert part.relative_u95 >= u95 - 1e-12 or u95 > 1


class TestCarbon:
    """The range holds every product of joules and intensity that lies within half of both ranges, and the middle."""

    @given(measurements(), st.floats(1, 1000), shares, shares)
    def test_the_range_is_in_order_and_not_negative(
        self, one: Measurement, grams: float, below: float, above: float
    ) -> None:
        signal = Intensity("XX", grams, grams * (1 - below), min(grams * (1 + above), 1500), "2024", "x")
        carbon = compute_carbon(one, signal)
        assert 0 <= carbon.low_gco2e <= carbon.carbon_gco2e * (1 + 1e-12)
        assert carbon.carbon_gco2e <= carbon.high_gco2e * (1 + 1e-12) + 1e-12

    @given(measurements())
    def test_what_the_table_gives_is_plausible(self, one: Measurement) -> None:
        carbon = compute_carbon(one)
        if one.energy_joules > 1e-6:
            assert check_carbon(one.energy_joules, carbon.carbon_gco2e) == []
        assert carbon.intensity == lookup(one.zone)


class TestAttribution:
    """Runs that share a machine never carry more of a counter than it counted, whatever each of them used."""

    @given(
        seconds=st.lists(st.floats(0, 20), min_size=1, max_size=8),
        idle_seconds=st.floats(0.1, 50),
        energy=st.floats(0, 1e4),
        idle_watts=st.none() | st.floats(0, 100),
    )
    def test_shares_of_a_counter_do_not_add_up_to_more(
        self,
        seconds: list[float],
        idle_seconds: float,
        energy: float,
        idle_watts: float | None,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        threads, busy = 4, math.fsum(seconds)
        duration = (busy + idle_seconds) / threads
        root = tmp_path_factory.mktemp("powercap")
        counter = write_counter(root, 0)
        now = [0.0]
        source = RaplSource.detect(root, idle_watts=idle_watts, clock=lambda: now[0])
        windows = [source.open() for _ in seconds]
        counter.write_text(str(round(energy * 1e6)))
        now[0] += duration
        total = 0.0
        for used, window in zip(seconds, windows, strict=True):
            usage = TreeUsage(used, used, used, 1, 0, 0.0, 0, 0, "cgroup")
            parts = window.close(Load(duration, usage, busy, threads, None)).components
            total += math.fsum(part.energy_joules for part in parts.values())
        assert total <= energy * (1 + 1e-6) + 1e-5

    @given(st.lists(st.floats(0, 20), min_size=1, max_size=8), st.floats(0, 50))
    def test_the_model_charges_side_by_side_what_it_charges_together(
        self, seconds: list[float], idle_seconds: float
    ) -> None:
        processor = Processor(
            "AuthenticAMD", 25, 160, "AMD EPYC 8024P 8-Core Processor", 16, 8, 1, virtual=False
        )
        source = LoadModelSource(processor, rated_power(processor))
        busy = math.fsum(seconds)
        duration = (busy + idle_seconds) / 16
        if duration <= 0:
            return

        def charged(used: float) -> float:
            usage = TreeUsage(used, used, used, 1, 0, 0.0, 0, 0, "cgroup")
            parts = source.open().close(Load(duration, usage, busy, 16, None)).components
            return math.fsum(part.energy_joules for part in parts.values())

        assert math.isclose(math.fsum(map(charged, seconds)), charged(busy), rel_tol=1e-9, abs_tol=1e-9)


class TestCounters:
    """However often a counter wraps between polls that are close enough, the sum is exact to the microjoule."""

    @given(
        limit=st.integers(10**6, 10**12),
        steps=st.lists(st.floats(0, 0.999), min_size=1, max_size=12),
        start=st.integers(0, 10**12),
    )
    def test_wraps_are_exact(
        self, limit: int, steps: list[float], start: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        root = tmp_path_factory.mktemp("powercap")
        value = start % limit
        counter = write_counter(root, value, limit)
        now = [0.0]
        source = RaplSource.detect(root, clock=lambda: now[0])
        window = source.open()
        expected = 0
        pause = limit * 1e-6 / 1000  # within one, a kilowatt fills the counter once
        for share in steps:
            step = int(share * limit)
            value = (value + step) % limit
            counter.write_text(str(value))
            now[0] += pause * (1 - 1e-9)
            window.poll()
            expected += step
        assert window.counters[0].total_microjoules == expected
        assert not window.counters[0].reset


class TestTraces:
    """Energy between two moments of a trace is additive and never negative."""

    @given(
        st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1e3)), min_size=1, max_size=20),
        shares,
        shares,
        shares,
    )
    def test_pieces_add_up(self, steps: list[tuple[float, float]], a: float, b: float, c: float) -> None:
        seconds, counter = [0.0], [0.0]
        for width, height in steps:
            seconds.append(seconds[-1] + width)
            counter.append(counter[-1] + height)
        trace = Trace(tuple(seconds), tuple(counter))
        first, second, third = sorted(share * seconds[-1] for share in (a, b, c))
        left, right = trace.between(first, second), trace.between(second, third)
        whole = trace.between(first, third)
        assert math.isclose(left[0] + right[0], whole[0], rel_tol=1e-9, abs_tol=1e-6)
        assert math.isclose(left[1] + right[1], whole[1], rel_tol=1e-9, abs_tol=1e-9)
        assert min(left[0], right[0]) >= -1e-9


class TestUnits:
    """Text that is written is read back to what was written; what is no quantity is a UsageError and nothing else."""

    @given(st.floats(1e-3, 1e15))
    def test_a_written_energy_is_read_back_to_three_digits(self, energy: float) -> None:
        assert math.isclose(units.parse_energy(units.format_energy(energy)), energy, rel_tol=0.006)

    @given(st.floats(1e-3, 1e15), st.floats(1e-5, 10))
    def test_a_written_interval_keeps_two_digits_of_its_width(self, energy: float, u95: float) -> None:
        value, _, rest = units.format_energy(energy, u95, signed=True).partition(" ± ")
        width, unit = rest.split(" ")
        assert math.isclose(units.parse_energy(f"{width} {unit}"), energy * u95, rel_tol=0.06)
        assert abs(units.parse_energy(f"{value} {unit}") - energy) <= energy * u95 * 0.06 + 1e-12

    @given(st.floats(1e-3, 1e15), st.floats(0, 10))
    def test_no_interval_of_a_consumption_reaches_below_zero(self, energy: float, u95: float) -> None:
        told = units.format_energy(energy, u95)
        value, plus_minus, rest = told.partition(" ± ")
        if plus_minus:
            assert float(rest.split(" ")[0]) <= float(value)
        elif u95 > 1:
            assert "(0 to " in told

    @given(st.floats(allow_nan=False, allow_infinity=False), st.none() | st.floats(0, 1e3))
    def test_every_finite_energy_can_be_written(self, energy: float, u95: float | None) -> None:
        assert units.format_energy(energy, u95).endswith("J")

    @given(st.text(max_size=80))
    def test_any_text_is_a_quantity_or_a_usage_error(self, text: str) -> None:
        for parse in (
            units.parse_energy,
            units.parse_power,
            units.parse_duration,
            units.parse_carbon,
            units.parse_size,
        ):
            try:
                value = parse(text)
            except UsageError:
                continue
            assert value >= 0

    @given(st.floats(0, 1e15))
    def test_kilowatt_hours_and_joules_are_inverse(self, kilowatt_hours: float) -> None:
        there = units.joules_from_kilowatt_hours(kilowatt_hours)
        assert math.isclose(units.kilowatt_hours_from_joules(there), kilowatt_hours, rel_tol=4e-16)


class TestProcessors:
    """Whatever cpuinfo says, a processor is described and rated, with a positive range."""

    @given(st.text(max_size=400), st.integers(1, 1024))
    def test_any_text_gives_a_rated_processor(self, text: str, threads: int) -> None:
        check_processor(Processor.from_cpuinfo(text, threads))

    @given(
        st.sampled_from(["AuthenticAMD", "GenuineIntel", "0x41", "HygonGenuine"]),
        st.integers(0, 40),
        st.integers(0, 4095),
        st.sampled_from(["AMD EPYC", "Intel(R) Core(TM) i7", "", "AMD Ryzen Threadripper"]),
        st.booleans(),
        st.integers(1, 512),
    )
    def test_any_family_gives_a_rated_processor(
        self, vendor: str, family: int, model: int, name: str, virtual: bool, threads: int
    ) -> None:
        check_processor(Processor(vendor, family, model, name, threads, None, 1, virtual))


def check_processor(processor: Processor) -> None:
    rated = rated_power(processor)
    assert 0 < rated.low_watts <= rated.high_watts
    assert 1 <= len(processor.label) <= 64
    assert processor.label.isprintable()
    usage = TreeUsage(1.0, 1.0, 1.0, 1, 10**9, None, 0, 0, "self")
    try:
        parts = (
            LoadModelSource(processor, rated)
            .open()
            .close(Load(1.0, usage, 1.0, processor.thread_count, None))
            .components
        )
    except LichenError as error:
        raise AssertionError(f"the model failed: {error}") from error
    assert all(part.relative_u95 > 0 for part in parts.values())


def write_counter(root: Path, value: int, limit: int | None = None) -> Path:
    directory = root / "intel-rapl:0"
    directory.mkdir()
    (directory / "name").write_text("package-0\n")
    (directory / "energy_uj").write_text(str(value))
    if limit is not None:
        (directory / "max_energy_range_uj").write_text(str(limit))
    return directory / "energy_uj"
