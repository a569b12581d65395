"""The main job, both halves: a scorer fitted anew and compared with everything else on the bundled model, and sequence
models under identical training. Writes the results.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import salience
from salience.core import record
from salience.core.backend import resolve_device
from salience.core.progress import ProgressBars, progress_bars
from salience.lab.compare.config import CompareConfig
from salience.lab.compare.run import identity as compared
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.fit.fit_scorer import FitConfig, distil, load_target, make_target, prepare
from salience.lab.fit.fitted_scorers import scorers_for
from salience.lab.profile.machine_load import Machine
from salience.lab.result_cache import ResultCache
from salience.lab.study.sequence_half import compare_all, comparisons
from salience.lab.tradeoff import run as tradeoff
from salience.lab.tradeoff.config import TradeoffConfig, reads_keys
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.scorers.scorer import Scorer
from salience.vlm.tower.fingerprint import tower_fingerprint

RESULTS = "results.json"
SHUFFLED = "saliency-shuffled"


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """fit: of the scorer fitted anew and of its shuffled control   tradeoff: of the pruning methods' comparison
    compare: of sequence models, one a task."""

    fit: FitConfig = field(default_factory=FitConfig)
    tradeoff: TradeoffConfig = field(default_factory=TradeoffConfig)
    compare: tuple[CompareConfig, ...] = ()

    @staticmethod
    def of(*, quick: bool = False, seed: int = 0) -> StudyConfig:
        """The whole study, or `quick`: the same path on few pictures, to see that it works and not to measure."""
        if not quick:
            # Half of what `salience fit` takes by default: as good on validation pictures, to within a seed's spread.
            fit = FitConfig(pictures=160, seed=seed + 10)
            # Without .75: every method is within a point of all tokens there, and it costs as much as three others.
            # Three draws of random tokens: each draw's own interval over pictures is wider than their spread.
            compared = TradeoffConfig(
                keeps=(1.0, 0.5, 0.25, 0.1, 0.05, 0.025), draws=3, untrained=2, repeats=9, seed=seed
            )
            return StudyConfig(fit=fit, tradeoff=compared, compare=comparisons(seed=seed))
        fit = FitConfig(pictures=24, validation=8, questions=8, steps=60, keeps=(0.1,), seed=seed + 10)
        small = TradeoffConfig(
            keeps=(1.0, 0.25, 0.05), pictures=16, questions=8, probe_pictures=24, ceiling_pictures=6,
            control_pictures=8, control_shifts=1, draws=2, untrained=1, repeats=7, examples=2, seed=seed,
        )  # fmt: skip
        return StudyConfig(fit=fit, tradeoff=small, compare=comparisons(quick=True, seed=seed))


def run(
    out: str | Path,
    *,
    quick: bool = False,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    config: StudyConfig | None = None,
    model: Any = None,
    processor: Any = None,
) -> Path:
    """Run the study and write `<out>/results.json`, pictures of samples and the scorer fitted anew.

    A killed run of the same code and configuration goes on where it was; its quality columns come out the same.

    Args:    out: folder   quick: few pictures   device: "auto", "cpu", "cuda"...   quiet: no progress on stderr
             config: in place of what `quick` and `seed` stand for   model, processor: in place of the bundled ones
    Returns: the path of results.json
    Raises:  ValueError when the device is not there or the bundled model is missing
    """
    chosen = config or StudyConfig.of(quick=quick, seed=seed)
    machine = Machine()
    folder = Path(out)
    name = None
    if model is None:
        model, processor = _bundled(device)
        name = "salience/llava-scenes (bundled)"
    adapter = adapter_for(model)
    identity = {
        "fit": asdict(chosen.fit), "tradeoff": asdict(chosen.tradeoff), "model": tower_fingerprint(model),
        "compare": [compared(one) for one in chosen.compare], "torch": torch.__version__,
    }  # fmt: skip
    cache = ResultCache(folder, identity)
    with progress_bars(quiet=quiet) as bars:
        # One lot of training pictures serves both: the scorer learns on the first of them, the probe on all.
        pictures = max(chosen.fit.pictures, chosen.tradeoff.probe_pictures)
        train = prepare(
            adapter, processor, replace(chosen.fit, pictures=pictures), "train", bars, keys=reads_keys(chosen.tradeoff)
        )
        fresh, shuffled = _fitted(adapter, processor, chosen.fit, train.first(chosen.fit.pictures), cache, folder, bars)
        given = scorers_for(adapter)
        found = tradeoff.run(
            model, chosen.tradeoff, processor=processor, name=name, out=folder, train=train, cache=cache, bars=bars,
            scorers={**given, chosen.fit.seed: fresh}, controls={SHUFFLED: shuffled},
        )  # fmt: skip
        machine.sample()
        sequences = compare_all(chosen.compare, device=device, cache=cache, bars=bars)
    origin = {str(key): "bundled" for key in given} | {str(chosen.fit.seed): "fitted in this run"}
    found["config"]["scorer_origin"] = origin
    for one in (found, *sequences):
        one["config"]["quick"] = quick
    where = str(next(model.parameters()).device)
    path = record.write(
        folder / RESULTS, record.document([found, *sequences], device=where, machine=machine.observed())
    )
    cache.finish()
    return path


def _fitted(
    adapter: Adapter,
    processor: Any,
    config: FitConfig,
    train: EncodedPictures,
    cache: ResultCache,
    out: Path,
    bars: ProgressBars,
) -> tuple[Scorer, Scorer]:
    """A scorer fitted on these pictures, and one whose targets were shuffled within each picture."""
    aside = cache.path("fit")
    assert aside is not None  # a study always has a folder
    target = load_target(aside, lambda: make_target(adapter, processor, config, train, bars))
    fitted = []
    for name, one in (("saliency", config), (SHUFFLED, replace(config, shuffled=True))):
        folder = aside / name
        if not (folder / "config.json").is_file():
            distil(adapter, one, train, target, aside=aside / f"{name}.unfinished", bars=bars).save_pretrained(folder)
        fitted.append(Scorer.from_pretrained(folder))
    fitted[0].save_pretrained(out / "scorer")
    return fitted[0], fitted[1]


def _bundled(device: str) -> tuple[Any, Any]:
    """The bundled model on the device, in float32, and its processor."""
    folder = salience.bundled_model()
    if not (folder / "config.json").is_file():
        raise ValueError(f"the bundled model is missing from this installation ({folder}).")
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval().to(resolve_device(device)), AutoProcessor.from_pretrained(folder)
