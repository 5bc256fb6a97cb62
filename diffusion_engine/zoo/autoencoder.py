"""The autoencoder of the latent networks: pictures to latents of a quarter of the side, and back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from .unet import fold, unfold, zero


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x)))). Without norms a pixel depends on its surroundings alone, and so tiles of
    a picture are decoded as the whole is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Autoencoder(nn.Module):
    """z = encode(x), x = decode(z), and a linear map of z that shows what a picture will be (Rombach et al.
    2022, section 3.1).

    Args:
        channels: widths at 1/2 and 1/4 of the picture's side.
        latent: channels of z.
        blocks: residual pairs of convolutions at 1/4, in each half.
        inputs: channels of x.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64), latent: int = 4, blocks: int = 2, inputs: int = 3
    ) -> None:
        super().__init__()
        c1, c2 = channels
        if min(c1, c2, latent, blocks, inputs) < 1:
            raise ValueError(
                f"channels {tuple(channels)}, latent {latent}, blocks {blocks} and inputs {inputs} do not "
                "fit; give 1 or more of each"
            )
        self.encoder = nn.Sequential(
            Fold(), nn.Conv2d(4 * inputs, c1, 3, padding=1), Residual(c1), Fold(), nn.Conv2d(4 * c1, c2, 1),
            *(Residual(c2) for _ in range(blocks)), nn.Conv2d(c2, latent, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, c2, 3, padding=1), *(Residual(c2) for _ in range(blocks)),
            nn.Conv2d(c2, 4 * c1, 1), Unfold(), Residual(c1), nn.SiLU(),
            nn.Conv2d(c1, 4 * inputs, 3, padding=1), Unfold(),
        )  # fmt: skip
        self.preview = nn.Conv2d(latent, inputs, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Latents [B, latent, H / 4, W / 4] of pictures [B, inputs, H, W] in [-1, 1]; 4 divides H and W."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Pictures [B, inputs, H, W] of latents [B, latent, H / 4, W / 4]."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """The picture that is left of x."""
        return self.decode(self.encode(x))


class Fold(nn.Module):
    """`fold` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return fold(x)


class Unfold(nn.Module):
    """`unfold` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return unfold(x)
