"""The README's table of parameters and providers is what the dialects do; what cannot be taken is named, or dropped."""

import pytest

from broker.errors import InvalidRequest
from tests.parameter_table import PROVIDERS, README, REFUSED, SAMPLES, becomes, in_readme, sent, table

CELLS = [(provider, row) for provider in PROVIDERS for row in SAMPLES]


def test_the_table_of_the_readme_is_what_the_dialects_do() -> None:
    assert in_readme(README.read_text()) == table(), "run: python -m tests.parameter_table --write"


@pytest.mark.parametrize(("provider", "row"), CELLS, ids=str)
def test_what_is_refused_names_its_parameter_and_is_dropped_where_the_deployment_says_so(
    provider: str, row: str
) -> None:
    if becomes(provider, row) != REFUSED:
        return
    beside, asked = SAMPLES[row]
    with pytest.raises(InvalidRequest) as caught:
        sent(provider, {**beside, **asked})
    param = caught.value.param or ""
    named = param.split("[")[0].split(".")[0]
    assert named in {*beside, *asked, "messages"}
    assert sent(provider, {**beside, **asked}, drop_params=True)
    if named in asked and named != "messages":
        assert sent(provider, {**beside, **asked}, additional_drop_params=(*beside, *asked))
