"""A tiny encoder that learns from a few million words on two CPU cores.

    electra-jax pretrain --config pretrain/tiny --workdir runs/tiny --config.data.store=STORE

It has the modern block, which on little text learns several times faster than the
published one, and Muon for its matrices.

`tiny:overnight` takes ten hours, with rows of 128 tokens. docs/pretraining.md says what to expect.
"""

from electra_jax.config import choose_variant, pretrain_defaults


def get_config(variant: str = ""):
    overnight = choose_variant(variant, ("overnight",))
    config = pretrain_defaults()
    config.model.update(
        architecture="modern",
        layers=4,
        hidden=128,
        heads=4,
        intermediate=256,
        embedding=128,
        dropout=0.0,
        attention_dropout=0.0,
    )
    config.generator.update(width=1.0, depth=0.5)
    # Warmer samples are easier to tell apart: so small a discriminator learns faster from them.
    config.objective.update(discriminator_weight=1.0, temperature=2.0)
    config.data.update(layout="packed", length=64)
    config.optimizer.update(
        name="muon",
        learning_rate=3e-3,
        warmup_steps=100,
        # Without it Muon's matrices grow as long as they learn, and such an encoder is hard to
        # teach anything further (docs/history.md, "What weight decay does").
        weight_decay=0.5,
        separate="^generator/",  # a clip of its own
    )
    config.train.update(time_budget="20m", batch_size=32, log_every=50)
    config.eval.update(every_steps=500, max_batches=50, batch_size=64)
    config.checkpoint.update(every_steps=500)
    if overnight:
        config.data.length = 128
        config.train.update(time_budget="10h", batch_size=16)
        config.eval.every_steps = config.checkpoint.every_steps = 5000
    return config
