"""From high resolution to low resolution as films and CT really lose it: at random, for training on all of it at once.

Blind super-resolution trains on many losses of resolution so that one network serves all of them (Zhang et al.,
"Designing a practical degradation model for deep blind image super-resolution", ICCV 2021, BSRGAN). The steps of a
radiograph: the optics and the detector blur, pixels are binned or resampled, the detector's noise is white or
correlated and grows with the signal, a vendor's processing sharpens, an archive stores 8 bits, perhaps as JPEG.

CT slices of a coarser matrix have other filters, and the noise of kernels. A reconstruction kernel decides how sharp a
slice is and which noise it has: the ramp of the filtered back projection makes noise grow with the frequency, and the
kernel ends it (Boedeker et al., "Application of the noise power spectrum in modern diagnostic MDCT: part I", Physics in
Medicine and Biology 52, 2007). So noise here is white noise filtered by ``f^a exp(-(f / c)^2)``.
In flat tissue of the training slices, soft kernels have cutoffs of 0.12 to 0.3 cycles per pixel; with bone and lung
kernels noise grows up to the corners of the spectrum, about as ``f^0.5``. Behind shoulders and spine it is longer in
one direction than in the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from monai.transforms.transform import Randomizable
from monai_sr_bundle.degradation import blur_matrix as exact_blur_matrix
from monai_sr_bundle.degradation import reduction_matrix, through_jpeg
from monai_sr_bundle.images.unit import AIR

KERNELS = ("bicubic_antialias", "area", "bilinear_antialias", "lanczos_antialias")
MAX_BLUR, MAX_NOISE = 3.0, 4.5
"""Largest standard deviations of a film's blur, in high-resolution pixels, and of its noise, in grey levels of 255."""
SEVERAL = {"blur": 0.6, "noise": 0.55, "sharpening": 0.25, "jpeg": 0.35}
"""Shares of the films with each loss, of those that may have all of them at once."""
LARGEST_KEPT = 512
"""Longest line whose matrix is kept: those of whole films would fill the memory."""
NOISE_CUTOFFS = (0.12, 2.0)
"""Cutoffs of the noise of CT that are drawn, from soft kernels to none; all octaves alike."""


@dataclass(frozen=True)
class FilmDegradation:
    """One way from a high-resolution radiograph to the low-resolution one that an archive would hold.

    Applied in the order of the attributes, then rounded to 8 bits (before JPEG, if there is any).

    Attributes:
        scale: high-resolution pixels per low-resolution pixel along each axis.
        kernel: filter of the reduction, one of `KERNELS`. Default "bicubic_antialias".
        blur: standard deviation in high-resolution pixels of a Gaussian before the reduction; 0 for none.
        noise: standard deviation of the noise in grey levels of 0 to 255, added after the reduction; 0 for none.
        noise_correlation: standard deviation in low-resolution pixels of the Gaussian that correlates the noise; 0
            for white noise. Without effect if the noise is given as a texture.
        noise_growth: 0 for noise that is the same everywhere, 1 for a variance proportional to the signal.
        sharpening: weight of an unsharp mask; 0 for none.
        sharpening_radius: standard deviation in low-resolution pixels of its Gaussian.
        jpeg_quality: 1 to 97; 0 for no JPEG.
    """

    scale: int
    kernel: str = "bicubic_antialias"
    blur: float = 0.0
    noise: float = 0.0
    noise_correlation: float = 0.0
    noise_growth: float = 0.0
    sharpening: float = 0.0
    sharpening_radius: float = 1.0
    jpeg_quality: int = 0

    def __call__(
        self, high_res: np.ndarray, rng: np.random.Generator, noise_texture: np.ndarray | None = None
    ) -> np.ndarray:
        """Make the low-resolution image.

        Args:
            high_res: ``[rows, columns]`` in ``[0, 1]``, both multiples of `scale`.
            rng: random generator of the noise.
            noise_texture: noise of standard deviation 1 to use instead of Gaussian noise, at least as large as the
                result.

        Returns:
            ``[rows / scale, columns / scale]`` float32 in ``[0, 1]``, whole 255ths.
        """
        rows, columns = high_res.shape
        high_res = np.asarray(high_res, dtype=np.float32)
        low_res = self._matrix(rows) @ high_res @ self._matrix(columns).T
        if self.noise:
            if noise_texture is None:
                noise_texture = correlated_noise(low_res.shape, self.noise_correlation, rng)
            noise_texture = noise_texture[: low_res.shape[0], : low_res.shape[1]]
            signal = np.clip(low_res, 0, 1) / max(float(low_res.mean()), 1e-3)
            deviation = np.sqrt(1 - self.noise_growth + self.noise_growth * signal)
            low_res = low_res + self.noise / 255 * deviation * noise_texture
        if self.sharpening:
            down, across = (blur_matrix(self.sharpening_radius, size) for size in low_res.shape)
            low_res = low_res + self.sharpening * (low_res - down @ low_res @ across.T)
        low_res = np.rint(np.clip(low_res, 0, 1) * 255) / 255
        return (through_jpeg(low_res, self.jpeg_quality) if self.jpeg_quality else low_res).astype(np.float32)

    def _matrix(self, size: int) -> np.ndarray:
        return blur_and_reduction_matrix(self.kernel, self.scale, self.blur, size)


class RandomDegradation(Randomizable):
    """Degrade a high-resolution radiograph in a way that is drawn anew for every image.

    An image is reduced ideally (antialiased bicubic), or by one of `KERNELS` with at most one loss beyond that, or with
    several at once. What is drawn: a blur of up to `MAX_BLUR` high-resolution pixels; noise of up to `MAX_NOISE` grey
    levels, white, correlated over 0.3 to 0.9 pixels (a third of it) or one of `noise_textures`, half of it growing with
    the signal; an unsharp mask of weight 0.2 to 1 and radius 0.7 to 2; JPEG of quality 50 to 97.

    Args:
        ideal, box: shares of the images that are reduced ideally, and by binning alone.
        single: share of the images with at most one loss beside the kernel: none (a third of them), blur, noise,
            sharpening or JPEG.
        noise_textures: noise from `film_noise_textures`, ``[count, rows, columns]``. Default: none.
    """

    def __init__(
        self, *, ideal: float = 0.3, box: float = 0.0, single: float = 0.35, noise_textures: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.ideal, self.box, self.single = ideal, box, single
        self.noise_textures = noise_textures

    def draw(self, scale: int) -> FilmDegradation:
        """Draw the degradation of the next image."""
        kind = self.R.random_sample()
        if kind < self.ideal:
            return FilmDegradation(scale)
        if kind < self.ideal + self.box:
            return FilmDegradation(scale, kernel="area")
        if kind < self.ideal + self.box + self.single:
            losses = {str(self.R.choice(["kernel", "kernel", "blur", "noise", "sharpening", "jpeg"]))}
        else:
            losses = {loss for loss, share in SEVERAL.items() if self.R.random_sample() < share}
        noise = replace(FilmDegradation(scale), noise=self.R.uniform(0, MAX_NOISE))
        if self.R.random_sample() < 0.35:
            noise = replace(noise, noise_correlation=round(self.R.uniform(0.3, 0.9), 1))
        if self.R.random_sample() < 0.5:
            noise = replace(noise, noise_growth=self.R.uniform(0, 1))
        return replace(
            noise if "noise" in losses else FilmDegradation(scale),
            kernel=KERNELS[self.R.randint(len(KERNELS))],
            # Steps of a tenth of a pixel, so that the matrices of the few widths can be kept.
            blur=round(self.R.uniform(0, MAX_BLUR), 1) if "blur" in losses else 0.0,
            sharpening=self.R.uniform(0.2, 1.0) if "sharpening" in losses else 0.0,
            sharpening_radius=round(self.R.uniform(0.7, 2.0), 1),
            jpeg_quality=int(self.R.randint(50, 98)) if "jpeg" in losses else 0,
        )

    def __call__(self, high_res: np.ndarray, scale: int) -> np.ndarray:
        """Draw a degradation and apply it; arguments and result as for `FilmDegradation`."""
        degradation = self.draw(scale)
        rng = np.random.default_rng(self.R.randint(2**32, dtype=np.uint32))
        texture = None
        if self.noise_textures is not None and self.R.random_sample() < 0.3:
            texture = self._draw_texture([size // scale for size in high_res.shape])
        return degradation(high_res, rng, texture)

    def _draw_texture(self, shape: Sequence[int]) -> np.ndarray | None:
        assert self.noise_textures is not None
        if min(self.noise_textures.shape[1:]) < max(shape):
            return None
        texture = self.noise_textures[self.R.randint(len(self.noise_textures))]
        row, column = (self.R.randint(have - needed + 1) for have, needed in zip(texture.shape, shape, strict=True))
        texture = texture[row : row + shape[0], column : column + shape[1]]
        return texture[:: self.R.choice([-1, 1]), :: self.R.choice([-1, 1])]


def correlated_noise(shape: Sequence[int], correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of standard deviation 1, white or correlated by a Gaussian.

    Args:
        shape: rows and columns.
        correlation: standard deviation of the Gaussian in pixels; 0 for white noise.
        rng: random generator of the noise.
    """
    noise = rng.standard_normal(tuple(shape), dtype=np.float32)
    if not correlation:
        return noise
    down, across = (blur_matrix(correlation, size) for size in shape)
    # The deviation that the blur leaves: the root of the sum of its squared weights, along both axes.
    middle = (shape[0] // 2, shape[1] // 2)
    left = np.linalg.norm(down[middle[0]]) * np.linalg.norm(across[middle[1]])
    return np.asarray(down @ noise @ across.T / left)


def film_noise_textures(films: Iterable[np.ndarray]) -> np.ndarray:
    """Return noise as films have it: what a flat part of a film differs by from its smooth version.

    Args:
        films: ``[rows, columns]`` in ``[0, 1]``, each at least 96 pixels along both axes.

    Returns:
        ``[films, 96, 96]`` float32, each of mean 0 and standard deviation 1. Films whose flattest part has no noise, as
        a black border, are left out.
    """
    textures, size = [], 96
    for film in films:
        film = np.asarray(film, dtype=np.float32)
        # The standard deviation, in pixels, of the Gaussian that makes the smooth version.
        down, across = (blur_matrix(2.5, side) for side in film.shape)
        smoothed = down @ film @ across.T
        residual = film - smoothed
        candidates = []
        for row in range(0, film.shape[0] - size + 1, size // 2):
            for column in range(0, film.shape[1] - size + 1, size // 2):
                window = (slice(row, row + size), slice(column, column + size))
                part = residual[window]
                deviation = float(part.std())
                # Neither free of noise, nor at the end of the grey levels, nor with an edge or a letter in it.
                exposed = smoothed[window].min() > 0.02 and smoothed[window].max() < 0.98
                if deviation > 0.5 / 255 and exposed and np.abs(part).max() < 6 * deviation:
                    edges = np.abs(np.diff(smoothed[window], axis=0)).mean()
                    edges += np.abs(np.diff(smoothed[window], axis=1)).mean()
                    candidates.append((float(edges) / deviation, part))
        if candidates:
            flattest = min(candidates, key=lambda candidate: candidate[0])[1]
            textures.append((flattest - flattest.mean()) / flattest.std())
    return np.stack(textures) if textures else np.empty((0, size, size), dtype=np.float32)


def blur_matrix(deviation: float, size: int) -> np.ndarray:
    """Return the matrix that blurs a line of `size` samples by a Gaussian: ``[size, size]`` float32, rows sum to 1."""
    return (_blur_matrix if size <= LARGEST_KEPT else _blur_matrix.__wrapped__)(deviation, size)


@lru_cache(maxsize=2048)
def _blur_matrix(deviation: float, size: int) -> np.ndarray:
    matrix = exact_blur_matrix(deviation, size).astype(np.float32)
    matrix.flags.writeable = False
    return matrix


def blur_and_reduction_matrix(kernel: str, scale: int, blur: float, size: int) -> np.ndarray:
    """Return the matrix that blurs a line of `size` samples, then reduces it: ``[size / scale, size]`` float32."""
    make = _blur_and_reduction_matrix
    return (make if size <= LARGEST_KEPT else make.__wrapped__)(kernel, scale, blur, size)


@lru_cache(maxsize=4096)
def _blur_and_reduction_matrix(kernel: str, scale: int, blur: float, size: int) -> np.ndarray:
    matrix = reduction_matrix(kernel, scale, size).astype(np.float32)
    if blur:
        matrix = matrix @ blur_matrix(blur, size)
    matrix.flags.writeable = False
    return matrix


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
            padding: booleans of the same shape, true in padding; there the result is air without noise.

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

    Attributes:
        ideal: share of the images that are reduced by antialiased bicubic. The others have one of `KERNELS`, two of
            five of them the box, as scanners and archives bin pixels.
        noise: share of the images with noise, of any spectrum with a growth of 0 to 1 and a cutoff of 0.12 (soft
            kernels) to 2 (no end), half of them with a stretch of 1 to 2.5.
        sharpening: share of the images that are sharpened, by weights of 0.1 to 0.5 at radii of 0.7 to 1.5 pixels.
        max_noise: largest standard deviation of the noise in HU; below a cutoff of 0.5 in proportion less, for a
            kernel that lets less through.
    """

    ideal, noise, sharpening, max_noise = 0.5, 0.7, 0.15, 100.0

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
            cutoff = float(np.exp(self.R.uniform(*np.log(NOISE_CUTOFFS))))
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
