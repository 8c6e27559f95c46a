"""Document lengths that resemble the published ACC dataset, for plans and benchmarks without it."""

import numpy as np

NUM_DOCUMENTS = 10_802


def acc_like_lengths(num_documents: int, longest_tokens: int, seed: int) -> list[int]:
    """Draw document lengths that match the published quantiles; the full distribution is not published.

    Search is lognormal around 42K tokens, SWE uniform from 6K and SQL lognormal around 11K, in the published
    proportions.
    """
    rng = np.random.default_rng(seed)
    num_search, num_swe = round(num_documents * 3369 / 10_802), round(num_documents * 4368 / 10_802)
    lengths = np.concatenate(
        [
            rng.lognormal(np.log(42_000), 0.6, num_search),
            rng.uniform(6_000, 128_000, num_swe),
            rng.lognormal(np.log(11_000), 0.8, num_documents - num_search - num_swe),
        ]
    )
    return lengths.clip(2_000, longest_tokens).astype(int).tolist()
