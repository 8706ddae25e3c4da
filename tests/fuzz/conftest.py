"""How many cases are made: a few in every run of the tests, always the same; new ones in each round of `make fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fuzz.readers import FAILURES

any_case = settings(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("tests", any_case, max_examples=25, derandomize=True, database=None)
settings.register_profile(
    "fuzz", any_case, max_examples=200, database=DirectoryBasedExampleDatabase(FAILURES / "examples")
)
settings.load_profile("tests")
