"""Where the parts of a model are: all on their device, or only the one that is in use."""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.devices import advice_on_memory, best_device_type, convolution_layout
from d3hr_datasets.numerics.torch_settings import neutral

HOST = torch.device("cpu")


class Placement:
    """Puts network and VAE where they run.

    With `cpu_offload` both wait in the host's memory. Each is moved to the device when it is used, and back
    when the other one is. Text encoders need no turn: they are gone before (`prompts`).

    Args:
        network: diffusers' transformer or UNet.
        vae: Encodes and decodes images.
        device: Where to run; CUDA if there is one, else MPS, else the CPU.
        cpu_offload: Whether parts wait in the host's memory. On the CPU they are there anyway.

    Attributes:
        device: Where parts run.
        is_offloaded: Whether parts are moved.

    Raises:
        ConfigError: PyTorch knows or finds no such device, or its memory is too small.
    """

    @neutral()
    def __init__(
        self,
        network: Any,
        vae: Any,
        device: torch.device | str | None,
        cpu_offload: bool = False,
    ) -> None:
        if device is None:
            device = best_device_type()
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
            self.is_offloaded = cpu_offload and self.device.type != "cpu"
            layout = convolution_layout(self.device, vae.dtype)
            network.to(self.rest)
            vae.to(self.rest, memory_format=layout)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"the diffusion model does not fit into the memory of {str(device)!r}; "
                f"{advice_on_memory(not cpu_offload)}"
            ) from error
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"the device {str(device)!r} cannot be used: {str(error).splitlines()[0]}; accepted: 'cpu', "
                "and 'cuda', 'mps' or such where PyTorch finds it"
            ) from error
        self._parts = (network, vae)
        self._there: Any = None

    @property
    def rest(self) -> torch.device:
        """Where parts, and images that were made, are while they are not in use."""
        return HOST if self.is_offloaded else self.device

    @property
    def has_cuda_graphs(self) -> bool:
        """Whether CUDA graphs can be recorded: of a model on CUDA whose weights stay where they are."""
        return self.device.type == "cuda" and not self.is_offloaded

    def use(self, part: Any) -> None:
        """Have a part on the device; the other one makes room for it first."""
        if not self.is_offloaded or part is self._there:
            return
        self._there = None
        for other in self._parts:
            if other is not part:
                other.to(HOST)
        torch.cuda.empty_cache()  # does nothing without CUDA
        part.to(self.device)
        self._there = part
