"""Settings and problems of a configuration written in a test."""

from collections.abc import Mapping

import pytest
import yaml

from broker.config import Settings
from broker.config.loader import settings_of
from broker.config.problems import ConfigProblems


def settings_from(text: str, environ: Mapping[str, str] | None = None) -> Settings:
    return settings_of(yaml.safe_load(text), environ or {})


def problems_of(text: str, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigProblems) as caught:
        settings_from(text, environ)
    return caught.value.problems
