"""The values that the inputs of the tests of parsers are made of."""

from hypothesis import strategies as st

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
