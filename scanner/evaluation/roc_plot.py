"""The ROC curves of bundles, on a logarithmic axis: a finder of rare objects lives at the left.

In: a :class:`~scanner.evaluation.comparison.Comparison`. Out: a PNG. Refused: folders that cannot be written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanner.errors import OutputError
from scanner.evaluation.comparison import Comparison
from scanner.evaluation.evaluate import choose

#: Scores drawn, where a bundle has them.
DRAWN = ("OU-VIS", "OU-200", "OU-66", "OU-JYH", "ranking", "calibrated", "mean")


def write_roc_plot(comparison: Comparison, path: Path) -> None:
    """Draw recall of visible lenses against the false-positive rate, one panel a bundle.

    Raises
    ------
    OutputError
        ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_curve

    chosen = choose(comparison.truth, "visible", "all")
    labels = comparison.truth.is_lens[chosen]
    bundles = comparison.evaluation.bundles
    figure = Figure(figsize=(4.8 * len(bundles), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(bundles), sharey=True))
    lowest = 1.0 / max(int((~labels).sum()), 1)
    for panel, bundle, scores in zip(panels, bundles, comparison.scores, strict=True):
        for name in DRAWN:
            if name in scores:
                fpr, recall, _ = roc_curve(labels, scores[name][chosen])
                panel.step(np.maximum(fpr, lowest / 2), recall, where="post", label=name, linewidth=1.2)
        panel.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1), xlabel="false-positive rate", title=bundle.name)
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", loc="upper left")
    panels[0].set_ylabel(f"recall of {int(labels.sum()):,} visible lenses")
    try:
        figure.savefig(path, dpi=130, metadata={"Software": None})
    except OSError as error:
        raise OutputError.of(path, error) from None
