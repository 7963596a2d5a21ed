"""What pyproject.toml cannot say: where the packages lie. All else stands there."""

from setuptools import find_packages, setup

CONFIGS = "electra_jax.configs"

setup(
    # The shipped configs lie at the top of the checkout and inside the installed package.
    packages=find_packages(include=["electra_jax", "electra_jax.*"])
    + [CONFIGS, f"{CONFIGS}.pretrain", f"{CONFIGS}.finetune"],
    package_dir={CONFIGS: "configs"},
    package_data={
        "electra_jax": ["py.typed"],
        "electra_jax.reporting": ["assets/*", "templates/*"],
    },
)
