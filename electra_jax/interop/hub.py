"""The Hugging Face hub: models pushed there, and opened from there by `hub:NAME[@REVISION]`.

The library is an extra. Its token and endpoint are those of its environment variables (HF_TOKEN,
HF_ENDPOINT, HF_HUB_OFFLINE).
"""

import importlib.util
from pathlib import Path

from electra_jax.errors import UsageError
from electra_jax.system.json_files import short_reason

SCHEME = "hub:"


def local_model(path: str | Path) -> str | Path:
    """The folder of a model: `path` itself, or what `hub:NAME[@REVISION]` is downloaded to.

    It is the library's cache, which is asked before anything is downloaded again.

    Raises:
      UsageError: the library is not installed, or there is no such model.
    """
    if not str(path).startswith(SCHEME):
        return path
    name, _, revision = str(path).removeprefix(SCHEME).partition("@")
    _check_installed(str(path))
    import huggingface_hub

    try:
        return huggingface_hub.snapshot_download(name, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:  # of its many kinds all are one of these
        raise UsageError(f"{path} cannot be read from the hub: {short_reason(error)}") from error


def push(folder: str | Path, name: str, revision: str = "", private: bool = False) -> str:
    """Uploads a folder as a model, which is made if there is none of this name.

    Args:
      folder: of an exported model.
      name: such as "me/small".
      revision: a branch, which is made, too; by default the main one.
      private: whether a model that is made is private.

    Returns:
      The address of what was uploaded.

    Raises:
      UsageError: the library is not installed, or the hub refuses.
    """
    _check_installed(f"--push {name}")
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        return str(
            api.upload_folder(
                repo_id=name, folder_path=folder, revision=revision or None,
                commit_message="Exported by electra-jax",
            )
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} cannot be pushed to the hub: {short_reason(error)}") from error


def _check_installed(asked: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UsageError(
            f"{asked}: huggingface_hub is not installed; pip install '.[hub]' in the checkout"
        )
