"""The section `media`: from where files may be fetched."""

import pytest

from broker.config import Media
from broker.config.problems import ConfigProblems
from tests.unit.config.yaml_text import settings_from


def test_without_the_section_nothing_is_fetched_from_anywhere() -> None:
    assert settings_from("{}").media == Media(allowed_hosts=(), max_bytes=20 << 20, timeout=10.0, fetch_for=())


def test_the_section_is_read() -> None:
    written = "media: {allowed_hosts: [Images.Example.com, '*.example.org:8443'], max_bytes: 1000, timeout: 3}"
    media = settings_from(written).media
    assert media.allowed_hosts == ("images.example.com", "*.example.org:8443")
    assert (media.max_bytes, media.timeout) == (1000, 3.0)


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("allowed_hosts: ['https://example.com']", "media.allowed_hosts: 'https://example.com' is no host"),
        ("allowed_host: [example.com]", "media.allowed_host: unknown key; the nearest known one is allowed_hosts"),
        ("max_bytes: 0", "media.max_bytes: Input should be greater than or equal to 1"),
        ("timeout: .inf", "media.timeout: Input should be a finite number"),
    ],
)
def test_a_fault_is_named(written: str, problem: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        settings_from(f"media: {{{written}}}")
    assert caught.value.problems[0].startswith(problem)
