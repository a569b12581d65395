"""Which backend a call takes, and what is said of it."""

from __future__ import annotations

import pytest
import torch

from salience.core.backend import OPS, explain, resolve_device

X = torch.zeros(2)


def test_the_cpu_takes_its_kernel_and_says_why() -> None:
    choice = explain("selective_scan", X)
    assert choice.backend == "cpu"
    assert "cpu" in choice.why
    assert set(choice.others) == {"reference", "triton"}
    assert "Not 'triton': it is for tensors on cuda" in str(choice)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32])
def test_what_no_kernel_takes_goes_to_the_reference(dtype: torch.dtype) -> None:
    choice = explain("selective_scan", X, X.to(dtype))
    assert choice.backend == "reference"
    assert str(dtype) in choice.others["cpu"]


def test_a_backend_that_cannot_run_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="'triton' cannot run selective_scan here: it is for tensors on cuda"):
        explain("selective_scan", X, backend="triton")
    with pytest.raises(RuntimeError, match=r"'cpu' cannot run selective_scan here: .* on meta"):
        explain("selective_scan", X.to("meta"), backend="cpu")


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import salience.core.backend as backend

    backend._choose.cache_clear()
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    try:
        choice = explain("selective_scan", X)
        with pytest.raises(RuntimeError, match="numba is not installed"):
            explain("selective_scan", X, backend="cpu")
    finally:
        backend._choose.cache_clear()
    assert choice.backend == "reference"


def test_the_environment_stands_in_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCE_BACKEND", "reference")
    assert explain("selective_scan", X).why == "SALIENCE_BACKEND asks for it"
    assert explain("selective_scan", X, backend="cpu").backend == "cpu"
    monkeypatch.setenv("SALIENCE_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"SALIENCE_BACKEND must be 'auto', .* not 'fast'"):
        explain("selective_scan", X)


def test_bad_names() -> None:
    with pytest.raises(ValueError, match="backend must be 'auto', 'reference', 'cpu', 'triton', not 'gpu'"):
        explain("selective_scan", X, backend="gpu")
    with pytest.raises(ValueError, match=f"op must be one of '{next(iter(OPS))}'"):
        explain("scan", X)
    with pytest.raises(ValueError, match="at least one tensor"):
        explain("selective_scan", None)


def test_the_device() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="'cuda:77' is not on this machine"):
        resolve_device("cuda:77")
    with pytest.raises(ValueError, match=r"must be 'auto', .* not 'gpu'"):
        resolve_device("gpu")
