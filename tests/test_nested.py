"""Nested states: all differences are reported, to the last bit, and nothing else."""

from __future__ import annotations

import torch

from iufbench.support.nested import differing, digest, flat


def test_tensors_are_compared_by_bits_type_and_shape():
    x = torch.tensor([1.0, float("nan")])
    before = {"same": x, "bit": x, "type": x, "shape": x, "value": x, "gone": 1, "nan": float("nan")}
    nudged = torch.nextafter(x, torch.full_like(x, 9.0))
    now = {"same": x.clone(), "bit": nudged, "type": x.double(), "shape": x[None], "value": 2.0}
    now |= {"nan": float("nan"), "new": x}
    assert set(differing(before, now)) == {"bit", "type", "shape", "value", "gone", "new"}
    for name, value in before.items():
        assert (digest(value) == digest(now.get(name))) == (name in ("same", "nan")), name


def test_names_lead_to_what_is_nested():
    state = {"network": {"w": torch.zeros(2)}, "memory": {"anchors": [{"w": 1}, {"w": 2}], 3: ()}}
    assert list(flat(state)) == ["network.w", "memory.anchors.0.w", "memory.anchors.1.w"]
