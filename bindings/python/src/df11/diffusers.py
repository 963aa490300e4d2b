"""DF11 models in diffusers: after `import df11.diffusers`, from_pretrained() takes their folders.

    import df11.diffusers, df11.transformers
    # Components are compressed or not, each for itself.
    pipe = FluxPipeline.from_pretrained("FLUX.1-dev-DF11-pipeline")

Published folders hold the transformer alone, and a config.json without the model's own. Give the original's config:

    transformer = df11.diffusers.load_model(FluxTransformer2DModel, "FLUX.1-dev-DF11", config="FLUX.1-dev/transformer")
    pipe = FluxPipeline.from_pretrained("FLUX.1-dev", transformer=transformer)

The weights stay compressed, in memory and on the device; see df11.torch. save_pretrained() writes them as they are.
"""

import contextlib
import enum
import functools
import os
from collections.abc import Mapping
from typing import Any, Callable, Optional, Union

import torch
from diffusers import ModelMixin
from diffusers.quantizers.base import DiffusersQuantizer

from . import torch as df11_torch
from ._library import StrPath, invalid

__all__ = ["DFloat11Quantizer", "Method", "load_model"]


class Method(str, enum.Enum):
    """The name of the method, as other quantization methods have theirs."""

    DFLOAT11 = "dfloat11"


class _Config:
    """What diffusers asks of a quantization's config."""

    quant_method = Method.DFLOAT11

    def to_dict(self) -> dict[str, Any]:
        return {"quant_method": self.quant_method.value}


class DFloat11Quantizer(DiffusersQuantizer):  # type: ignore[misc]
    """Saves compressed weights for diffusers. Loading is `load_model`."""

    def __init__(self, model: Any) -> None:
        super().__init__(_Config(), pre_quantized=True)
        self.model = model

    def get_state_dict_and_metadata(
        self,
        state_dict: dict[str, Any],
        safe_serialization: bool = True,  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        members, _ = df11_torch.group_tensors(self.model)
        return {**state_dict, **members}, {}

    def _process_model_before_weight_loading(self, model: Any, **_kwargs: Any) -> None:  # noqa: ARG002
        return None

    def _process_model_after_weight_loading(self, model: Any, **_kwargs: Any) -> Any:
        return model

    def _dequantize(self, model: Any) -> Any:
        return df11_torch.decompress_module(model)

    @property
    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True


def load_model(
    kind: Any,
    path: StrPath,
    *,
    config: Union[StrPath, Mapping[str, Any], None] = None,
    device: df11_torch.DeviceLike = "cpu",
    products: bool = False,
    verify: bool = False,
    **config_options: Any,
) -> Any:
    """Makes a model of a class of diffusers, such as FluxTransformer2DModel, with the weights of a folder or file.

    `config` is the model's config, or where that is: a folder, or what `load_config` of the class takes, with
    `config_options` such as subfolder. Without it, it is the folder's own. All parameters must be in the folder.
    """
    if config is None or isinstance(config, (str, bytes, os.PathLike)):
        where = os.fsdecode(path if config is None else config)
        config = dict(kind.load_config(where, **config_options))
    if "dfloat11_config" in config and not set(config) - {"dfloat11_config", "model_type", "quantization_config"}:
        where = os.fsdecode(path)
        raise invalid(f"{where}: its config.json says nothing of the model: give config, that of the original")
    options = {key: value for key, value in config.items() if key not in ("dfloat11_config", "quantization_config")}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with _empty():
            model = kind.from_config(options)
    finally:
        torch.set_default_dtype(before)
    left = df11_torch.load_compressed(model, path, products=products, verify=verify, strict=False)
    if left.missing_keys:
        where, name = os.fsdecode(path), left.missing_keys[0]
        raise invalid(f"{where}: no file has the tensor '{name}'. Is the download complete?")
    if left.unexpected_keys:
        where, name = os.fsdecode(path), left.unexpected_keys[0]
        raise invalid(f"{where}: the model has no '{name}': is the config another model's?")
    model.register_to_config(_name_or_path=os.fsdecode(path), dfloat11_config=df11_torch.group_tensors(model)[1])
    model.hf_quantizer = DFloat11Quantizer(model)
    model.is_quantized = True
    model.quantization_method = Method.DFLOAT11
    model.eval()
    return model.to(device)


def _empty() -> Any:
    """Returns a context in which parameters take no memory; buffers that a model computes for itself are computed."""
    try:
        from accelerate import init_empty_weights
    except ImportError:
        return contextlib.nullcontext()
    return init_empty_weights()


# What load_config takes, of what from_pretrained is given.
_DOWNLOAD = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")


def _folder(path: str, subfolder: Optional[str], options: Mapping[str, Any]) -> str:
    """Returns the folder of a model with all its files."""
    if not os.path.isdir(path):
        from huggingface_hub import snapshot_download

        inside = f"{subfolder}/" if subfolder else ""
        patterns = [f"{inside}*.safetensors", f"{inside}config.json"]
        path = str(snapshot_download(path, allow_patterns=patterns, **options))
    return os.path.join(path, subfolder or "")


def _watch(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def from_pretrained(cls: Any, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        options = {key: kwargs[key] for key in _DOWNLOAD if kwargs.get(key) is not None}
        subfolder = kwargs.get("subfolder")
        try:
            config = cls.load_config(pretrained_model_name_or_path, subfolder=subfolder, **options)
        except Exception:
            # Whatever is wrong, the original says it as it always does.
            config = {}
        if config.get("dfloat11_config") is None:
            return original(cls, pretrained_model_name_or_path, **kwargs)
        if kwargs.get("quantization_config") is not None:
            raise invalid(f"{pretrained_model_name_or_path}: a compressed model cannot be quantized while it is loaded")
        folder = _folder(os.fspath(pretrained_model_name_or_path), subfolder, options)
        model = load_model(cls, folder, config=config, device=_one_device(kwargs.get("device_map")))
        return (model, {}) if kwargs.get("output_loading_info") else model

    from_pretrained._df11 = True  # type: ignore[attr-defined]
    return from_pretrained


def _one_device(device_map: Any) -> df11_torch.DeviceLike:
    if isinstance(device_map, Mapping):
        places = {str(device) for device in device_map.values()}
        if len(places) > 1:
            raise invalid("a compressed model of diffusers is loaded to one device")
        device_map = next(iter(device_map.values()), None)
    if device_map is None:
        return "cpu"
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    found: df11_torch.DeviceLike = device_map
    return found


def _hook() -> None:
    """Lets from_pretrained() take DF11 folders. diffusers looks for files by their names, which DF11's are not."""
    inside = ModelMixin.__dict__["from_pretrained"].__func__
    if not getattr(inside, "_df11", False):
        ModelMixin.from_pretrained = classmethod(_watch(inside))


_hook()
