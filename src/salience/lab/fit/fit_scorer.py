"""Train a saliency scorer for a frozen vision-language model.

Pictures are encoded once and the target is computed once; then a tiny MLP learns, from the features alone, where the
model's own questions look. The model is only ever run forward.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salience.core.files import write_atomic
from salience.core.progress import ProgressBars, progress_bars
from salience.lab.data.scenes import Sample
from salience.lab.evaluate.encoded_pictures import EncodedPictures, encode_pictures, load_pictures
from salience.lab.evaluate.packing import can_pack
from salience.lab.fit.attention_source import candidate_looks, choose_look
from salience.lab.fit.objectives import OBJECTIVES
from salience.lab.fit.text_saliency import Look, text_saliency
from salience.lab.fit.view_saliency import choose_viewed_look, require_attention, views_and_shares
from salience.lab.train import checkpoint
from salience.lab.train.schedule import warmup_cosine
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.scorers.scorer import Scorer, untrained_scorer


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a scorer is fitted.

    pictures, validation: how many of the training and validation splits   questions: at most so many a picture
    look: whose attention is the target; None to choose on the validation pictures at the ratios `keeps`
    hidden: the scorer's width   steps, batch (pictures, or a family's views of them), rate, decay: AdamW under a cosine
    with a short warm-up
    shuffled: permute each picture's targets among its tokens: a control that must end up no better than random
    """

    task: str = "scenes"
    objective: str = "attention"
    pictures: int = 300
    validation: int = 32
    questions: int = 16
    look: Look | None = None
    keeps: tuple[float, ...] = (0.05,)
    hidden: int = 64
    steps: int = 800
    batch: int = 16
    rate: float = 1e-2
    decay: float = 1e-2
    shuffled: bool = False
    seed: int = 0
    save_every: int = field(default=100, compare=False)

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}.")
        for name in ("pictures", "validation", "questions", "hidden", "steps", "batch", "save_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"rate must be a number above 0, not {self.rate!r}.")

    def describe(self) -> dict[str, Any]:
        """Fit for JSON, without what has no influence on the result."""
        return {key: value for key, value in asdict(self).items() if key != "save_every"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """shares: (P, n) float32, each picture's adding up to 1, or (n_i,) for each of several views
    about: how they came to be, fit for JSON"""

    shares: Tensor | Sequence[Tensor]
    about: Mapping[str, Any]


@dataclass(kw_only=True, eq=False)
class Views:
    """The training pictures of a family whose questions can't be packed. features: (n_i, d) for each view of each"""

    features: Sequence[Tensor] = ()


def fit(
    model: Any,
    config: FitConfig,
    *,
    processor: Any,
    out: str | Path,
    quiet: bool = False,
) -> Path:
    """Fit a scorer and write its folder (config.json, model.safetensors) to `out`.

    While it runs, `.<name>.unfinished` beside `out` holds the targets and checkpoints: a killed run of the same model
    and configuration goes on from there and ends with the same weights.

    Args:    model: a transformers VLM of a known family, left as it is   processor: its processor
    Returns: the scorer's folder
    Raises:  ValueError for a model of no known family, one whose attention can't be read, or a task that is not there
    """
    target_folder = Path(out)
    adapter = adapter_for(model)
    require_attention(adapter)
    aside = target_folder.parent / f".{target_folder.name}.unfinished"
    checkpoint.claim(aside, {"config": config.describe(), "model": adapter.fingerprint(), "torch": torch.__version__})
    with progress_bars(quiet=quiet) as bars:
        train, target = _lessons(adapter, processor, config, aside, bars)
        scorer = distil(adapter, config, train, target, aside=aside, bars=bars)
    scorer.save_pretrained(target_folder)
    shutil.rmtree(aside, ignore_errors=True)
    return target_folder


def _lessons(
    adapter: Adapter, processor: Any, config: FitConfig, aside: Path, bars: ProgressBars
) -> tuple[EncodedPictures | Views, Target]:
    """What a scorer learns from; the target stored in `aside` where it is there."""
    if can_pack(adapter):
        train = prepare(adapter, processor, config, "train", bars)
        return train, load_target(aside, lambda: make_target(adapter, processor, config, train, bars))
    groups, views = _drawn(config, "train", bars), Views()

    def make() -> Target:
        look = config.look
        tried: list[dict[str, Any]] = []
        if look is None:
            validation = _drawn(config, "val", bars)
            with bars.bar("choosing whose attention", len(validation)) as tick:
                look, tried = choose_viewed_look(
                    adapter, processor, validation, candidate_looks(adapter), config.keeps, tick=tick
                )
        with bars.bar("attention of the training questions", len(groups)) as tick:
            views.features, shares = views_and_shares(adapter, processor, groups, look, tick=tick)
        return Target(shares=shares, about={"look": look.describe(), "tried": tried})

    target = load_target(aside, make)
    if not views.features:  # the target was there
        with bars.bar("encoding train pictures", len(groups)) as tick:
            views.features, _ = views_and_shares(adapter, processor, groups, None, tick=tick)
    return views, target


def _drawn(config: FitConfig, split: str, bars: ProgressBars) -> list[list[Sample]]:
    """The pictures of a split, each with its samples."""
    count = config.pictures if split == "train" else config.validation
    with bars.bar(f"drawing {split} pictures", 1) as tick:
        groups = load_pictures(config.task, split=split, pictures=count, questions=config.questions, seed=config.seed)
        tick()
    return groups


def prepare(
    adapter: Adapter, processor: Any, config: FitConfig, split: str, bars: ProgressBars, *, keys: bool = False
) -> EncodedPictures:
    """The pictures that a fit learns from ("train") or chooses on ("val"), encoded; `keys`: with the tower's."""
    groups = _drawn(config, split, bars)
    with bars.bar(f"encoding {split} pictures", len(groups)) as tick:
        return encode_pictures(adapter, processor, groups, keys=keys, tick=tick)


def make_target(
    adapter: Adapter, processor: Any, config: FitConfig, train: EncodedPictures, bars: ProgressBars, *,
    validation: EncodedPictures | None = None,
) -> Target:  # fmt: skip
    """The attention to learn on the training pictures; whose it is, is chosen on validation pictures."""
    look = config.look
    tried: list[dict[str, Any]] = []
    if look is None:
        looks = candidate_looks(adapter)
        validation = validation or prepare(adapter, processor, config, "val", bars)
        with bars.bar("choosing whose attention", len(looks)) as tick:
            look, tried = choose_look(adapter, validation, looks, config.keeps, tick=tick)
    with bars.bar("attention of the training questions", len(train)) as tick:
        shares = text_saliency(adapter, train, [look], tick=tick)[0]
    return Target(shares=shares, about={"look": look.describe(), "tried": tried})


def distil(
    adapter: Adapter, config: FitConfig, train: EncodedPictures | Views, target: Target, *, aside: Path | None,
    bars: ProgressBars,
) -> Scorer:  # fmt: skip
    """Train the scorer on encoded pictures; with a folder `aside`, from its last checkpoint on."""
    shares = _shuffled(target.shares, config.seed) if config.shuffled else target.shares
    device = train.features.device if isinstance(train.features, Tensor) else adapter.device
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
            _step(scorer, optimiser, config, train.features, shares, step)
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
    scorer: Scorer,
    optimiser: torch.optim.Optimizer,
    config: FitConfig,
    features: Tensor | Sequence[Tensor],
    shares: Tensor | Sequence[Tensor],
    step: int,
) -> None:
    # The draw depends on seed and step alone, so a run that goes on draws what an unbroken one would have drawn.
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chosen = torch.randperm(len(features), generator=generator)[: config.batch]
    for group in optimiser.param_groups:
        group["lr"] = config.rate * warmup_cosine(step, config.steps)
    loss = _loss(scorer, config, features, shares, chosen)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _loss(
    scorer: Scorer, config: FitConfig, features: Tensor | Sequence[Tensor], shares: Tensor | Sequence[Tensor],
    chosen: Tensor,
) -> Tensor:  # fmt: skip
    """Mean over the pictures or views `chosen`, which need not be of one size."""
    objective = OBJECTIVES[config.objective]
    if isinstance(features, Tensor) and isinstance(shares, Tensor):
        return objective(scorer(features[chosen]), shares[chosen])
    device = next(scorer.parameters()).device
    views = [features[i] for i in chosen.tolist()]
    logits = torch.split(scorer(torch.cat(views).to(device)), [len(view) for view in views])
    wanted = [shares[i].to(device) for i in chosen.tolist()]
    return torch.stack([objective(a[None], b[None]) for a, b in zip(logits, wanted, strict=True)]).mean()


def _shuffled(shares: Tensor | Sequence[Tensor], seed: int) -> Tensor | Sequence[Tensor]:
    """Each picture's shares, permuted among its tokens."""
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(shares, Tensor):
        return [view[torch.randperm(len(view), generator=generator)] for view in shares]
    order = torch.stack([torch.randperm(shares.shape[1], generator=generator) for _ in range(len(shares))])
    return shares.gather(1, order)


def load_target(aside: Path, make: Callable[[], Target]) -> Target:
    """The target stored in the folder `aside`, else a made one, stored."""
    from safetensors import safe_open
    from safetensors.torch import save

    file = aside / "target.safetensors"
    if not file.is_file():
        target = make()
        about = {"about": json.dumps(target.about)}
        shares = target.shares
        tensors = {"shares": shares} if isinstance(shares, Tensor) else {
            "shares": torch.cat(list(shares)), "sizes": torch.tensor([len(view) for view in shares])
        }  # fmt: skip
        write_atomic(file, save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=about))
    with safe_open(file, framework="pt") as stored:
        found: Tensor = stored.get_tensor("shares")
        views = stored.get_tensor("sizes").tolist() if "sizes" in stored.keys() else None  # noqa: SIM118
        about = json.loads(stored.metadata()["about"])
    return Target(shares=found if views is None else torch.split(found, views), about=about)
