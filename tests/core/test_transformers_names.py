"""Names of transformers: asked of signatures and found by value, whatever a release calls them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from salience.core.transformers_names import (
    BOUNDS,
    CACHE_NAMES,
    cache_argument,
    cache_in,
    cache_of_output,
    check_release,
    named_cache,
    passed_cache,
    require_arguments,
)


class Cache:
    """What tells a cache from other arguments."""

    def get_seq_length(self) -> int:
        return 0

    def update(self) -> None: ...


class Model:
    def forward(self, input_ids: Any, cache: Any = None, **options: Any) -> None: ...


class Earlier:
    def forward(self, input_ids: Any, past_key_values: Any = None, **options: Any) -> None: ...


class Without:
    def forward(self, input_ids: Any, **options: Any) -> None: ...


def test_the_name_is_the_signatures() -> None:
    assert cache_argument(Model().forward) == "cache"
    assert cache_argument(Earlier().forward) == "past_key_values"
    assert cache_argument(Without().forward, Earlier().forward) == "past_key_values"
    with pytest.raises(ValueError, match="of Without must take a cache as cache, past_key_values or cache_params"):
        cache_argument(Without().forward)


@pytest.mark.parametrize("name", [*CACHE_NAMES, "memory_of_a_later_release"])
def test_a_cache_is_found_under_any_name_and_put_under_the_models(name: str) -> None:
    cache = Cache()
    given = {"input_ids": [1], name: cache, "use_cache": True}
    assert cache_in(given) is cache
    for model, own in ((Model(), "cache"), (Earlier(), "past_key_values")):
        assert named_cache(given, own) == {"input_ids": [1], own: cache, "use_cache": True}
        assert passed_cache(model, cache) == {own: cache}
    assert cache_of_output({"logits": 1, name: cache}) is cache
    assert cache_of_output((1, cache, 2)) is cache


def test_no_cache_is_none() -> None:
    given = {"input_ids": [1], "past_key_values": None}
    assert cache_in(given) is None
    assert named_cache(given, "cache") == {"input_ids": [1]}
    assert named_cache(given, "past_key_values") == given
    assert cache_of_output((1, 2)) is cache_of_output({"logits": 1}) is cache_of_output(7) is None


def test_two_caches_are_refused() -> None:
    cache = Cache()
    assert cache_in({"cache": cache, "past_key_values": cache}) is cache
    assert named_cache({"cache": cache, "past_key_values": cache}, "cache") == {"cache": cache}
    with pytest.raises(ValueError, match="one cache at most must be passed, not cache and past_key_values"):
        cache_in({"cache": cache, "past_key_values": Cache()})


def test_an_argument_that_was_renamed_is_refused() -> None:
    require_arguments(Model().forward, ("input_ids",), "Model")
    with pytest.raises(ValueError, match=r"the forward of Model \(transformers .*\) must take mm_encoder_outputs"):
        require_arguments(Model().forward, ("input_ids", "mm_encoder_outputs"), "Model")


NEWEST = "{}.{}".format(*BOUNDS.newest)


@pytest.mark.parametrize("version", ["5.20.3", f"5.{BOUNDS.newest[1] + 1}.0", "5.99.0.dev0", "6.0.0rc1"])
def test_a_release_outside_the_tested_ones_is_a_sentence(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.delenv(BOUNDS.variable, raising=False)
    sentence = rf"transformers {version} was not tested.*5\.21 to 5\.\d+ were.*SALIENCE_UNTESTED_TRANSFORMERS=1"
    with pytest.raises(ValueError, match=sentence):
        check_release()
    monkeypatch.setenv(BOUNDS.variable, "1")
    check_release()


@pytest.mark.parametrize("version", ["5.21.0", f"{NEWEST}.7"])
def test_the_tested_releases_pass(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.delenv(BOUNDS.variable, raising=False)
    check_release()


def test_nothing_here_loads_transformers() -> None:
    code = (
        "import sys, salience.core.transformers_names as n; n.check_release(); n.release(); "
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_declares_the_tested_releases() -> None:
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = f"transformers>={BOUNDS.oldest[0]}.{BOUNDS.oldest[1]},<{BOUNDS.newest[0]}.{BOUNDS.newest[1] + 1}"
    asked = [need for needs in project["optional-dependencies"].values() for need in needs]
    assert [need for need in asked if need.startswith("transformers")] == [bounds] * 2
