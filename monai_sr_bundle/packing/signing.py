"""Sign a packed bundle with a private key, and check such a signature, by OpenSSF's model-signing.

The signature is a file in the bundle's folder. It lists the SHA-256 of every other file there, those of git and of
compiled Python included: either could bring other code than the signed one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_sr_bundle.errors import BundleError, InputError, quote
from monai_sr_bundle.images.staging import write_file
from monai_sr_bundle.images.working_folders import remove_abandoned, working_folder

SIGNATURE = "model.sig"
"""Name of the signature in a bundle's folder."""
LARGEST_SIGNATURE = 4 * 1024**2
"""Bytes of a signature that is read at most: a bundle has some hundred files."""
_CURVES = "expected one in PEM of the curve P-256, P-384 or P-521"


def sign(folder: Path, private_key: Path, ask_password: Callable[[], str] | None = None) -> Path:
    """Sign all files of a packed bundle, and replace an older signature.

    Args:
        folder: folder of the packed bundle.
        private_key: private key in PEM, of the curve P-256, P-384 or P-521.
        ask_password: returns the password of an encrypted key. Default: such a key is refused.

    Returns:
        The signature, `SIGNATURE` in the folder.

    Raises:
        BundleError: the folder is no packed bundle, or holds a link.
        InputError: the key cannot be read, or lies in the folder.
        OutputError: the signature cannot be written.
    """
    from model_signing import signing

    _require_packed(folder)
    if folder.resolve() in private_key.resolve().parents:
        raise InputError(f"{private_key} lies in {folder}, whose files are given away. Move the private key first.")
    signer = _read_private_key(signing.Config(), private_key, ask_password)
    remove_abandoned(folder)
    with working_folder(Path(tempfile.gettempdir())) as scratch:
        try:
            signer.set_hashing_config(_every_file()).sign(folder.resolve(), scratch / SIGNATURE)
        except (ValueError, OSError) as error:
            raise BundleError(f"{folder} cannot be signed: {quote(error)}. Pack the bundle again.") from error
        return write_file(folder / SIGNATURE, (scratch / SIGNATURE).read_bytes())


def check_signature(folder: Path, public_key: Path) -> None:
    """Check that the files of a packed bundle are those that were signed, and by whom.

    Args:
        folder: folder of the packed bundle.
        public_key: public key in PEM of the one who signs.

    Raises:
        BundleError: there is no signature, it was made with another key, or a file was changed, added or taken away.
        InputError: the key cannot be read.
    """
    from model_signing import verifying

    _require_packed(folder)
    signature = folder / SIGNATURE
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # for each kind of file that is no such key, the library raises another one
        raise InputError(f"{public_key}: no public key ({quote(error)}), {_CURVES}.") from error
    if not signature.is_file():
        raise BundleError(f"{folder} is not signed: it has no {SIGNATURE}. Ask for the signed bundle, or sign it.")
    if signature.stat().st_size > LARGEST_SIGNATURE:
        raise BundleError(f"{signature}: {signature.stat().st_size:,} bytes, expected at most {LARGEST_SIGNATURE:,}.")
    try:
        verifier.set_hashing_config(_every_file()).verify(folder.resolve(), signature.resolve())
    except Exception as error:  # a damaged signature raises whatever it meets in its JSON, its base64 or its numbers
        raise BundleError(
            f"{folder}: the signature does not fit ({type(error).__name__}: {quote(error) or 'other key or content'}). "
            "Run nothing of this bundle; get it again from whoever signed it."
        ) from error


def _every_file() -> Any:
    """Return the files that are hashed: all but the signature, so the files that git would run, too."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _require_packed(folder: Path) -> None:
    if not (folder / "configs" / "metadata.json").is_file():
        raise BundleError(f"{folder} is no packed bundle. Name a folder made by `monai-sr pack`.")


def _read_private_key(config: Any, private_key: Path, ask_password: Callable[[], str] | None) -> Any:
    try:
        try:
            return config.use_elliptic_key_signer(private_key=private_key)
        except TypeError:  # the key is encrypted
            if ask_password is None:
                raise
            return config.use_elliptic_key_signer(private_key=private_key, password=ask_password().encode())
    except Exception as error:  # for each kind of file that is no such key, the library raises another one
        raise InputError(
            f"{private_key}: no private key ({quote(error)}), {_CURVES}. "
            "`openssl ecparam -name prime256v1 -genkey -noout` makes one."
        ) from error
