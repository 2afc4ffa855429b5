"""Links as users write them, and those that have names."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.launcher.simulation.links import FREE, KNOWN_LINKS, Link, parse_link


@pytest.mark.parametrize(
    ("text", "bytes_per_s", "latency_s"),
    [
        ("25GB/s,5us", 25e9, 5e-6),
        ("25GB/s, 5µs", 25e9, 5e-6),
        ("1.5TB/s,300ns", 1.5e12, 3e-7),
        ("100MB/s,0ms", 1e8, 0.0),
        ("8KB/s,2s", 8e3, 2.0),
        ("10Gbit/s,1.5ms", 1.25e9, 1.5e-3),
        ("800Mbit/s,1e2us", 1e8, 1e-4),
    ],
)
def test_parse_link_of_figures_reads_their_units(text: str, bytes_per_s: float, latency_s: float) -> None:
    link = parse_link("--link", text)
    assert link.bytes_per_s == pytest.approx(bytes_per_s)
    assert link.latency_s == pytest.approx(latency_s)


@pytest.mark.parametrize(
    "text", ["25GB/s", "5us,25GB/s", "25GB,5us", "0GB/s,5us", "-1GB/s,5us", "25GB/s,5us,1", "", "25gb/s,5us"]
)
def test_parse_link_of_other_texts_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_link("--local-link", text)
    assert str(caught.value).startswith(
        "--local-link: must be BANDWIDTH,LATENCY such as 25GB/s,5us or a known name, got"
    )
    assert "known: nvlink4, pcie4, ib-hdr, ib-ndr, eth-10g, eth-25g, eth-100g" in str(caught.value)


def test_parse_link_of_a_misspelt_name_suggests_the_right_one() -> None:
    with pytest.raises(UserError, match='did you mean "nvlink4"'):
        parse_link("--link", "nvlnk4")


@pytest.mark.parametrize(
    ("name", "gbit_per_s"),
    [
        ("ib-hdr", 200),
        ("ib-ndr", 400),
        ("eth-10g", 10),
        ("eth-25g", 25),
        ("eth-100g", 100),
        ("nvlink4", 18 * 25 * 8),
        ("pcie4", 16 * 16 * 128 / 130),
    ],
)
def test_known_link_has_the_rate_of_its_standard(name: str, gbit_per_s: float) -> None:
    known = KNOWN_LINKS[name]
    assert known.link.bytes_per_s == pytest.approx(gbit_per_s * 1e9 / 8, rel=0.001)
    assert known.source


@pytest.mark.parametrize(("link", "seconds"), [(Link(2.0, 10.0), 5.0), (Link(0.0, 30.0), 1.0), (FREE, 0.0)])
def test_link_time_is_latency_and_bytes_over_bandwidth(link: Link, seconds: float) -> None:
    assert link.time_s(30) == seconds


def test_link_as_text_is_what_the_option_takes() -> None:
    link = Link(8e-6, 25e9)
    assert str(link) == "25GB/s,8us"
    assert parse_link("--link", str(link)) == link
