"""from_pretrained() of models and pipelines of diffusers on DF11 folders, and save_pretrained() of what it gives."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import diffusers
import pytest
import torch

import df11
import df11.torch
from df11.diffusers import load_model

PATTERNS = {
    r"transformer_blocks\.\d+": ["norm1.linear", "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "ff.net.2"],
    r"single_transformer_blocks\.\d+": ["norm.linear", "proj_mlp", "proj_out"],
}


def flux() -> Any:
    torch.manual_seed(5)
    return (
        diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=64,
            pooled_projection_dim=64,
            axes_dims_rope=(8, 12, 12),
        )
        .to(torch.bfloat16)
        .eval()
    )


def result(model: Any) -> torch.Tensor:
    torch.manual_seed(6)
    with torch.no_grad():
        out: torch.Tensor = model(
            hidden_states=torch.randn(1, 16, 16, dtype=torch.bfloat16),
            encoder_hidden_states=torch.randn(1, 5, 64, dtype=torch.bfloat16),
            pooled_projections=torch.randn(1, 64, dtype=torch.bfloat16),
            timestep=torch.tensor([1.0], dtype=torch.bfloat16),
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(5, 3),
        ).sample
    return out


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path, pathlib.Path]:
    model, plain, compressed = flux(), tmp_path / "flux", tmp_path / "flux-DF11"
    model.save_pretrained(plain)
    df11.compress(plain, compressed, patterns=json.dumps(PATTERNS))
    return model, plain, compressed


def test_models(folders: tuple[Any, pathlib.Path, pathlib.Path], tmp_path: pathlib.Path) -> None:
    original, _, path = folders
    want = result(original)
    got = diffusers.FluxTransformer2DModel.from_pretrained(path)
    assert len(df11.torch.weights_of(got)) == 18
    assert torch.equal(result(got), want)
    back = tmp_path / "back"
    got.save_pretrained(back)
    df11.verify(back)
    for kind in (diffusers.FluxTransformer2DModel, diffusers.AutoModel):
        again = kind.from_pretrained(str(back), device_map="cpu")
        assert len(df11.torch.weights_of(again)) == 18
        assert torch.equal(result(again), want)
    state = again.dequantize().state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in original.state_dict().items())


def test_published_folders_need_the_config(folders: tuple[Any, pathlib.Path, pathlib.Path]) -> None:
    original, plain, path = folders
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({"dfloat11_config": config["dfloat11_config"], "model_type": "llama"}))
    with pytest.raises(ValueError, match="give config"):
        diffusers.FluxTransformer2DModel.from_pretrained(path)
    got = load_model(diffusers.FluxTransformer2DModel, path, config=plain)
    assert torch.equal(result(got), result(original))
    (path / "transformer_blocks_1.safetensors").unlink()
    with pytest.raises(ValueError, match="Is the download complete"):
        load_model(diffusers.FluxTransformer2DModel, path, config=plain)


def test_plain_folders_are_as_ever(folders: tuple[Any, pathlib.Path, pathlib.Path]) -> None:
    original, plain, _ = folders
    got = diffusers.FluxTransformer2DModel.from_pretrained(plain, torch_dtype=torch.bfloat16)
    assert not df11.torch.weights_of(got)
    assert torch.equal(result(got), result(original))
    with pytest.raises(OSError, match="nowhere"):
        diffusers.FluxTransformer2DModel.from_pretrained(plain.parent / "nowhere")


def test_pipelines(tmp_path: pathlib.Path) -> None:
    torch.manual_seed(8)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        layers_per_block=1,
    )
    unet = unet.to(torch.bfloat16).eval()
    plain, path = tmp_path / "pipe", tmp_path / "pipe-DF11"
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=4)).save_pretrained(plain)
    shutil.copytree(plain, path, ignore=shutil.ignore_patterns("unet"))
    patterns = {"mid_block": ["attentions.0.to_q", "attentions.0.to_k"], "time_embedding": ["linear_1", "linear_2"]}
    df11.compress(plain / "unet", path / "unet", patterns=json.dumps(patterns))
    sample = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        want = unet(sample, 1).sample
        for where in (path, tmp_path / "again"):
            pipe = diffusers.DDPMPipeline.from_pretrained(where)
            assert len(df11.torch.weights_of(pipe.unet)) == 4
            assert torch.equal(pipe.unet(sample, 1).sample, want)
            pipe.save_pretrained(tmp_path / "again")
