"""A device that computes on the CPU and refuses float64, as Apple's MPS does.

PyTorch makes no tensors on "mps" where it is not linked with it, so the device goes by the name "meta": every
tensor on it is a wrapper around a tensor of the CPU. Nothing of MPS is run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")


class DeviceTensor(torch.Tensor):
    """A tensor whose device is `DEVICE`, as far as anybody can see."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> DeviceTensor:
        if inner.dtype in {torch.float64, torch.complex128}:
            raise TypeError("this device has no float64")
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        made.on_cpu = inner
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.on_cpu})"

    def tolist(self) -> Any:
        """Return the values, as PyTorch's own does not of a class of somebody's."""
        return self.on_cpu.tolist()

    def new_tensor(self, data: Any, **_: Any) -> torch.Tensor:  # type: ignore[override]
        """Return values beside this tensor: PyTorch's own does not ask `__torch_dispatch__`."""
        return torch.tensor(data, dtype=self.dtype).to(DEVICE)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it so
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(function, args, kwargs or {})


class WithoutFloat64(TorchDispatchMode):
    """Inside of it, tensors can be made on `DEVICE`, and moved there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _compute(function, args, kwargs or {})


def _compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and let its result be where it would be."""
    found: list[bool] = []
    tree_map(lambda value: found.append(isinstance(value, DeviceTensor)), (args, kwargs))
    on_device, device = any(found), kwargs.get("device")
    if device is not None:
        # What is converted on its way from the device is converted there: PyTorch's own copy does so.
        if on_device and device.type == "cpu" and kwargs.get("dtype") == torch.float64:
            raise TypeError("this device has no float64")
        on_device, kwargs = device.type == DEVICE.type, {**kwargs, "device": torch.device("cpu")}

    def unwrap(value: Any) -> Any:
        return value.on_cpu if isinstance(value, DeviceTensor) else value

    result = function(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if function in {torch.ops.aten._local_scalar_dense.default} or not on_device:
        return result
    if function._schema.name.endswith("_") and isinstance(args[0], DeviceTensor):  # in place
        return args[0]
    return tree_map(lambda value: DeviceTensor(value) if isinstance(value, torch.Tensor) else value, result)
