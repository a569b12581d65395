"""The main study: a new scorer compared with everything else on the bundled model, and sequence models under identical
training. Writes the results.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from salience.core import record
from salience.core.backend import resolve_device
from salience.core.files import bundled_model
from salience.core.progress import ProgressBars, progress_bars
from salience.lab.compare.run import compare, identity
from salience.lab.evaluate.encoded_pictures import EncodedPictures
from salience.lab.fit.config import FitConfig
from salience.lab.fit.fit_scorer import distil, load_target, make_target, scorers_for
from salience.lab.fit.training_pictures import PackedPictures, prepare
from salience.lab.profile.machine_load import Machine
from salience.lab.result_cache import ResultCache
from salience.lab.study.config import StudyConfig
from salience.lab.tradeoff import run as tradeoff
from salience.lab.tradeoff.config import SHUFFLED, reads_keys
from salience.vlm.families import Adapter, adapter_for
from salience.vlm.scorers.scorer import Scorer
from salience.vlm.tower.fingerprint import tower_fingerprint

RESULTS = "results.json"


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
    """Run the study and write `<out>/results.json`, pictures of samples and the new scorer.

    A killed run of the same code and configuration continues where it stopped; its quality columns come out the same.

    Args:    out: folder   quick: few pictures   device: "auto", "cpu", "cuda"...   quiet: no progress on stderr
             config: in place of `quick` and `seed`   model, processor: in place of the bundled ones
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
    depends_on = {
        "fit": asdict(chosen.fit), "tradeoff": asdict(chosen.tradeoff), "model": tower_fingerprint(model),
        "compare": [identity(one) for one in chosen.compare], "torch": torch.__version__,
    }  # fmt: skip
    cache = ResultCache(folder, depends_on)
    comparisons = chosen.compare
    if resolve_device(device).type != "cpu":  # a fit has the device alone
        comparisons = tuple(replace(one, processes=1, threads=0) for one in comparisons)
    with progress_bars(quiet=quiet) as bars:
        # One set of training pictures serves both: the scorer learns on the first of them, the probe on all.
        pictures = max(chosen.fit.pictures, chosen.tradeoff.probe_pictures)
        train = prepare(
            adapter, processor, replace(chosen.fit, pictures=pictures), "train", bars, keys=reads_keys(chosen.tradeoff)
        )
        fresh, shuffled = _fitted(adapter, processor, chosen.fit, train.first(chosen.fit.pictures), cache, folder, bars)
        given = scorers_for(adapter)
        found = tradeoff.run(
            model, chosen.tradeoff, processor=processor, name=name, out=folder, train=train, cache=cache, bars=bars,
            scorers={**given, chosen.fit.seed: fresh}, shuffled=shuffled,
        )  # fmt: skip
        machine.sample()
        sequences = [compare(one, device=device, cache=cache, bars=bars) for one in comparisons]
    origin = {str(key): "bundled" for key in given} | {str(chosen.fit.seed): "fitted in this run"}
    records = [
        replace(found, config={**found.config, "scorer_origin": origin, "quick": quick}),
        *(replace(one, config={**one.config, "quick": quick}) for one in sequences),
    ]
    where = str(next(model.parameters()).device)
    written = record.document(records, device=where, machine=machine.observed())
    path = record.write(folder / RESULTS, written)
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
    """A scorer fitted on these pictures, and one with targets that were shuffled within each picture."""
    aside = cache.path("fit")
    assert aside is not None  # a study always has a folder
    target = load_target(
        aside, lambda: make_target(adapter, config, PackedPictures(adapter, processor, config, bars, train))
    )
    fitted = []
    for name, one in (("saliency", config), (SHUFFLED, replace(config, shuffled=True))):
        folder = aside / name
        if not (folder / "config.json").is_file():
            distil(adapter, one, train.features, target, aside=aside / f"{name}.unfinished", bars=bars).save_pretrained(
                folder
            )
        fitted.append(Scorer.from_pretrained(folder))
    fitted[0].save_pretrained(out / "scorer")
    return fitted[0], fitted[1]


def _bundled(device: str) -> tuple[Any, Any]:
    """The bundled model on the device, in float32, and its processor."""
    folder = bundled_model()
    if not (folder / "config.json").is_file():
        raise ValueError(f"the bundled model is missing from this installation ({folder}).")
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval().to(resolve_device(device)), AutoProcessor.from_pretrained(folder)
