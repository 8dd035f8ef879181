from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def arrays():
    """Numbers measured from the released IUF and UniAD code: name -> {key: tensor}."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(DATA / f"{name}.npz") as file:
            return {key: torch.from_numpy(file[key]) for key in file}

    return load


@pytest.fixture(scope="session")
def part():
    """The entries below a prefix: part(d, "w/") -> {"name": tensor}."""
    return lambda d, prefix: {k.removeprefix(prefix): v for k, v in d.items() if k.startswith(prefix)}
