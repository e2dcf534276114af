"""What the package runs on: versions, processor, memory, GPUs, precision."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import aide_monai

_PACKAGES = (
    "torch",
    "monai",
    "numpy",
    "nibabel",
    "SimpleITK",
    "itk",
    "pydicom",
    "highdicom",
    "pytorch-ignite",
    "scipy",
    "monailabel",
)


def installation() -> dict[str, Any]:
    """What a report of a fault needs.

    Returns:
        Name to text, number or list of texts: "aide-monai", "python", "system", each package ("not installed" where it
        is not), "processor", "cores" (those that this process may use), "memory (GB)", "threads", "GPUs", "CUDA",
        "precision" of a training on each device.

    Examples:
        >>> from aide_monai.workflows.installation import installation
        >>> installation()["aide-monai"] == aide_monai.__version__
        True
    """
    import torch

    from aide_monai.inferers import hardware_amp

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    precision = [f"cpu {hardware_amp()}", *(["cuda bf16"] if gpus and torch.cuda.is_bf16_supported() else [])]
    return {
        "aide-monai": aide_monai.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory (GB)": round(memory / 1e9, 1),
        "threads": torch.get_num_threads(),
        "GPUs": [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in gpus],
        "CUDA": torch.version.cuda or "not in this torch",
        "precision": precision,
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"
