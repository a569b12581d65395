"""Training pictures of a scorer, with one interface for two engines.

`PackedPictures` runs all questions of a picture at once, for LLaVA-1.5-like models. `ViewPictures` runs each question
by itself through the model's own forward, for any family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from salience.core.progress import ProgressBars
from salience.core.types import Selection
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures, load_pictures
from salience.lab.evaluate.packed_answers import answer
from salience.lab.fit.attention_source import AttentionSource, best_source, top_tokens
from salience.lab.fit.config import FitConfig
from salience.lab.fit.picture_views import answered, view_picture
from salience.lab.fit.question_attention import text_saliency, view_saliency
from salience.vlm.families import Adapter

#: One tensor (P, n, ...) for pictures of one size, else (n_i, ...) for each view of each picture.
PerToken = Tensor | Sequence[Tensor]
Chosen = tuple[AttentionSource, list[dict[str, Any]]]


def draw(config: FitConfig, split: str, bars: ProgressBars) -> list[list[Sample]]:
    """Return the pictures of "train" or "val", each with its samples."""
    count = config.pictures if split == "train" else config.validation
    with bars.bar(f"drawing {split} pictures", 1) as tick:
        groups = load_pictures(config.task, split=split, pictures=count, questions=config.questions, seed=config.seed)
        tick()
    return groups


def prepare(
    adapter: Adapter, processor: Any, config: FitConfig, split: str, bars: ProgressBars, *, keys: bool = False
) -> EncodedPictures:
    """Draw and encode the pictures of "train" or "val". keys: with the attention keys of the vision tower"""
    groups = draw(config, split, bars)
    with bars.bar(f"encoding {split} pictures", len(groups)) as tick:
        return encode_pictures(adapter, processor, groups, keys=keys, tick=tick)


@dataclass(eq=False)
class PackedPictures:
    """Pictures of one size whose questions run together. train: the training pictures"""

    adapter: Adapter
    processor: Any
    config: FitConfig
    bars: ProgressBars
    train: EncodedPictures

    @property
    def features(self) -> Tensor:
        """Vision features of the training pictures, (P, n, d)."""
        return self.train.features

    def choose_source(self, sources: Sequence[AttentionSource]) -> Chosen:
        """Return the source whose highest-ranked tokens answer best, and the measures of all sources as JSON.

        The validation pictures keep the tokens that the source's exact attention ranks highest, as a perfect scorer
        would, and the frozen model answers. Measures are means over the keep ratios `FitConfig.keeps`.
        """
        chosen_on = prepare(self.adapter, self.processor, self.config, "val", self.bars)
        with self.bars.bar("choosing the attention source", len(sources)) as tick:
            accuracies = []
            for shares in text_saliency(self.adapter, chosen_on, sources):
                kept = [[top_tokens(each, keep) for each in shares] for keep in self.config.keeps]
                reached = [answer(self.adapter, chosen_on, tokens).accuracy for tokens in kept]
                accuracies.append(sum(reached) / len(reached))
                tick()
        return best_source(sources, [{"accuracy": accuracy} for accuracy in accuracies])

    def shares(self, source: AttentionSource) -> Tensor:
        """Return each token's share of the source's attention on the training pictures, (P, n)."""
        with self.bars.bar("attention of the training questions", len(self.train)) as tick:
            return text_saliency(self.adapter, self.train, [source], tick=tick)[0]


@dataclass(eq=False)
class ViewPictures:
    """Pictures of any family, in views of n_i tokens. Features (n_i, d) and shares (n_i,) of each are on the CPU."""

    adapter: Adapter
    processor: Any
    config: FitConfig
    bars: ProgressBars
    _features: list[Tensor] = field(default_factory=list, init=False)

    @property
    def features(self) -> list[Tensor]:
        if not self._features:
            self._encode("encoding train pictures", None)
        return self._features

    def choose_source(self, sources: Sequence[AttentionSource]) -> Chosen:
        """See `PackedPictures`. Of sources with equal accuracy the one whose true answers are likeliest wins."""
        groups = draw(self.config, "val", self.bars)
        right, likely = torch.zeros(2, len(sources), dtype=torch.float64).unbind()
        asked = len(self.config.keeps) * sum(map(len, groups))
        with self.bars.bar("choosing the attention source", len(groups)) as tick:
            for group in groups:
                picture = view_picture(self.adapter, self.processor, group)
                for index, shares in enumerate(view_saliency(self.adapter, picture, sources)):
                    for keep in self.config.keeps:
                        kept = [Selection(kept=top_tokens(part, keep)) for part in shares]
                        correct, log_probs = answered(self.adapter, self.processor.tokenizer, picture, kept)
                        right[index] += sum(correct)
                        likely[index] += sum(log_probs)
                tick()
        means = zip((right / asked).tolist(), (likely / asked).tolist(), strict=True)
        return best_source(sources, [{"accuracy": hits, "answer_log_prob": log} for hits, log in means])

    def shares(self, source: AttentionSource) -> list[Tensor]:
        return self._encode("attention of the training questions", source)

    def _encode(self, label: str, source: AttentionSource | None) -> list[Tensor]:
        """Encode the training pictures. Returns: the shares of each view; none without a source."""
        self._features, shares = [], []
        groups = draw(self.config, "train", self.bars)
        with self.bars.bar(label, len(groups)) as tick:
            for group in groups:
                picture = view_picture(self.adapter, self.processor, group, questions=source is not None)
                self._features += [tokens.cpu() for tokens in picture.encoded.views]
                shares += [] if source is None else view_saliency(self.adapter, picture, [source])[0]
                tick()
        return shares


TrainingPictures = PackedPictures | ViewPictures
