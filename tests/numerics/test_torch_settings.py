"""The same numbers under whatever settings of PyTorch the caller has, which are left as they were."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import torch

import d3hr_datasets
from d3hr_datasets import GroupSamplingConfig, sample_group
from d3hr_datasets.numerics.torch_settings import neutral
from tests.support import computations
from tests.support.computations import QUICK, SLOW

# Public functions whose signature has tensors or models, and which are not run here.
EXEMPT = {
    "dataset.tensor_images.*": "bytes, and the user's transform: `tests/dataset/test_tensor_images.py`",
    "diffusion.adapters.*": "`tests/diffusion/test_adapters.py`",
    "diffusion.conditioning.*": "rows of tensors, as they are",
    "diffusion.kinds.*": "called by `Denoiser`, which is neutral",
    "experiments.student_export.export_student": "rounds the weights it is given to half precision",
    "image_sets.*": "bytes of files to bytes of tensors; `tests/image_sets/test_settings_of_the_caller.py`",
    "report.figures.projection_figure": "draws what was computed before",
    "students.models.*": "networks as timm has them: of the caller's dtype, device and random state",
    "students.convnet.*": "as above",
    "students.resnets.*": "as above",
    "training.*": "inside `train_diffusion`, which is neutral: `tests/training/test_first_losses.py`",
    "students.views.TensorImages.__init__": "keeps what it is given; the tests have made theirs before",
}


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def _fast_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    conv: Any = torch.backends.mkldnn.conv  # type: ignore[attr-defined]
    precision = conv.fp32_precision
    conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        conv.fp32_precision = precision
        torch.set_float32_matmul_precision(before)


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64 by default": lambda: _default_dtype(torch.float64),
    "bfloat16 by default": lambda: _default_dtype(torch.bfloat16),
    "device meta by default": lambda: _default_device("meta"),
    "device cuda by default": lambda: _default_device("cuda"),
    "in the device meta": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "deterministic algorithms": _deterministic,
    "fast products": _fast_products,
}


# Not in "everything", which holds their like.
ALONE = ("bfloat16 by default", "device cuda by default", "no gradients")
CASES = [
    *((name, state) for name in QUICK for state in [*STATES, "everything"]),
    *((name, "everything") for name in SLOW),  # which takes seconds
    *((name, state) for name in ("building", "students") for state in ALONE[1:]),
]


@contextlib.contextmanager
def everything() -> Iterator[None]:
    """Enter all states that can be entered at once."""
    with contextlib.ExitStack() as stack:
        for name, enter in STATES.items():
            if name not in ALONE:
                stack.enter_context(enter())
        yield


def settings() -> dict[str, Any]:
    """Return all settings that a caller may have made, and the state of all generators."""
    backends: Any = torch.backends
    modes = torch.overrides._get_current_function_mode_stack()
    return {
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "dtype": torch.get_default_dtype(),
        "device": [getattr(mode, "device", mode) for mode in modes],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "products": torch.get_float32_matmul_precision(),
        "backends": [
            place.fp32_precision
            for place in (
                backends.cudnn.conv,
                backends.mkldnn.conv,
                backends.mkldnn.matmul,
                backends.cuda.matmul,
            )
        ],
        "threads": torch.get_num_threads(),
        "torch": torch.default_generator.get_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
    }


def bits(value: Any) -> Any:
    """Return numbers in a form that is equal if, and only if, all bits and types are."""
    if isinstance(value, torch.Tensor):
        assert not value.is_inference(), "a result can be used in no other mode"
        assert value.device.type == "cpu"
        flat = value.detach().contiguous().flatten()
        return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(part) for part in value]
    if hasattr(value, "__dataclass_fields__"):
        return bits(vars(value))
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    computations.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], set[CodeType]]:
    """Return the bits of all computations in plain settings, and the code that ran."""
    ran: set[CodeType] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            ran.add(frame.f_code)

    found = {}
    for name, compute in {**QUICK, **SLOW}.items():
        work = tmp_path_factory.mktemp("plain")
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            result = compute(folder, work)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        found[name] = bits(result)
    return found, ran


@pytest.mark.parametrize(("name", "state"), CASES)
def test_numbers_are_the_same_under_any_settings_of_the_caller(
    name: str, state: str, folder: Path, plain: tuple[dict[str, Any], set[CodeType]], tmp_path: Path
) -> None:
    with everything() if state == "everything" else STATES[state]():
        before = settings()
        found = {**QUICK, **SLOW}[name](folder, tmp_path)
        after = settings()
    assert {key for key in before if before[key] != after[key]} == set()
    assert bits(found) == plain[0][name]


def _deals_in_numbers(function: Any) -> bool:
    annotations = " ".join(map(str, inspect.unwrap(function).__annotations__.values()))
    return bool(re.search(r"Tensor|Gaussians|ClassModes|Moments|LatentDiffusion|nn\.Module", annotations))


def _public_functions() -> Iterator[tuple[str, CodeType]]:
    """Yield (name, code) of all public functions and methods whose signature has tensors or models."""
    for info in pkgutil.walk_packages(d3hr_datasets.__path__, "d3hr_datasets."):
        module = importlib.import_module(info.name)
        for name, found in vars(module).items():
            if name.startswith("_") or getattr(found, "__module__", None) != info.name:
                continue
            members = {name: found}
            if inspect.isclass(found):
                members = {f"{name}.{key}": member for key, member in vars(found).items()}
            for full_name, member in members.items():
                function = getattr(member, "fget", None) or getattr(member, "__func__", member)
                hidden = re.search(r"\._(?!_init__|_call__|_getitem__)", full_name)
                function = inspect.unwrap(function) if callable(function) else None
                if hidden or not inspect.isfunction(function):
                    continue
                if function.__module__ == info.name and _deals_in_numbers(function):
                    yield f"{info.name.removeprefix('d3hr_datasets.')}.{full_name}", function.__code__


def test_all_public_functions_of_numbers_are_among_those_tested(
    plain: tuple[dict[str, Any], set[CodeType]],
) -> None:
    functions = dict(_public_functions())
    assert len(functions) > 60
    untested = {name for name, code in functions.items() if code not in plain[1]}
    assert [name for name in untested if not any(fnmatch(name, pattern) for pattern in EXEMPT)] == []
    assert [pattern for pattern in EXEMPT if not any(fnmatch(name, pattern) for name in untested)] == []


def test_precision_of_products_is_full_while_the_model_runs() -> None:
    backends: Any = torch.backends
    places = [backends.cudnn.conv, backends.mkldnn.conv, backends.mkldnn.matmul, backends.cuda.matmul]

    @neutral(full_float32=True)
    def inside() -> tuple[list[str], str]:
        return [place.fp32_precision for place in places], torch.get_float32_matmul_precision()

    for enter in (contextlib.nullcontext, _fast_products):
        with enter():
            precisions, legacy = inside()
            assert {*precisions} <= {"ieee", "none"}
            assert legacy == "highest"
    before = backends.mkldnn.matmul.fp32_precision
    backends.mkldnn.matmul.fp32_precision = "bf16"  # the newer way, after which the older one cannot be asked
    try:
        with neutral(full_float32=True):
            assert backends.mkldnn.matmul.fp32_precision == "ieee"
        assert backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        backends.mkldnn.matmul.fp32_precision = before


def test_threads_at_once_find_and_leave_the_settings_of_the_process() -> None:
    mean, variance = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
    expected = bits(sample_group(mean, variance, 9, 0, GroupSamplingConfig()))
    with _default_dtype(torch.float64), ThreadPoolExecutor(4) as pool:
        groups = [pool.submit(sample_group, mean, variance, 9, 0, GroupSamplingConfig()) for _ in range(200)]
        assert all(bits(group.result()) == expected for group in groups)
        assert torch.get_default_dtype() == torch.float64


def test_settings_are_given_back_after_an_error() -> None:
    with everything():
        before = settings()
        with pytest.raises(d3hr_datasets.D3HRError):
            sample_group(torch.zeros(3), torch.zeros(4), 2, 0, GroupSamplingConfig())
        assert settings() == before


def test_gradients_go_through_parts_that_follow_what_they_are_a_part_of() -> None:
    @neutral(grad=None)
    def double(values: torch.Tensor) -> torch.Tensor:
        return 2 * values

    values = torch.ones(2, requires_grad=True)
    assert not double(values).requires_grad  # whoever is outside gets none, as of all that is computed here
    with neutral(grad=True):
        assert double(values).requires_grad
        with torch.no_grad():
            assert not double(values).requires_grad
        with neutral():
            assert not double(values).requires_grad
        assert double(values).requires_grad
    assert not double(values).requires_grad
