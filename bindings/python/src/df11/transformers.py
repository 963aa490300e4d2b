"""DF11 models in transformers: after `import df11.transformers`, from_pretrained() takes their folders.

    import df11.transformers
    model = AutoModelForCausalLM.from_pretrained("Qwen3-8B-DF11", device_map="cuda")

The weights stay compressed, in memory and on the device; see df11.torch. save_pretrained() writes them as they are,
with the same dfloat11_config. A bf16 model is compressed while it is loaded with
`quantization_config=DFloat11Config()`.
"""

import enum
import functools
import glob
import logging
import os
from collections.abc import Iterable
from typing import Any, Callable, Optional

import torch
import transformers
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from . import _groups, _model
from . import torch as df11_torch
from ._c import Status
from ._library import InvalidFormatError

__all__ = ["DFloat11Config", "DFloat11Quantizer", "Method"]

_log = logging.getLogger("df11.transformers")


class Method(str, enum.Enum):
    """The name of the method, as other quantization methods have theirs."""

    DFLOAT11 = "dfloat11"


@register_quantization_config("dfloat11")
class DFloat11Config(QuantizationConfigMixin):  # type: ignore[misc]
    """How a model is held. Published folders need none; it is for those who want one of these otherwise.

    `products`: on the CPU, hold weights in a form to multiply with, as `df11.torch.load_compressed` does. `verify`:
    walk every code before anything is decoded.
    """

    def __init__(self, products: bool = False, verify: bool = False, **_unknown: Any) -> None:
        self.quant_method = Method.DFLOAT11
        self.products = products
        self.verify = verify


@register_quantizer("dfloat11")
class DFloat11Quantizer(HfQuantizer):  # type: ignore[misc]
    """Loads and saves compressed weights for transformers."""

    requires_calibration = False

    def update_tp_plan(self, config: Any) -> Any:
        # The first call with the config: whether the files are compressed is in it, whoever asked for this quantizer.
        self.pre_quantized = getattr(config, "dfloat11_config", None) is not None
        return config

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        if dtype != torch.bfloat16:
            _log.warning("the weights are of bfloat16, and the model is loaded so, not as %s", dtype)
        return torch.bfloat16

    update_torch_dtype = update_dtype

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: Optional[list[str]] = None, **_kwargs: Any
    ) -> None:
        if not self.pre_quantized:
            return
        if not checkpoint_files:
            raise InvalidFormatError(Status.INVALID_FORMAT, "a DF11 model is loaded from its files only")
        folder = _folder(model.config, checkpoint_files)
        # All files of the folder: an index lists the uncompressed rest, and not all of that.
        checkpoint_files[:] = sorted(glob.glob(os.path.join(glob.escape(folder), "*.safetensors")))
        source = _model.open(folder, verify=self.quantization_config.verify, threads=torch.get_num_threads())
        rename = _renaming(model)
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        attached = df11_torch.attach(
            model,
            source,
            products=self.quantization_config.products,
            prefix=model.base_model_prefix,
            rename=rename,
        )
        _tie(model, tied)
        for module in df11_torch.weights_of(model).values():
            setattr(module, "_is_hf_initialized", True)  # noqa: B010
        self.others = {_own(name, rename, model): source[name] for name in attached.others}
        wrong = [name for name in self.others if name not in model.state_dict()]
        if wrong:
            raise InvalidFormatError(
                Status.INVALID_FORMAT,
                f"{folder}: the model has no '{wrong[0]}' (nor {len(wrong) - 1} more): `df11 decompress` the folder",
            )
        _complete(model, folder, [_own(name, rename, model) for name in source if name not in attached.modules], tied)
        unexpected = set(model._keys_to_ignore_on_load_unexpected or ())
        model._keys_to_ignore_on_load_unexpected = unexpected | {_groups.MEMBER}
        if self.others:
            missing = set(model._keys_to_ignore_on_load_missing or ())
            model._keys_to_ignore_on_load_missing = missing | {f"^{_escape(name)}$" for name in self.others}

    def _process_model_after_weight_loading(self, model: Any, **_kwargs: Any) -> Any:
        if self.pre_quantized:
            own = model.state_dict(keep_vars=True)
            for name, tensor in self.others.items():
                df11_torch._read(tensor.model, {tensor.name: own[name].detach()}, torch.get_num_threads())
            self.others = {}
            df11_torch.place(model)
        else:
            df11_torch.compress_module(model, products=self.quantization_config.products or None)
        # The file says it by its dfloat11_config, as published ones do.
        if getattr(model.config, "quantization_config", None) is not None:
            del model.config.quantization_config
        return model

    def get_state_dict_and_metadata(
        self, model: Any, *_args: Any, **_kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, str]]:
        members, config = df11_torch.group_tensors(model)
        if getattr(model.config, "dfloat11_config", None) is None:
            model.config.dfloat11_config = config
        return {**model.state_dict(), **members}, {}

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:  # noqa: ARG002
        df11_torch.decompress_module(model)
        if hasattr(model.config, "dfloat11_config"):
            del model.config.dfloat11_config
        return model

    def is_serializable(self, safe_serialization: Optional[bool] = None) -> bool:  # noqa: ARG002
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True


def _escape(name: str) -> str:
    return name.replace(".", r"\.")


def _folder(config: Any, files: list[str]) -> str:
    """Returns the folder of a model with all its files; of one on the Hub only some were downloaded before."""
    name = str(getattr(config, "name_or_path", "") or "")
    if name and not os.path.exists(name):
        from huggingface_hub import snapshot_download

        return str(
            snapshot_download(
                name,
                revision=getattr(config, "_commit_hash", None),
                allow_patterns=["*.safetensors", "config.json"],
            )
        )
    return os.path.dirname(files[0])


def _renaming(model: Any) -> Callable[[str], str]:
    """Returns what names a tensor of a file as the model does: transformers has other names for parts of some."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:
        return lambda name: name
    steps = [step for step in get_model_conversion_mapping(model) if isinstance(step, WeightRenaming)]
    modules = {name for name, _ in model.named_modules()}

    def rename(name: str) -> str:
        new = name
        for step in steps:
            new, _ = step.rename_source_key(new)
        if _groups.module_of(new, modules, model.base_model_prefix) is None:
            return name if _groups.module_of(name, modules, model.base_model_prefix) is not None else new
        return new

    return rename


def _own(name: str, rename: Callable[[str], str], model: Any) -> str:
    """Returns the name of a tensor in the model's state_dict."""
    new = rename(name)
    prefix = f"{model.base_model_prefix}."
    top = {child for child, _ in model.named_children()}
    if new.startswith(prefix) and model.base_model_prefix not in top:
        return new[len(prefix) :]
    if model.base_model_prefix in top and new.split(".")[0] not in top:
        return prefix + new
    return new


def _tie(model: Any, tied: dict[str, str]) -> None:
    """Shares a compressed weight with the modules that are tied to it."""
    weights = df11_torch.weights_of(model)
    for target, source in tied.items():
        for here, there in ((target, source), (source, target)):
            here_module, there_module = here.removesuffix(".weight"), there.removesuffix(".weight")
            if there_module in weights and here_module not in weights and here.endswith(".weight"):
                if df11_torch._kind(model.get_submodule(here_module)) is None:
                    raise InvalidFormatError(Status.INVALID_FORMAT, f"'{here}' is tied to the compressed '{there}'")
                df11_torch._replace(model, here_module, weights[there_module].df11_weight)
        if source.removesuffix(".weight") in weights or target.removesuffix(".weight") in weights:
            model.all_tied_weights_keys.pop(target, None)


def _complete(model: Any, folder: str, names: Iterable[str], tied: dict[str, str]) -> None:
    """Refuses a folder without the weights of a Linear or an Embedding, which would be random numbers."""
    there = set(names)
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, nn.Embedding):
            weight = f"{name}.weight"
            partners = {weight, tied.get(weight, weight), *(t for t, s in tied.items() if s == weight)}
            if not partners & there:
                raise InvalidFormatError(
                    Status.INVALID_FORMAT, f"{folder}: no file has the tensor '{weight}'. Is the download complete?"
                )


def _watch(get: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get)
    def get_hf_quantizer(config: Any, quantization_config: Any = None, *args: Any, **kwargs: Any) -> Any:
        published = getattr(config, "dfloat11_config", None) is not None
        if published and getattr(config, "quantization_config", None) is None:
            ours = isinstance(quantization_config, DFloat11Config)
            config.quantization_config = (quantization_config if ours else DFloat11Config()).to_dict()
            quantization_config = None if ours else quantization_config
        return get(config, quantization_config, *args, **kwargs)

    get_hf_quantizer._df11 = True  # type: ignore[attr-defined]
    return get_hf_quantizer


def _hook() -> None:
    """Lets from_pretrained() find the quantizer for published folders, whose config.json names no quantization method.

    transformers has no interface for that. If its inside has changed, `quantization_config=DFloat11Config()` says it.
    """
    inside = transformers.modeling_utils
    get = getattr(inside, "get_hf_quantizer", None)
    if get is None:
        _log.warning(
            "transformers %s does not look for quantizers as it did: give from_pretrained() "
            "quantization_config=df11.transformers.DFloat11Config()",
            transformers.__version__,
        )
    elif not getattr(get, "_df11", False):
        inside.get_hf_quantizer = _watch(get)


_hook()
