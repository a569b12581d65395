"""Training of a saliency scorer for a frozen vision-language model, and the scorers that a model has.

The pictures are encoded once and the target is computed once. Then a small MLP learns to predict, from the vision
features alone, the attention of the model's own questions. The model only ever runs forward.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.files import write_atomic
from salience.core.progress import ProgressBars, progress_bars
from salience.lab.evaluate.packing import can_pack
from salience.lab.fit.attention_source import candidate_sources
from salience.lab.fit.config import OBJECTIVES, FitConfig
from salience.lab.fit.question_attention import require_attention
from salience.lab.fit.training_pictures import PackedPictures, PerToken, TrainingPictures, ViewPictures, prepare
from salience.lab.train import checkpoint
from salience.lab.train.schedule import warmup_cosine
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.methods.saliency import Saliency
from salience.vlm.model_scorer import model_scorer, require_same_tower
from salience.vlm.scorers.scorer import Scorer, untrained_scorer


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """Training target. shares: float32, adding up to 1 in each picture or view   about: its origin, as JSON"""

    shares: PerToken
    about: Mapping[str, Any]


def fit(model: Any, config: FitConfig, *, processor: Any, out: str | Path, quiet: bool = False) -> Path:
    """Fit a scorer and write its folder (config.json, model.safetensors) to `out`.

    While it runs, `.<name>.unfinished` beside `out` holds the target and checkpoints. A killed run of the same model
    and configuration continues from there and ends with the same weights.

    Args:    model: a transformers VLM of a known family, left as it is   processor: its processor
    Returns: the scorer's folder
    Raises:  ValueError for a model of an unknown family, one whose attention can't be read, or an unknown task
    """
    target_folder = Path(out)
    adapter = adapter_for(model)
    require_attention(adapter)
    aside = target_folder.parent / f".{target_folder.name}.unfinished"
    checkpoint.claim(aside, {"config": config.describe(), "model": adapter.fingerprint(), "torch": torch.__version__})
    with progress_bars(quiet=quiet) as bars:
        pictures: TrainingPictures = ViewPictures(adapter, processor, config, bars)
        if can_pack(adapter):
            train = prepare(adapter, processor, config, "train", bars)
            pictures = PackedPictures(adapter, processor, config, bars, train)
        target = load_target(aside, lambda: make_target(adapter, config, pictures))
        scorer = distil(adapter, config, pictures.features, target, aside=aside, bars=bars)
    scorer.save_pretrained(target_folder)
    shutil.rmtree(aside, ignore_errors=True)
    return target_folder


def make_target(adapter: Adapter, config: FitConfig, pictures: TrainingPictures) -> Target:
    """Return the attention to learn, of the configured source or of the best one on validation pictures."""
    source, tried = config.source, list[dict[str, Any]]()
    if source is None:
        source, tried = pictures.choose_source(candidate_sources(adapter))
    return Target(shares=pictures.shares(source), about={"look": asdict(source), "tried": tried})


def distil(
    adapter: Adapter, config: FitConfig, features: PerToken, target: Target, *, aside: Path | None, bars: ProgressBars
) -> Scorer:
    """Train the scorer on features and their target. aside: folder of checkpoints, to continue from the last one

    Raises:  ValueError where the weights are not finite in the end
    """
    shares = _shuffled(target.shares, config.seed) if config.shuffled else target.shares
    device = features.device if isinstance(features, Tensor) else adapter.device
    shares = shares.to(device) if isinstance(shares, Tensor) else shares
    first = untrained_scorer(adapter.d_features, seed=config.seed, hidden=config.hidden)
    scorer = Scorer(
        adapter.d_features,
        hidden=config.hidden,
        objective=config.objective,
        model=adapter.fingerprint(),
        training={**config.describe(), **target.about},
    )
    scorer.load_state_dict(first.state_dict())
    scorer.to(device).train()
    optimiser = torch.optim.AdamW(scorer.parameters(), lr=config.rate, weight_decay=config.decay)
    found = None if aside is None else checkpoint.resume(aside, scorer, optimiser)
    done: int = found["done"] if found else 0
    with bars.bar("fitting the scorer", config.steps) as tick:
        tick(done)
        for step in range(done, config.steps):
            _step(scorer, optimiser, config, features, shares, step)
            tick()
            if aside is not None and (step + 1) % config.save_every == 0:
                checkpoint.save(aside, scorer, optimiser, {"done": step + 1})
    if not all(bool(value.isfinite().all()) for value in scorer.parameters()):
        raise ValueError(
            f"the scorer's weights are no longer finite after {config.steps} steps: use a rate below {config.rate:g}, "
            "or a model in float32 whose features are finite."
        )
    return scorer.cpu().eval()


def _step(
    scorer: Scorer, optimiser: torch.optim.Optimizer, config: FitConfig, features: PerToken, shares: PerToken, step: int
) -> None:
    # The draw depends on seed and step alone, so a resumed run draws the same pictures as an uninterrupted one.
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chosen = torch.randperm(len(features), generator=generator)[: config.batch]
    for group in optimiser.param_groups:
        group["lr"] = config.rate * warmup_cosine(step, config.steps)
    loss = _loss(scorer, config, features, shares, chosen)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _loss(scorer: Scorer, config: FitConfig, features: PerToken, shares: PerToken, chosen: Tensor) -> Tensor:
    """Mean loss over the chosen pictures or views, which may differ in size."""
    objective = OBJECTIVES[config.objective]
    if isinstance(features, Tensor) and isinstance(shares, Tensor):
        return objective(scorer(features[chosen]), shares[chosen])
    device = next(scorer.parameters()).device
    views = [features[i] for i in chosen.tolist()]
    logits = torch.split(scorer(torch.cat(views).to(device)), [len(view) for view in views])
    wanted = [shares[i].to(device) for i in chosen.tolist()]
    return torch.stack([objective(a[None], b[None]) for a, b in zip(logits, wanted, strict=True)]).mean()


def _shuffled(shares: PerToken, seed: int) -> PerToken:
    """Permute the shares among the tokens of each picture or view."""
    generator = torch.Generator().manual_seed(seed)
    mixed = [view[torch.randperm(len(view), generator=generator)] for view in shares]
    return torch.stack(mixed) if isinstance(shares, Tensor) else mixed


def load_target(aside: Path, make: Callable[[], Target]) -> Target:
    """Return the target that the folder `aside` stores; else make it and store it."""
    from safetensors import safe_open
    from safetensors.torch import save

    file = aside / "target.safetensors"
    if not file.is_file():
        target = make()
        if isinstance(target.shares, Tensor):
            tensors = {"shares": target.shares.contiguous()}
        else:
            sizes = torch.tensor([len(view) for view in target.shares])
            tensors = {"shares": torch.cat(list(target.shares)), "sizes": sizes}
        write_atomic(file, save(tensors, metadata={"about": json.dumps(target.about)}))
    with safe_open(file, framework="pt") as stored:
        found: Tensor = stored.get_tensor("shares")
        views = stored.get_tensor("sizes").tolist() if "sizes" in stored.keys() else None  # noqa: SIM118
        about = json.loads(stored.metadata()["about"])
    return Target(shares=found if views is None else torch.split(found, views), about=about)


def scorers_for(adapter: Adapter) -> dict[int, Scorer]:
    """Return seed -> scorer for all scorers that were made for exactly this model; the next number without a seed.

    They lie in `salience` in the model's folder or hub repository and its subfolders `seed-*`, else they are the
    bundled ones.

    Raises:  ValueError where one in the model's own folder was trained on another vision tower
    """
    home = model_scorer(adapter).folder
    if home is None:
        return {}
    found: dict[int, Scorer] = {}
    for folder in [home, *sorted(home.glob("seed-*"))]:
        scorer = Scorer.from_pretrained(folder)
        require_same_tower(Saliency(scorer=scorer), adapter)
        training: Any = scorer.config.training or {}
        seed = training.get("seed", len(found))
        found[seed if seed not in found else max(found) + 1] = scorer
    return found
