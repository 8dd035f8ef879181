from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch

from iufbench.models.checkpoints import load_public_weights
from iufbench.models.iuf import IUFNetwork
from iufbench.models.uniad import UniAD
from iufbench.models.weights import fingerprint, read_state_dict
from iufbench.support.errors import InputError

SIZES = {"hidden": 32, "heads": 4, "feedforward": 64, "feature_size": (7, 7)}


def uniad(**options) -> UniAD:
    return UniAD(24, **{**SIZES, "encoder_layers": 2, "decoder_layers": 2, **options})


def iuf(**options) -> IUFNetwork:
    return IUFNetwork(24, 5, classifier_mlp=48, **{**SIZES, **options})


def public(
    weights: dict[str, torch.Tensor], prefix: str = "module.reconstruction."
) -> dict[str, torch.Tensor]:
    other = {"module.backbone._conv_stem.weight": torch.zeros(3), "module.neck.x": torch.zeros(1)}
    return {**other, **{prefix + name: value for name, value in weights.items()}}


@pytest.mark.parametrize("prefix", ["module.reconstruction.", "reconstruction.", ""])
def test_a_public_iuf_checkpoint(arrays, part, tmp_path, prefix):
    d = arrays("02_iuf_train_grads_28")
    checkpoint = {"epoch": 2000, "best_metric": np.float64(0.9), "state_dict": public(part(d, "w/"), prefix)}
    torch.save(checkpoint, tmp_path / "ckpt.pth.tar")
    model = iuf(dropout=0.0, jitter_scale=0).train()
    load_public_weights(model, read_state_dict(tmp_path / "ckpt.pth.tar"))
    out = model(d["in/feature_align"], d["in/image"])
    torch.testing.assert_close(out.reconstruction, d["out/feature_rec"], atol=2e-5, rtol=1e-4)


def test_a_checkpoint_written_with_numpy_1(arrays, part, tmp_path):
    d = arrays("01_uniad_grads")
    file = tmp_path / "old.pth"
    checkpoint = {"best_metric": np.float64(0.9), "state_dict": public(part(d, "w/"))}
    torch.save(checkpoint, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    assert b"numpy.core.multiarray\nscalar" in content
    file.write_bytes(content)
    load_public_weights(uniad(), read_state_dict(file))


def test_standardisation_is_not_in_public_checkpoints(arrays, part):
    model = uniad(standardise=True)
    model.fit_standardisation(torch.randn(20, 24, 7, 7) + 3)
    mean = model.feature_mean.clone()
    load_public_weights(model, part(arrays("01_uniad_grads"), "w/"))
    assert torch.equal(model.feature_mean, mean)


def test_what_does_not_fit_is_named(arrays, part):
    uniad_weights = part(arrays("01_uniad_grads"), "w/")
    iuf_weights = part(arrays("02_iuf_train_grads_28"), "w/")
    short = {k: v for k, v in uniad_weights.items() if k != "output_proj.bias"}
    cases = [
        (uniad(), short, "'output_proj.bias' .* is missing"),
        (
            uniad(feature_size=(9, 7)),
            uniad_weights,
            r"'pos_embed.row_embed.weight' is \[7, 16\].*needs \[9, 16\]",
        ),
        (uniad(decoder_layers=1), uniad_weights, "'transformer.decoder.layers.1.*does not belong"),
        (uniad(encoder_layers=4, decoder_layers=4), iuf_weights, "does not belong .*no classifier"),
        (iuf(encoder_layers=2, decoder_layers=2), uniad_weights, r"'classifier.conv1.weight' .* is missing"),
    ]
    for model, weights, words in cases:
        before = fingerprint(model.state_dict())
        with pytest.raises(InputError, match=words) as error:
            load_public_weights(model, weights, "ckpt.pth")
        assert str(error.value).startswith("ckpt.pth")
        assert fingerprint(model.state_dict()) == before


class Surprise:
    def __reduce__(self):
        return (print, ("code from a weight file ran",))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"not a checkpoint"), "file.pth"),
        (lambda path: path.write_bytes(b""), "file.pth"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html><html>"), "begins with b'<!DOCTYPE'"),
        (lambda path: path.mkdir(), "file.pth is not a regular file"),
        (lambda path: torch.save({"teacher": {"a": torch.zeros(1)}}, path), "but teacher; save one of them"),
        (lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(str(path)), "it is a TorchScript program"),
        (lambda path: torch.save({"state_dict": {}}, path), "no state dict"),
        (lambda path: torch.save([1, 2], path), "no state dict"),
        (lambda path: torch.save({"a": torch.zeros(1), "b": Surprise()}, path), "more than tensors"),
    ],
)
def test_files_that_are_no_weights(tmp_path, capsys, write, words):
    write(tmp_path / "file.pth")
    with pytest.raises(InputError, match=words) as error:
        read_state_dict(tmp_path / "file.pth")
    assert "\n" not in str(error.value)
    assert "ran" not in capsys.readouterr().out


def test_a_file_is_recognised_by_its_content_and_wrappers_are_removed(tmp_path):
    state = {"a": torch.ones(2)}
    for number, write in enumerate(
        (
            lambda path: safetensors.torch.save_file(state, path),
            lambda path: torch.save({"model": {"state_dict": state}}, path),
            lambda path: torch.save({f"module.{name}": value for name, value in state.items()}, path),
            lambda path: torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, path),
        )
    ):
        path = tmp_path / f"{number}.bin"
        write(path)
        assert list(read_state_dict(path)) == ["a"]


def test_truncated_files(tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1500])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    for name in ("cut.pth", "cut.safetensors", "absent.pth"):
        with pytest.raises(InputError, match=name):
            read_state_dict(tmp_path / name)


def test_fingerprint_sees_values_names_and_types_only():
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.arange(6.0).view(2, 3).T.contiguous().T}
    assert fingerprint(state) == fingerprint(same)
    others = [
        {**state, "b": torch.zeros(2)},
        {"a": state["a"], "c": state["b"]},
        {**state, "b": torch.ones(2).double()},
        {**state, "a": state["a"].view(3, 2)},
    ]
    assert len({fingerprint(s) for s in [state, *others]}) == 5
