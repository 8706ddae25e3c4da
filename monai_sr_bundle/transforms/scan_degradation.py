"""From CT slices of high resolution to those of a coarser matrix: other filters, and the noise of kernels.

A reconstruction kernel decides how sharp a slice is and which noise it has: the ramp of the filtered back projection
makes noise grow with the frequency, and the kernel ends it (Boedeker et al., "Application of the noise power spectrum
in modern diagnostic MDCT: part I", Physics in Medicine and Biology 52, 2007). So noise here is white noise filtered by
``f^a exp(-(f / c)^2)``. In flat tissue of the training slices, soft kernels have cutoffs of 0.12 to 0.3 cycles per
pixel; with bone and lung kernels noise grows up to the corners of the spectrum, about as ``f^0.5``. Behind shoulders
and spine it is longer in one direction than in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from monai.transforms.transform import Randomizable

from monai_sr_bundle.images.padding import AIR
from monai_sr_bundle.transforms.random_degradation import KERNELS, blur_and_reduction_matrix, blur_matrix

CUTOFFS = (0.12, 2.0)
"""Cutoffs that are drawn, from soft kernels to none; all octaves alike."""


@dataclass(frozen=True)
class ScanDegradation:
    """One way from slices of high resolution to those of a coarser matrix, in the order of the attributes.

    Attributes:
        scale: high-resolution pixels per low-resolution pixel along rows and columns.
        kernel: filter of the reduction, one of `KERNELS`. Default "bicubic_antialias".
        sharpening: weight of an unsharp mask, as sharp kernels have it; 0 for none.
        sharpening_radius: standard deviation in low-resolution pixels of its Gaussian.
        noise: standard deviation in HU of noise that is added, another one in every slice; 0 for none.
        noise_growth: exponent `a` of the noise's amplitude over the frequency; 0 for a flat spectrum.
        noise_cutoff: frequency `c` in cycles per low-resolution pixel at which the noise's amplitude ends.
        noise_stretch: how much longer the noise is along rows than along columns; 1 for no direction.
    """

    scale: int
    kernel: str = "bicubic_antialias"
    sharpening: float = 0.0
    sharpening_radius: float = 1.0
    noise: float = 0.0
    noise_growth: float = 0.0
    noise_cutoff: float = 0.5
    noise_stretch: float = 1.0

    def __call__(self, high_res: np.ndarray, rng: np.random.Generator, padding: np.ndarray | None = None) -> np.ndarray:
        """Make the low-resolution slices.

        Args:
            high_res: ``[slices, rows, columns]`` in HU, rows and columns multiples of `scale`; air where there is
                padding.
            rng: random generator of the noise.
            padding: where there is padding, booleans of the same shape; there is air without noise in the result.

        Returns:
            ``[slices, rows / scale, columns / scale]`` float32, whole HU, not clipped.
        """
        down, across = (blur_and_reduction_matrix(self.kernel, self.scale, 0, side) for side in high_res.shape[1:])
        low_res = down @ np.asarray(high_res, dtype=np.float32) @ across.T
        rows, columns = low_res.shape[1:]
        if self.sharpening:
            down, across = (blur_matrix(self.sharpening_radius, side) for side in (rows, columns))
            low_res += self.sharpening * (low_res - down @ low_res @ across.T)
        if self.noise:
            low_res += self.noise * kernel_noise(
                low_res.shape, self.noise_growth, self.noise_cutoff, rng, stretch=self.noise_stretch
            )
        if padding is not None and padding.any():
            blocks = padding.reshape(-1, rows, self.scale, columns, self.scale)
            low_res[blocks.all(axis=(2, 4))] = AIR
        return np.asarray(np.rint(low_res), dtype=np.float32)


class RandomScanDegradation(Randomizable):
    """Degrade CT slices in a way that is drawn anew every time.

    Args:
        ideal: share of the images that are reduced by antialiased bicubic. The others have one of `KERNELS`, two of
            five of them the box, as scanners and archives bin pixels. Default 0.5.
        noise: share of the images with noise, of any spectrum with a growth of 0 to 1 and a cutoff of 0.12 (soft
            kernels) to 2 (no end), half of them with a stretch of 1 to 2.5. Default 0.7.
        sharpening: share of the images that are sharpened, by weights of 0.1 to 0.5 at radii of 0.7 to 1.5 pixels.
            Default 0.15.
        max_noise: largest standard deviation of the noise in HU; below a cutoff of 0.5 in proportion less, for a
            kernel that lets less through. Default 100.
    """

    def __init__(
        self, *, ideal: float = 0.5, noise: float = 0.7, sharpening: float = 0.15, max_noise: float = 100.0
    ) -> None:
        super().__init__()
        self.ideal, self.noise, self.sharpening, self.max_noise = ideal, noise, sharpening, max_noise

    def draw(self, scale: int) -> ScanDegradation:
        """Draw the degradation of the next slices."""
        degradation = ScanDegradation(scale)
        if self.R.random_sample() >= self.ideal:
            degradation = replace(degradation, kernel=("area", *KERNELS)[self.R.randint(1 + len(KERNELS))])
        if self.R.random_sample() < self.sharpening:
            degradation = replace(
                degradation,
                sharpening=self.R.uniform(0.1, 0.5),
                # Steps of a tenth of a pixel, so that the matrices of the few widths can be kept.
                sharpening_radius=round(self.R.uniform(0.7, 1.5), 1),
            )
        if self.R.random_sample() < self.noise:
            cutoff = float(np.exp(self.R.uniform(*np.log(CUTOFFS))))
            degradation = replace(
                degradation,
                noise=self.R.uniform(0, self.max_noise * min(1, cutoff / 0.5)),
                noise_growth=self.R.uniform(0, 1),
                noise_cutoff=cutoff,
                noise_stretch=max(1.0, self.R.uniform(-0.5, 2.5)),
            )
        return degradation

    def generator(self) -> np.random.Generator:
        """Return the generator of the next noise."""
        return np.random.default_rng(self.R.randint(2**32, dtype=np.uint32))

    def __call__(self, high_res: np.ndarray, scale: int, padding: np.ndarray | None = None) -> np.ndarray:
        """Draw a degradation and apply it; arguments and result as for `ScanDegradation`."""
        return self.draw(scale)(high_res, self.generator(), padding)


def kernel_noise(
    shape: Sequence[int], growth: float, cutoff: float, rng: np.random.Generator, *, stretch: float = 1.0
) -> np.ndarray:
    """Return noise of standard deviation 1, white noise filtered by ``f^growth exp(-(f / cutoff)^2)``.

    Args:
        shape: slices, rows and columns; every slice has noise of its own.
        growth: exponent of the frequency.
        cutoff: frequency in cycles per pixel.
        rng: random generator of the noise.
        stretch: factor on the frequency along rows, so that noise with a cutoff is as much longer there.

    Returns:
        float32 of that shape.
    """
    *_, rows, columns = shape
    padded = [side + -side % 8 for side in (rows, columns)]  # lengths that the transform is fast at
    down, across = (np.fft.fftfreq(side) for side in padded)
    frequency = np.hypot(down[:, None], stretch * across[None, :])
    amplitude = frequency**growth * np.exp(-((frequency / cutoff) ** 2))
    amplitude /= np.sqrt(np.mean(amplitude**2))
    white = np.fft.rfft2(rng.standard_normal((*shape[:-2], *padded), dtype=np.float32))
    noise = np.fft.irfft2(white * amplitude[:, : white.shape[-1]], s=padded)
    return np.asarray(noise[..., :rows, :columns], dtype=np.float32)
