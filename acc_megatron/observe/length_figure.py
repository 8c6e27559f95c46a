"""Histograms of document lengths by agent, in bins that follow the data."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from acc_megatron.common.html_page import Figure, matplotlib_text, svg

COLOURS = ("#1f5fa8", "#c8641b", "#3b8a4f", "#7a4ea3", "#8a6d3b")
FEWEST_BINS, MOST_BINS = 8, 30
FEWEST_DOCUMENTS = 5


def bin_edges(lengths: np.ndarray, num_documents: int) -> np.ndarray:
    """Bounds of bins of 1, 2 or 5 times a power of ten tokens from the shortest to the longest.

    There are at most twice the root of `num_documents`, the largest number in a panel, and at most 30.
    """
    most = min(MOST_BINS, max(FEWEST_BINS, round(2 * num_documents**0.5)))
    low, high = int(lengths.min()), int(lengths.max())
    widths = (factor * 10**power for power in range(12) for factor in (1, 2, 5))
    width = next(width for width in widths if high // width - low // width < most)
    return np.arange(low // width, high // width + 2) * width


def length_figure(lengths: Mapping[str, np.ndarray]) -> Figure | None:
    """Draw one panel an agent on one scale; None if there are too few documents, or all have the same length."""
    known = {agent: values for agent, values in lengths.items() if len(values)}
    together = np.concatenate([np.empty(0, np.int64), *known.values()])
    if len(together) < FEWEST_DOCUMENTS or together.min() == together.max():
        return None
    edges = bin_edges(together, max(map(len, known.values())))
    caption = f"Document lengths in bins of {edges[1] - edges[0]:,} tokens. The dashed line is the median."
    return Figure(_drawing(known, edges), caption)


def _drawing(lengths: Mapping[str, np.ndarray], edges: np.ndarray) -> Markup:
    import matplotlib.figure

    drawing = matplotlib.figure.Figure(figsize=(9, 0.7 + 1.5 * len(lengths)), layout="constrained")
    panels = drawing.subplots(len(lengths), 1, sharex=True, squeeze=False)[:, 0]
    for number, ((agent, values), axis) in enumerate(zip(lengths.items(), panels, strict=True)):
        axis.hist(values, bins=list(edges), color=COLOURS[number % len(COLOURS)], edgecolor="white", linewidth=0.4)
        axis.axvline(float(np.median(values)), color="#333", linewidth=1, linestyle="--")
        axis.set_ylabel("documents")
        axis.set_title(matplotlib_text(f"{agent}: {len(values):,} documents"), fontsize=10, loc="left")
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("tokens")
    panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return svg(drawing)
