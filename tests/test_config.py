"""Configs: every shipped one is whole, overrides keep their types, faults are named."""

from pathlib import Path

import pytest

from electra_jax.config import find_config, finetune_config, load_config, pretrain_config
from electra_jax.errors import UsageError
from electra_jax.run_directory import read_config, save_config

CONFIGS = Path(__file__).parent.parent / "configs"
SHIPPED = [
    f"pretrain/{file.stem}{variant}"
    for file in sorted(CONFIGS.glob("pretrain/[a-z]*.py"))
    for variant in (("", ":mlm") if file.stem == "family" else ("", ":modern"))
    if not (file.stem == "tiny" and variant)
]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_is_whole_and_says_how_to_run_it(name, tmp_path):
    config = pretrain_config(load_config(name).to_dict())
    save_config(config, tmp_path)
    assert read_config(tmp_path) == config
    text = find_config(name.partition(":")[0]).read_text()
    assert "electra-jax pretrain --config pretrain/" in text


def test_small_is_the_published_one():
    config = pretrain_config(load_config("pretrain/small").to_dict())
    model, optimizer = config.model, config.optimizer
    assert (model.layers, model.hidden, model.heads, model.intermediate) == (12, 256, 4, 1024)
    assert (model.embedding, model.max_positions, model.dropout) == (128, 512, 0.1)
    assert (config.generator.width, config.generator.depth) == (0.25, 1.0)
    assert (config.objective.mask_rate, config.objective.discriminator_weight) == (0.15, 50.0)
    assert (optimizer.learning_rate, optimizer.warmup_steps) == (5e-4, 10_000)
    assert (optimizer.weight_decay, optimizer.epsilon, optimizer.clip) == (0.01, 1e-6, 1.0)
    assert not optimizer.bias_correction
    assert (config.train.batch_size, config.train.steps) == (128, 1_000_000)
    assert (config.data.length, config.data.layout) == (128, "pair")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=1e4", 10_000),
        ("train.steps=123456789012345678", 123456789012345678),
        ("optimizer.learning_rate=1", 1.0),
        ("objective.disallow_correct=true", True),
        ("data.store=a:0.7,b=c:0.3", "a:0.7,b=c:0.3"),
    ],
)
def test_overrides_take_the_type_of_their_field(override, expected):
    config = load_config("pretrain/small", [override])
    section, field = override.partition("=")[0].split(".")
    value = config[section][field]
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=5", r"no such field; did you mean --config.train.steps\?"),
        ("train.steps=many", "not of type int"),
        ("train.steps=1.5", "not of type int"),
        ("objective.disallow_correct=maybe", "not of type bool"),
        ("train.steps", "needs a value"),
        ("train=5", "no such field"),
    ],
)
def test_bad_overrides_are_named(override, message):
    with pytest.raises(UsageError, match=message):
        load_config("pretrain/small", [override])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py", "no config file nowhere.py; shipped with the package: .*pretrain/tiny.py"),
        ("pretrain/small:moddern", "no variant 'moddern'; there are modern"),
    ],
)
def test_bad_specs_are_named(spec, message):
    with pytest.raises(UsageError, match=message):
        load_config(spec)


def test_a_broken_config_file_is_named(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(variant):\n    return 1 / 0\n")
    with pytest.raises(UsageError, match=r"mine.py is no usable config: ZeroDivisionError"):
        load_config(str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.train.stepz = 5", "stepz"),
        ("config.evaluation = {'every': 5}", "evaluation"),
        ("config = {'train': {'steps': 5}}", "get_config returns no ConfigDict"),
        ("config = ConfigDict({'train': {'stepz': 5}})", "config.train.stepz: there is no such"),
        ("config = ConfigDict({'trian': {'steps': 5}})", "config.trian: there is no such section"),
    ],
)
def test_a_misspelt_field_of_a_config_file_is_named(tmp_path, change, message):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "from electra_jax.config import pretrain_defaults\n"
        f"def get_config(variant):\n    config = pretrain_defaults()\n    {change}\n"
        "    return config\n"
    )
    with pytest.raises(UsageError, match=message):
        pretrain_config(load_config(str(file)).to_dict())


@pytest.mark.parametrize("field", ["train.epochs=nan", "train.evaluations=inf", "task.scale=0"])
def test_fields_of_fine_tuning_that_are_no_numbers_are_refused(field):
    with pytest.raises(UsageError, match=f"{field.partition('=')[0]} must be above 0"):
        finetune_config(load_config("finetune/classify:regression", [field]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.name=mlm"], "generator.kind=none, not transformer"),
        (["objective.name=electric"], "generator.kind=two_tower or"),
        (["objective.name=replace_mlm", "generator.share=disentangled"], "nothing, not disentang"),
        (
            ["objective.name=all_tokens_mlm", "generator.width=1", "generator.share=all"],
            "generator.share=embeddings or nothing, not all",
        ),
        (["data.length=1024"], "exceeds model.max_positions=512"),
        (["model.architecture=modern", "model.embedding=256"], "generator.width=1.0"),
        (["train.time_budget=soon"], "no duration"),
        (["train.batch_size=0"], "train.batch_size"),
        (["eval.every_steps=0"], "eval.every_steps"),
        (["checkpoint.keep=0"], "checkpoint.keep"),
        (["model.heads=3"], "not a multiple of model.heads"),
        (["model.dtype=float8"], "model.dtype"),
        (["model.attention=cudnn"], "set model.attention_dropout=0"),
        (["model.local_window=-1"], "model.local_window must be at least 0"),
        (["model.local_window=64", "model.global_every=0"], "model.global_every"),
        (["model.token_types=1"], "data.layout=pair needs model.token_types=2"),
        (["optimizer.frozen=("], "optimizer.frozen='.' is no regular expression"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay must be a number from 0"),
        (["optimizer.clip=nan"], "optimizer.clip must be a number from 0"),
        (["optimizer.b2=1"], "optimizer.b2 must be in"),
        (["optimizer.name=muon", "optimizer.learning_rate=0"], "above 0 with optimizer.name=muon"),
    ],
)
def test_fields_that_make_no_sense_together_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        pretrain_config(load_config("pretrain/small", overrides).to_dict())


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read"), ('{"version": 99}', "upgrade"), ("[]", "cannot be read")],
)
def test_a_damaged_run_config_is_refused(tmp_path, content, message):
    with pytest.raises(UsageError, match="no run directory"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path)
