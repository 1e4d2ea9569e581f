"""How many inputs the tests of parsers try, and the values that they are made of.

`CLEARCLIP_FUZZ` sets how many inputs each test tries; without it they are few, and the same ones
each time.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

COUNT = int(os.environ.get("CLEARCLIP_FUZZ", "0"))
FUZZ = settings(
    max_examples=COUNT or 150,
    derandomize=not COUNT,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NUMBERS = (
    st.integers(-3, 70_000)
    | st.floats()
    | st.sampled_from([0, 2**31, -(2**31), 2**63, 10**400, 1e308, True])
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=9)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
