"""A very small fully connected network that scores each token by itself."""

from __future__ import annotations

from torch import Tensor, nn

from salience.vlm.scorers.scorer_config import ScorerConfig


class MLP(nn.Module):
    """LayerNorm(d) -> Linear(d, hidden) -> GELU -> Linear(hidden, 1); a token's position is not used."""

    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.d_features)
        self.fc1 = nn.Linear(config.d_features, config.hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(config.hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., n, d) -> logits (..., n)."""
        hidden = self.act(self.fc1(self.norm(features)))  # (..., n, h)
        logits: Tensor = self.fc2(hidden).squeeze(-1)  # (..., n)
        return logits
