"""The paper's family of objectives and generators, each a variant of `tiny` or `small`.

    electra-jax pretrain --config pretrain/family:mlm --workdir runs/mlm --config.data.store=STORE
    electra-jax pretrain --config pretrain/family:small-mlm …

docs/objectives.md says what each variant is, and how to add one.
"""

from electra_jax.config import choose_variant, load_config

FULL_SIZE = {"generator.width": 1.0, "generator.depth": 1.0}
VARIANTS = {
    "electra": {},
    # Objectives.
    "mlm": {"objective.name": "mlm", "generator.kind": "none", "optimizer.separate": ""},
    "replace_mlm": {"objective.name": "replace_mlm"},
    "all_tokens_mlm": {"objective.name": "all_tokens_mlm"},
    "electra_masked": {"objective.name": "electra_masked"},
    "electric": {"objective.name": "electric", "generator.kind": "two_tower"},
    # Generators.
    "tied": {**FULL_SIZE, "generator.share": "all"},
    "untied": {"generator.share": "nothing"},
    "disentangled": {"generator.share": "disentangled"},
    "unigram": {"generator.kind": "unigram"},
    "uniform": {"generator.kind": "uniform"},
    # Ways to mask and to sample.
    "whole_word": {"objective.whole_word": True},
    "disallow_correct": {"objective.disallow_correct": True},
    # Second stages: give --config.init.from=RUN, a run of `mlm` or of `electra`.
    "two_stage": {
        **FULL_SIZE, "generator.share": "nothing", "objective.generator_weight": 0.0,
        "optimizer.frozen": "^generator",
    },
    "frozen_generator": {
        "generator.share": "nothing", "objective.generator_weight": 0.0,
        "optimizer.frozen": "^generator", "objective.temperature": 2.0,
        "objective.final_temperature": 1.0,
    },
}  # fmt: skip


def get_config(variant: str = "electra"):
    size, _, name = variant.rpartition("-")
    choose_variant(size, ("tiny", "small"))
    fields = VARIANTS[choose_variant(name, tuple(VARIANTS)) or "electra"]
    config = load_config(f"pretrain/{size or 'tiny'}")
    for path, value in fields.items():
        section, field = path.split(".")
        config[section][field] = value
    return config
