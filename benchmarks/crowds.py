"""Simulated crowds: votes weighted by skill against the majority, skill within its interval, and votes that retirement saves.

    python benchmarks/crowds.py [--draws 40]

Two experts, four novices, two who click at random and two who say the opposite of what they see give five votes to each of
3,000 objects, 600 of them lenses; of 300 the answer is known. The networks' probabilities are calibrated, with an AUROC of .86.
Everything is judged on the other 2,700. Each figure is the mean over the draws, with the 95% interval of the mean.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit, logit
from sklearn.metrics import log_loss, roc_auc_score

from scanner.grading.crowd import STATES, Votes, posterior, weights
from scanner.interval import wilson_interval

#: Probability of A, B, C, X for a lens, and for another object.
EXPERT = np.array([[0.55, 0.3, 0.1, 0.05], [0.01, 0.04, 0.15, 0.8]])
NOVICE = np.array([[0.3, 0.3, 0.25, 0.15], [0.1, 0.2, 0.3, 0.4]])
CROWD = np.array([*[EXPERT] * 2, *[NOVICE] * 4, *[np.full((2, 4), 0.25)] * 2, *[EXPERT[::-1]] * 2])
N, N_KNOWN, PER_OBJECT, SHARE = 3_000, 300, 5, 0.2
ABOVE, BELOW = 0.95, 0.01


def drawn(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    truth = rng.random(N) < SHARE
    finder = expit(logit(SHARE) + 1.5 * rng.standard_normal(N) + np.where(truth, 1.125, -1.125))
    is_lens = np.where(np.arange(N) < N_KNOWN, truth.astype(float), np.nan)
    objects, graders = np.repeat(np.arange(N), PER_OBJECT), rng.random((N, len(CROWD))).argsort(axis=1)[:, :PER_OBJECT].ravel()
    share = CROWD[graders, (~truth[objects]).astype(int)]
    grades = (rng.random((len(objects), 1)) > share.cumsum(axis=1)).sum(axis=1)
    order = rng.permutation(len(objects))
    votes = Votes(objects[order], graders[order], grades[order])
    judged = np.isnan(is_lens)
    found = posterior(votes, finder, weights(votes, is_lens, len(CROWD)), above=ABOVE, below=BELOW)
    best = posterior(votes, finder, np.log(CROWD[:, 0] / CROWD[:, 1])).probability
    majority = np.bincount(votes.objects, votes.grades <= 1, N) / PER_OBJECT
    inside = []
    for grader in range(len(CROWD)):
        for row, said in ((0, (0, 1)), (1, (3,))):
            mine = (votes.graders == grader) & (is_lens[votes.objects] == 1 - row)
            hits = int(np.isin(votes.grades[mine], said).sum())
            interval = wilson_interval(hits, int(mine.sum()))
            inside.append(interval.low <= CROWD[grader, row, list(said)].sum() <= interval.high)
    lens, other = (found.state == STATES.index(name) for name in ("lens", "other"))
    return {
        "AUROC, weighted by skill": roc_auc_score(truth[judged], found.probability[judged]),
        "AUROC, everybody's skill known exactly": roc_auc_score(truth[judged], best[judged]),
        "AUROC, majority": roc_auc_score(truth[judged], majority[judged]),
        "AUROC, networks": roc_auc_score(truth[judged], finder[judged]),
        "log loss, weighted by skill": log_loss(truth[judged], found.probability[judged]),
        "log loss, share of A and B": log_loss(truth[judged], np.clip(majority[judged], 0.01, 0.99)),
        "log loss, networks": log_loss(truth[judged], finder[judged]),
        "skills within their 95% interval": float(np.mean(inside)),
        "votes after the object was settled": float(found.late.mean()),
        "lenses among those settled as lenses": float(truth[lens & judged].mean()),
        "lenses among those settled as others": float(truth[other & judged].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=40)
    each = [drawn(seed) for seed in range(parser.parse_args().draws)]
    for name in each[0]:
        values = np.array([one[name] for one in each])
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        print(f"{name:40} {values.mean():.4f} [{values.mean() - half:.4f}, {values.mean() + half:.4f}]")


if __name__ == "__main__":
    main()
