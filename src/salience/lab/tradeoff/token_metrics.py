"""Metrics of the information in the kept tokens, independent of the model's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cosine_similarity

from salience.core.result_object import ResultObject
from salience.lab.evaluate.probe import fit_probe, named_share
from salience.lab.tradeoff.encoded_task import EncodedTask, KeptTokens


@dataclass(frozen=True, kw_only=True)
class TokenMetrics(ResultObject):
    """Columns of a `TradeoffRow` on the information in the kept tokens; None where not measured.

    probe_accuracy: share of the (digit, colour) pairs that a probe names, trained anew on the kept training tokens
    feature_cosine: between the mean of the kept projected tokens and that of all, mean over pictures
    saliency_mass: share kept of the unpruned model's text-to-image attention, mean over pictures
    item_share: share of the kept tokens that lie on items, mean over pictures
    """

    probe_accuracy: float | None = None
    feature_cosine: float | None = None
    saliency_mass: float | None = None
    item_share: float | None = None


def token_metrics(task: EncodedTask, test: KeptTokens, train: KeptTokens | None) -> TokenMetrics:
    """Return every metric of the tokens that were kept of the test pictures.

    train: what the same method kept of the training pictures; None leaves the probe out
    """
    projected, cuts = test.projected(), list(zip(test.which, test.kept, strict=True))
    named = None
    if train is not None and task.train_labels is not None:
        named = named_share(fit_probe(train.projected(), task.train_labels).rate(projected), task.test_labels)
    whole = test.pictures.projected.float().mean(1).cpu()[list(test.which)]
    pooled = torch.stack([tokens.mean(0) for tokens in projected])  # (pictures, d_llm)
    on_items = torch.stack([task.on_items[picture][kept].float().mean() for picture, kept in cuts])
    return TokenMetrics(
        probe_accuracy=named,
        feature_cosine=float(cosine_similarity(pooled, whole, dim=-1).mean()),
        saliency_mass=sum(float(task.attention[picture, kept].sum()) for picture, kept in cuts) / len(cuts),
        item_share=float(on_items.mean()),
    )
