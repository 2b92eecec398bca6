"""Vision transformers whose linear layers read part of their inputs, with timm's parameter names.

Dosovitskiy et al. 2021 (arXiv 2010.11929); position table and initialization of MoCo v3 (arXiv 2104.02057). As in the
official code, a width slices only the input features of the linear layers in the blocks: the residual stream, the
LayerNorms, the patch embedding and every layer's outputs have their full size.
"""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.models.backbones.layers import scale_channels
from us3l.utils.errors import UserError

PATCH, DEPTH, EXPANSION = 16, 12, 4


class LeadingLinear(nn.Linear):
    """A linear layer that reads the leading features of its input: [..., inputs or more] to [..., outputs]."""

    def __init__(self, inputs: int, outputs: int, width: float) -> None:
        super().__init__(scale_channels(inputs, width), outputs)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., : self.in_features])


class Attention(nn.Module):
    """Multi-head self-attention of tokens [B, N, size]."""

    def __init__(self, size: int, heads: int, width: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = LeadingLinear(size, 3 * size, width)
        self.proj = LeadingLinear(size, size, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))

    def multiply_accumulates(self, output: Tensor) -> int:
        """Count the products of queries with keys and of attention weights with values, without the linear layers."""
        return 2 * output.numel() * output.shape[1]


class Mlp(nn.Module):
    """Two linear layers with GELU between, applied to each token."""

    def __init__(self, size: int, width: float) -> None:
        super().__init__()
        self.fc1 = LeadingLinear(size, EXPANSION * size, width)
        self.fc2 = LeadingLinear(EXPANSION * size, size, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention, then the MLP, each after a LayerNorm and with a shortcut; tokens are [B, N, size]."""

    def __init__(self, size: int, heads: int, width: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size, eps=1e-6)
        self.attn = Attention(size, heads, width)
        self.norm2 = nn.LayerNorm(size, eps=1e-6)
        self.mlp = Mlp(size, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """The embedding of images [B, C, H, W] in a grid of patches [B, H / 16, W / 16, size].

    Raises UserError where H or W is no multiple of 16.
    """

    def __init__(self, in_channels: int, size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, size, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH:
            what = f"a vision transformer takes sides that are multiples of {PATCH}"
            where = "resized_crop.size in views.pretrain and views.linear, or center_crop in views.test"
            raise UserError(f"images of {height}x{width}: {what}; set the data set's {where}")
        return self.proj(x).permute(0, 2, 3, 1)


class VisionTransformer(nn.Module):
    """A network from images [B, C, H, W], H and W multiples of 16, to the class token's features [B, size]."""

    def __init__(self, size: int, heads: int, width: float, in_channels: int) -> None:
        super().__init__()
        self.num_features = size
        self.patch_embed = PatchEmbed(in_channels, size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size))
        self.blocks = nn.Sequential(*(Block(size, heads, width) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize by Xavier's uniform distribution, with queries, keys and values as three layers."""
        nn.init.normal_(self.cls_token, std=1e-6)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                outputs, inputs = module.weight.flatten(1).shape
                fans = inputs + outputs // (3 if name.endswith("qkv") else 1)
                bound = (6 / fans) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self._tokens(self._patches(x)))[:, 0]

    def feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Return the patches' tokens after the last block, [B, size, H / 16, W / 16]."""
        patches = self._patches(x)
        tokens = self._tokens(patches)[:, 1:]
        return {"blocks": tokens.unflatten(1, patches.shape[1:3]).permute(0, 3, 1, 2)}

    def _patches(self, x: Tensor) -> Tensor:
        """Embed patches, with their positions: [B, H / 16, W / 16, size]."""
        patches = self.patch_embed(x)
        return patches + positions(*patches.shape[1:], self.cls_token.dtype, x.device)

    def _tokens(self, patches: Tensor) -> Tensor:
        """Return the class token and the patches' tokens after the last block, [B, N, size]."""
        tokens = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches.flatten(1, 2)), dim=1)
        return self.blocks(tokens)


@lru_cache
@torch.inference_mode(False)  # what is kept serves trainings and exports, too
def positions(rows: int, columns: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Build the fixed position table [rows, columns, size].

    A quarter each are sines and cosines of the row, then of the column. MoCo v3 has the row first too, though it
    calls it w. As there, the table is computed in float32.
    """
    exponents = torch.arange(size // 4, dtype=torch.float32) / (size // 4)
    frequencies = 1.0 / 10000.0**exponents
    row, column = (torch.arange(count, dtype=torch.float32)[:, None] * frequencies for count in (rows, columns))
    by_row = torch.cat((row.sin(), row.cos()), dim=1)[:, None].expand(-1, columns, -1)
    by_column = torch.cat((column.sin(), column.cos()), dim=1)[None].expand(rows, -1, -1)
    return torch.cat((by_row, by_column), dim=2).to(device, dtype)
