"""Hypothesis strategies of records that stand in messages."""

from hypothesis import strategies as st

from gardener.protocol.sampling import LOWEST, Sampling

token_ids = st.integers(0, 2**31)


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    """Any that may be, greedy or noisy, with a seed or without."""
    penalties = st.floats(-100, 100)
    biases = st.dictionaries(token_ids, penalties, max_size=4)
    return Sampling(
        temperature=draw(st.just(0.0) | st.floats(LOWEST, 100)),
        top_p=draw(st.floats(0, 1, exclude_min=True)),
        top_k=draw(st.integers(0, 2**31)),
        min_p=draw(st.floats(0, 1)),
        repetition_penalty=draw(st.floats(0.01, 100)),
        presence_penalty=draw(penalties),
        frequency_penalty=draw(penalties),
        logit_bias=tuple(draw(biases).items()),
        seed=draw(st.none() | st.integers(0, 2**63 - 1)),
        min_tokens=draw(st.integers(0, 2**31)),
        eos=tuple(draw(st.lists(token_ids, max_size=4))),
    )
