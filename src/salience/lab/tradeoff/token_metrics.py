"""Metrics of the kept tokens themselves: what is left in them, whatever the model answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity

from salience.core.result_object import ResultObject
from salience.lab.evaluate.probe import fit_probe, named_share
from salience.lab.tradeoff.encoded_task import EncodedTask, KeptTokens


def probe_accuracy(task: EncodedTask, test: KeptTokens, train: KeptTokens | None) -> float | None:
    """Share of the (digit, colour) pairs that a probe names, which is trained anew on the kept training tokens."""
    if train is None or task.train_labels is None:
        return None
    probe = fit_probe(train.projected(), task.train_labels)
    return named_share(probe.rate(test.projected()), task.test_labels)


def feature_cosine(test: KeptTokens) -> float:
    """Cosine between the mean of the kept projected tokens and that of all, mean over pictures."""
    whole = test.pictures.projected.float().mean(1).cpu()[list(test.which)]
    pooled = torch.stack([tokens.mean(0) for tokens in test.projected()])  # (pictures, d_llm)
    return float(cosine_similarity(pooled, whole, dim=-1).mean())


def saliency_mass(task: EncodedTask, test: KeptTokens) -> float:
    """Share kept of the unpruned model's text-to-image attention, mean over pictures."""
    pairs = zip(test.which, test.kept, strict=True)
    return sum(float(task.attention[picture, kept].sum()) for picture, kept in pairs) / len(test.kept)


def item_share(task: EncodedTask, test: KeptTokens) -> float:
    """Share of the kept tokens that lie on items, mean over pictures."""
    pairs = zip(test.which, test.kept, strict=True)
    return float(torch.stack([task.on_items[picture][kept].float().mean() for picture, kept in pairs]).mean())


@dataclass(frozen=True, kw_only=True)
class TokenMetrics(ResultObject):
    """Columns of a `TradeoffRow` that say what is left in the kept tokens; None for what was not measured."""

    probe_accuracy: float | None = None
    feature_cosine: float | None = None
    saliency_mass: float | None = None
    item_share: float | None = None


def token_metrics(task: EncodedTask, test: KeptTokens, train: KeptTokens | None) -> TokenMetrics:
    """Return every metric of the tokens that were kept of the test pictures.

    train: what the same method kept of the training pictures; None leaves the probe out
    """
    return TokenMetrics(
        probe_accuracy=probe_accuracy(task, test, train),
        feature_cosine=feature_cosine(test),
        saliency_mass=saliency_mass(task, test),
        item_share=item_share(task, test),
    )
