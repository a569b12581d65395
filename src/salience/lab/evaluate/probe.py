"""Probe of information loss: a small classifier that reads the kept tokens, trained anew for each method and ratio.

It names the (digit, colour) pairs in a picture. A small network gives each token a weight (whether it belongs to an
item) and distributions over digits and colours. A pair's rate is the sum over tokens of weight x digit share x colour
share; the pair is present with probability 1 - exp(-rate). A sum is not diluted by background tokens, as a mean is.

Accuracy: of the m pairs in a picture, the share among the m that are rated highest. (Yes-or-no accuracy would start at
92 %, because 74 of 80 pairs are absent.) The majority line always names the commonest pairs of the training pictures.

Glossary: P pictures, k tokens of a picture after the projector, d their width, w whitened directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from salience.lab.data.scene_pictures import COLOURS, Item

DIGITS = 10
PAIRS = DIGITS * len(COLOURS)

_DIRECTIONS = 48  # whitened principal directions; on validation pictures 48 read .93, 64 .92 and all 256 overfit
_HIDDEN = 32
_EPOCHS = 40
_BATCH = 32
_RATE = 1e-2
_PCA_TOKENS = 30_000


def pair_labels(items: Sequence[Sequence[Item]]) -> Tensor:
    """(P, 80) float64 of 0 and 1: which (digit, colour) pairs each picture holds."""
    labels = torch.zeros(len(items), PAIRS, dtype=torch.float64)
    for picture, found in enumerate(items):
        for item in found:
            labels[picture, item.digit * len(COLOURS) + COLOURS.index(item.colour)] = 1.0
    return labels


class _TokenReader(nn.Module):
    """Whitened tokens (P, k, w) -> log rates (P, 80) of the pairs."""

    def __init__(self, directions: int, tokens: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(directions, _HIDDEN), nn.GELU())
        self.digit = nn.Linear(_HIDDEN, DIGITS)
        self.colour = nn.Linear(_HIDDEN, len(COLOURS))
        self.weight = nn.Linear(_HIDDEN, 1)
        with torch.no_grad():
            for linear in (self.hidden[0], self.digit, self.colour, self.weight):
                assert isinstance(linear, nn.Linear)
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.zero_()
        nn.init.constant_(self.weight.bias, -math.log(max(1, tokens)))  # a picture starts with about one item

    def forward(self, tokens: Tensor, real: Tensor | None) -> Tensor:
        hidden = self.hidden(tokens)  # (P, k, hidden)
        digit = self.digit(hidden).softmax(-1)  # (P, k, 10)
        colour = self.colour(hidden).softmax(-1)  # (P, k, 8)
        weight = self.weight(hidden).exp()  # (P, k, 1)
        if real is not None:
            weight = weight * real[..., None]
        rates = digit.transpose(1, 2) @ (weight * colour)  # (P, 10, 8)
        log_rates: Tensor = rates.flatten(1).clamp_min(1e-8).log()
        return log_rates


def _loss(log_rates: Tensor, labels: Tensor) -> Tensor:
    """Negative log likelihood of the pairs, a picture's sum, mean over pictures."""
    rates = log_rates.exp()
    present = -torch.log(-torch.expm1(-rates).clamp(max=-1e-7))
    return torch.where(labels > 0, present, rates).sum(1).mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A trained probe. mean: (d,)   whiten: (d, w)"""

    mean: Tensor
    whiten: Tensor
    reader: _TokenReader

    @torch.no_grad()
    def rate(self, tokens: Sequence[Tensor]) -> Tensor:
        """(P, 80) ratings, from each picture's tokens (k_i, d)."""
        log_rates: Tensor = self.reader(*self.read(tokens))
        return log_rates

    def read(self, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Whitened tokens (P, k, w), and (P, k) bool of those that are not padding; None where all are."""
        lengths = torch.tensor([len(one) for one in tokens])
        padded = nn.utils.rnn.pad_sequence([(one.float() - self.mean) @ self.whiten for one in tokens], True)
        if bool((lengths == lengths[0]).all()):
            return padded, None
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def fit_probe(tokens: Sequence[Tensor], labels: Tensor, *, seed: int = 0) -> Probe:
    """Train on pictures whose pairs are known; the same input and seed give the same probe.

    Args:    tokens: for each picture (k_i, d), on the CPU   labels: (P, 80)
    """
    generator = torch.Generator().manual_seed(seed)  # of its own: studies run in several threads
    with torch.enable_grad():
        mean, whiten = _whitening(torch.cat(list(tokens)))
        longest = max(map(len, tokens))
        probe = Probe(mean=mean, whiten=whiten, reader=_TokenReader(whiten.shape[1], longest, generator))
        read, real = probe.read(tokens)
        wanted = labels.float()
        steps = _EPOCHS * math.ceil(len(read) / _BATCH)
        optimizer = torch.optim.AdamW(probe.reader.parameters(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
        for _ in range(_EPOCHS):
            for batch in torch.split(torch.randperm(len(read), generator=generator), _BATCH):
                optimizer.zero_grad()
                log_rates = probe.reader(read[batch], None if real is None else real[batch])
                torch.autograd.backward(_loss(log_rates, wanted[batch]))
                optimizer.step()
                schedule.step()
    return probe


def _whitening(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and (d, w): the principal directions of tokens (N, d), each scaled to unit variance."""
    sample = tokens[:: max(1, len(tokens) // _PCA_TOKENS)].float()
    spread, directions = torch.linalg.eigh(torch.cov(sample.T).double())
    kept = spread > 1e-6 * spread[-1]
    kept[:-_DIRECTIONS] = False
    return sample.mean(0), (directions[:, kept] / spread[kept].sqrt()).float()


def named_share(ratings: Tensor, labels: Tensor) -> float:
    """Of the m pairs in a picture, the share among the m rated highest; mean over pictures. Both (P, 80)."""
    shares = []
    for rated, there in zip(ratings, labels, strict=True):
        m = int(there.sum())
        shares.append(float(there[rated.sort(descending=True, stable=True).indices[:m]].sum()) / m)
    return sum(shares) / len(shares)


def majority_line(train_labels: Tensor, test_labels: Tensor) -> float:
    """The accuracy of always naming the pairs that are commonest in the training pictures."""
    return named_share(train_labels.mean(0).expand_as(test_labels), test_labels)
